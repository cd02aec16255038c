"""A field of three dimensions that is fitted to a signed distance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..ops._levels import check_int
from .camera import camera_rays
from .field import FieldMLP
from .fitting import Clock, is_measured, new_field, train
from .shapes import SHAPES, AnalyticShape, MeshShape, Shape

__all__ = ["SdfFit", "SdfMeasured", "find_shape", "fit_sdf", "render_sdf"]

_CHUNK = 1 << 15
_MEASURED_POINTS = 4096
_SMALLEST_NORM = 1e-12  # the norm has no gradient at zero


class SdfMeasured(NamedTuple):
    """A point of the curve: steps and seconds, mean error of the distance, and of normals in degrees."""

    step: int
    seconds: float
    error: float
    degrees: float


@dataclass
class SdfFit:
    """A signed distance as a field.

    Attributes
    ----------
    field : FieldMLP
        From points of the unit cube, (p + 1) / 2, to distances.
    shape : Shape
        The original.
    curve : list of SdfMeasured
    steps : int
        Done so far.
    seconds : float
        That they took.
    """

    field: FieldMLP
    shape: Shape
    curve: list[SdfMeasured] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0

    @property
    def device(self) -> torch.device:
        """Where the field is."""
        return self.field.encoding.table.device

    def __call__(self, points: Tensor) -> Tensor:
        """Return signed distances [N] of points [N, 3] in [-1, 1]^3."""
        values: Tensor = self.field((points + 1) / 2)
        return values[:, 0]

    def gradient(self, points: Tensor) -> Tensor:
        """Return the gradient [N, 3] of the distance."""
        found = []
        for chunk in points.detach().split(_CHUNK):
            chunk = chunk.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self(chunk).sum(), chunk)
            found.append(gradient)
        return torch.cat(found)

    @torch.no_grad()
    def distance_error(self, n: int = _MEASURED_POINTS, seed: int = 1) -> float:
        """Return the mean absolute error of the distance, at random points."""
        points, distances = self.shape.sample(n, torch.Generator().manual_seed(seed))
        return float((self(points.to(self.device)).cpu() - distances).abs().mean())

    def normal_error(self, n: int = _MEASURED_POINTS, seed: int = 1) -> float:
        """Return the mean angle between the field's and the shape's normals on the surface, in degrees."""
        points, normals = self.shape.surface(n, torch.Generator().manual_seed(seed))
        found = self.gradient(points.to(self.device)).cpu().double()
        cosine = torch.nn.functional.cosine_similarity(found, normals.double(), dim=-1)
        return math.degrees(float(cosine.clamp(-1, 1).acos().mean()))


def find_shape(name: str) -> Shape:
    """Return the shape of `SHAPES`, or the mesh in a file.

    Raises
    ------
    ValueError, OSError, ImportError
        If there is neither, or the mesh cannot be used.
    """
    if name in SHAPES:
        return AnalyticShape(name, SHAPES[name])
    if not (Path(name).suffix or Path(name).exists()):
        raise ValueError(f"unknown shape {name!r}; known are {', '.join(SHAPES)} and files of meshes")
    return MeshShape(name)


def fit_sdf(
    shape: str | Shape = "torus",
    *,
    encoding: str = "simplex",
    steps: int = 500,
    seconds: float | None = None,
    n_levels: int = 8,
    log2_hashmap_size: int = 15,
    base_resolution: int = 4,
    finest_resolution: float = 48,
    batch: int = 1 << 12,
    eikonal: float = 0.1,
    learning_rate: float = 1e-2,
    seed: int = 0,
    device: torch.device | str | None = None,
    on_step: Callable[[SdfFit, int], None] | None = None,
) -> SdfFit:
    """Fit a field to a signed distance.

    Parameters
    ----------
    shape : str or Shape
        A name of `SHAPES`, the file of a closed mesh, an `AnalyticShape` or a `MeshShape`.
    encoding : {"simplex", "grid"}
    steps : int
        >= 1.
    seconds : float, optional
        End sooner, after so much time.
    n_levels, log2_hashmap_size, base_resolution, finest_resolution
        As in `SimplexEncoding`; resolutions are those of [-1, 1]^3.
    batch : int
        Points a step, half of them near the surface.
    eikonal : float
        >= 0, weight of (|grad f| - 1)^2 in the loss; the rest is |f - distance|.
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
    SdfFit

    Raises
    ------
    ValueError, TypeError, OSError, ImportError
        If an argument is out of range or of the wrong type, or the shape cannot be had.

    Notes
    -----
    The eikonal term ("Implicit Geometric Regularization for Learning Shapes", arXiv 2002.10099) trains the
    table through the derivative of the encoding's derivative.

    Examples
    --------
    >>> fit = fit_sdf("sphere", steps=80, n_levels=3, log2_hashmap_size=10, batch=512)
    >>> fit.distance_error() < 0.05
    True
    """
    if isinstance(shape, str):
        shape = find_shape(shape)
    check_int("batch", batch, 1, None)
    if not 0 <= eikonal < math.inf:
        raise ValueError(f"`eikonal` must be >= 0, got {eikonal}")
    options: dict[str, Any] = {
        "n_levels": n_levels,
        "log2_hashmap_size": log2_hashmap_size,
        "base_resolution": base_resolution,
    }
    if n_levels != 1:
        options["finest_resolution"] = finest_resolution
    fit = SdfFit(new_field(encoding, 3, 1, seed=seed, device=device, **options), shape)
    generator = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        points, distances = (t.to(fit.device) for t in fit.shape.sample(batch, generator))
        points.requires_grad_()
        found = fit(points)
        (gradient,) = torch.autograd.grad(found.sum(), points, create_graph=True)
        norm = gradient.square().sum(-1).clamp(min=_SMALLEST_NORM).sqrt()
        return (found - distances).abs().mean() + eikonal * (norm - 1).square().mean()

    def after_step(step: int, last: bool, clock: Clock) -> None:
        fit.steps, fit.seconds = step, clock.seconds
        if is_measured(step, steps, last):
            errors = fit.distance_error(), fit.normal_error()
            fit.curve.append(SdfMeasured(step, clock.seconds, *errors))
        if on_step is not None:
            on_step(fit, step)

    train(fit.field, loss, after_step, steps=steps, seconds=seconds, learning_rate=learning_rate)
    return fit


def render_sdf(fit: SdfFit, size: int = 256, max_steps: int = 64) -> Tensor:
    """Draw the surface of the fit by sphere tracing: colours by normals and a light.

    Parameters
    ----------
    fit : SdfFit
    size : int
        Of the picture, >= 1.
    max_steps : int
        Of a ray, >= 1.

    Returns
    -------
    float32 Tensor [size, size, 3]
        In [0, 1]; on the CPU. The paper is white.
    """
    check_int("size", size, 1, None)
    check_int("max_steps", max_steps, 1, None)
    origin, rays, near, far = (t.to(fit.device) for t in _camera(size))
    t, active = near.clone(), (near < far).nonzero()[:, 0]
    hit = torch.zeros_like(near, dtype=torch.bool)
    with torch.no_grad():
        for _ in range(max_steps):
            if len(active) == 0:
                break
            points = origin + t[active, None] * rays[active]
            distance = torch.cat([fit(chunk) for chunk in points.split(_CHUNK)])
            hit[active[distance < 2e-3]] = True
            t[active] += 0.9 * distance.clamp(min=0)  # a fitted distance may be a little too long
            active = active[(distance >= 2e-3) & (t[active] < far[active])]
    picture = torch.ones(size * size, 3, device=fit.device)
    if hit.any():
        points = origin + t[hit, None] * rays[hit]
        normals = torch.nn.functional.normalize(fit.gradient(points), dim=-1)
        light = torch.nn.functional.normalize(torch.tensor([0.3, -0.7, 0.9], device=fit.device), dim=0)
        diffuse = (normals @ light).clamp(min=0)[:, None]
        half = torch.nn.functional.normalize(light - rays[hit], dim=-1)
        gloss = (normals * half).sum(-1, keepdim=True).clamp(min=0) ** 40
        paint = 0.62 + 0.38 * normals
        picture[hit] = ((0.3 + 0.7 * diffuse) * paint + 0.25 * gloss).clamp(0, 1)
    return picture.reshape(size, size, 3).cpu()


def _camera(size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the eye [3], unit rays [size^2, 3] and where each enters and leaves the cube [-1, 1]^3."""
    eye = torch.tensor([1.7, -2.7, 2.1])
    rays = camera_rays(eye, size, opening=0.25)
    ends = torch.stack([(side - eye) / rays for side in (-1.0, 1.0)])  # a zero gives infinities
    return eye, rays, ends.amin(0).amax(-1).clamp(min=0), ends.amax(0).amin(-1)
