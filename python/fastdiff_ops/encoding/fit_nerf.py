"""A radiance field that is fitted to pictures of a scene."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..ops._levels import check_int
from .field import FieldMLP
from .fitting import Clock, is_measured, new_field, train
from .scene import Rendered, Views, render, scene_views

__all__ = ["NerfFit", "NerfMeasured", "fit_nerf"]

_HALF_WIDTH = 2.0  # of the cube that the field covers
_DENSITY_SCALE, _DENSITY_SHIFT = 10.0, -2.0  # at first a thin fog, through which gradients reach all of it
_CHUNK = 1 << 11  # rays
_SPARSE = 7  # the curve is measured at every seventh pixel
_HELD_OUT, _HELD_OUT_SIZE = 1000, 64  # the number of the first view that no training sees


class NerfMeasured(NamedTuple):
    """A point of the curve: steps, seconds, and the PSNR of pictures that the training did not see."""

    step: int
    seconds: float
    psnr: float


@dataclass
class NerfFit:
    """A radiance field.

    Attributes
    ----------
    field : FieldMLP
        From points of the unit cube, (p / 2 + 1) / 2, to raw density and colours.
    views, held_out : Views
        The pictures that it was fitted to, and pictures from elsewhere.
    samples : int
        Along a ray.
    curve : list of NerfMeasured
    steps : int
        Done so far.
    seconds : float
        That they took.
    """

    field: FieldMLP
    views: Views
    held_out: Views
    samples: int
    curve: list[NerfMeasured] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0

    @property
    def device(self) -> torch.device:
        """Where the field is."""
        return self.field.encoding.table.device

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return densities [N] and colours [N, 3] at points [N, 3]."""
        raw: Tensor = self.field((points / _HALF_WIDTH + 1) / 2)
        density = _DENSITY_SCALE * torch.nn.functional.softplus(raw[:, 0] + _DENSITY_SHIFT)
        return density, torch.sigmoid(raw[:, 1:])

    @torch.no_grad()
    def render(self, eyes: Tensor, rays: Tensor) -> Rendered:
        """Render rays [N, 3] from eyes [N, 3]; on the CPU."""
        chunks = zip(eyes.split(_CHUNK), rays.split(_CHUNK), strict=True)
        found = [render(self, o.to(self.device), d.to(self.device), self.samples) for o, d in chunks]
        return Rendered(*(torch.cat(parts).cpu() for parts in zip(*found, strict=True)))

    def psnr(self, every: int = 1) -> float:
        """Return the PSNR over every n-th pixel of the pictures that were held out, in dB."""
        eyes, rays, colours = (t.flatten(0, 1)[::every] for t in self.held_out)
        return -10 * math.log10(float((self.render(eyes, rays).colour - colours).square().mean()))


def fit_nerf(
    *,
    encoding: str = "simplex",
    steps: int = 500,
    seconds: float | None = None,
    n_levels: int = 8,
    log2_hashmap_size: int = 14,
    base_resolution: int = 4,
    finest_resolution: float = 64,
    n_views: int = 16,
    size: int = 40,
    rays: int = 256,
    samples: int = 48,
    learning_rate: float = 3e-2,
    seed: int = 0,
    device: torch.device | str | None = None,
    on_step: Callable[[NerfFit, int], None] | None = None,
) -> NerfFit:
    """Fit a radiance field to pictures of three soft spheres, from around them.

    Parameters
    ----------
    encoding : {"simplex", "grid"}
    steps : int
        >= 1.
    seconds : float, optional
        End sooner, after so much time.
    n_levels, log2_hashmap_size, base_resolution, finest_resolution
        As in `SimplexEncoding`; resolutions are those of the cube [-2, 2]^3.
    n_views, size : int
        Pictures, and pixels of their edge.
    rays, samples : int
        Rays a step, and samples along each.
    learning_rate : float
        Of Adam at the beginning; it falls as a cosine.
    seed : int
        >= 0. Equal seeds give equal fields on the CPU, unless `seconds` ends the fit.
    device : torch.device or str, optional
    on_step : callable, optional
        Called with the fit so far and the number of steps done. What it raises ends the fit; the fit that it
        was given stays usable.

    Returns
    -------
    NerfFit

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    Volume rendering of NeRF, arXiv 2003.08934, with samples jittered in their intervals. Colours do not
    depend on the direction of view.

    Examples
    --------
    >>> fit = fit_nerf(steps=100, n_views=8, size=20, samples=32, n_levels=6, log2_hashmap_size=12)
    >>> fit.psnr() > 15
    True
    """
    for name, value in {"n_views": n_views, "size": size, "rays": rays, "samples": samples}.items():
        check_int(name, value, 1, None)
    options: dict[str, Any] = {
        "n_levels": n_levels,
        "log2_hashmap_size": log2_hashmap_size,
        "base_resolution": base_resolution,
    }
    if n_levels != 1:
        options["finest_resolution"] = finest_resolution
    radiance = new_field(encoding, 3, 4, seed=seed, device=device, **options)
    fit = NerfFit(
        radiance, scene_views(n_views, size), scene_views(3, _HELD_OUT_SIZE, first=_HELD_OUT), samples
    )
    eyes, directions, colours = (t.flatten(0, 1) for t in fit.views)
    generator = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        chosen = torch.randint(len(eyes), (rays,), generator=generator)
        jitter = torch.rand(rays, samples, generator=generator)
        eye, direction, colour, jitter = (
            t.to(fit.device) for t in (eyes[chosen], directions[chosen], colours[chosen], jitter)
        )
        return (render(fit, eye, direction, samples, jitter).colour - colour).square().mean()

    def after_step(step: int, last: bool, clock: Clock) -> None:
        fit.steps, fit.seconds = step, clock.seconds
        if is_measured(step, steps, last):
            fit.curve.append(NerfMeasured(step, clock.seconds, fit.psnr(1 if last else _SPARSE)))
        if on_step is not None:
            on_step(fit, step)

    train(fit.field, loss, after_step, steps=steps, seconds=seconds, learning_rate=learning_rate)
    return fit
