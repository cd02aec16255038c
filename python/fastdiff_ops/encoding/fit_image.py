"""A field of two dimensions that is fitted to a picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..ops._levels import check_int
from .field import FieldMLP
from .fitting import Clock, half_precision, is_measured, new_field, train

__all__ = ["ImageFit", "Measured", "fit_image", "procedural_colours", "procedural_picture", "psnr"]

_MEASURED_PIXELS = 1 << 16  # for the curve; the results are measured on all
_CHUNK = 1 << 16


class Measured(NamedTuple):
    """A point of the curve: steps and seconds of training, and the PSNR in dB that they gave."""

    step: int
    seconds: float
    psnr: float


@dataclass
class ImageFit:
    """A picture as a field.

    Attributes
    ----------
    field : FieldMLP
        From points to colours: the longer side of the picture is [0, 1], the origin its upper left corner,
        the first coordinate to the right.
    picture : Tensor [H, W, C]
        The original.
    curve : list of Measured
    steps : int
        Done so far.
    seconds : float
        That they took.
    """

    field: FieldMLP
    picture: Tensor
    curve: list[Measured] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0

    @torch.no_grad()
    def render(self) -> Tensor:
        """Return the fitted picture [H, W, C], in [0, 1]."""
        height, width, channels = self.picture.shape
        pixels = torch.arange(height * width, device=self.picture.device).split(_CHUNK)
        rows = [self.field(_centres(pixel, height, width)).clamp(0, 1) for pixel in pixels]
        return torch.cat(rows).reshape(height, width, channels)

    def psnr(self) -> float:
        """Return the PSNR over all pixels, in dB."""
        return psnr(self.render(), self.picture)

    def half_precision(self) -> ImageFit:
        """Return the fit that has its parameters rounded to float16."""
        return ImageFit(half_precision(self.field), self.picture, self.curve, self.steps, self.seconds)

    @property
    def half_precision_bytes(self) -> int:
        """Size of all parameters in float16."""
        return 2 * sum(parameter.numel() for parameter in self.field.parameters())


def psnr(found: Tensor, wanted: Tensor) -> float:
    """Return the peak signal-to-noise ratio of values in [0, 1], in dB."""
    error = float((found.double() - wanted.double()).square().mean())
    return -10 * math.log10(error) if error > 0 else math.inf


def procedural_picture(height: int = 384, width: int = 512) -> Tensor:
    """Draw zone plate, checker, disc and texture: smooth and sharp, coarse and fine.

    Parameters
    ----------
    height, width : int
        In pixels, >= 1.

    Returns
    -------
    float32 Tensor [height, width, 3]
        In [0, 1].

    Examples
    --------
    >>> procedural_picture(48, 64).shape
    torch.Size([48, 64, 3])
    """
    check_int("height", height, 1, None)
    check_int("width", width, 1, None)
    pixels = torch.arange(height * width)
    return procedural_colours(_centres(pixels, height, width)).reshape(height, width, 3)


def procedural_colours(points: Tensor) -> Tensor:
    """Return the colours [N, 3] of `procedural_picture` at points [N, 2] of the unit square."""
    x, y = points.unbind(1)
    radius2 = (x - 0.35).square() + (y - 0.35).square()
    zone = 0.5 + 0.5 * torch.cos(260 * radius2)
    texture = 0.5 + 0.25 * torch.sin(95 * x + 11 * torch.sin(9 * y)) + 0.25 * torch.sin(70 * y - 40 * x)
    checker = (torch.floor(x * 24) + torch.floor(y * 24)) % 2
    red = torch.where(x + 0.6 * y > 1.0, texture, zone)
    green = torch.where((x > 0.7) & (y < 0.3), checker, 0.65 * zone + 0.35 * y)
    blue = torch.where((x > 0.7) & (y < 0.3), 0.3 + 0.4 * checker, 0.25 + 0.6 * texture * x)
    colours = torch.stack([red, green, blue], dim=-1)
    disc = (x - 0.62).square() + (y - 0.52).square() < 0.09**2
    colours[disc] = torch.tensor([0.95, 0.55, 0.1])
    return colours.clamp(0, 1)


def fit_image(
    picture: Tensor,
    *,
    encoding: str = "simplex",
    steps: int = 1000,
    seconds: float | None = None,
    n_levels: int = 12,
    log2_hashmap_size: int = 13,
    base_resolution: int = 8,
    batch: int = 1 << 13,
    learning_rate: float = 1e-2,
    seed: int = 0,
    on_step: Callable[[ImageFit, int], None] | None = None,
) -> ImageFit:
    """Fit a field to a picture.

    Parameters
    ----------
    picture : floating Tensor [H, W, C]
        In [0, 1]. The fit runs on its device.
    encoding : {"simplex", "grid"}
    steps : int
        >= 1.
    seconds : float, optional
        End sooner, after so much time.
    n_levels, log2_hashmap_size, base_resolution : int
        As in `SimplexEncoding`. The finest level has a cell for two pixels.
    batch : int
        Random pixels a step.
    learning_rate : float
        Of Adam at the beginning; it falls as a cosine.
    seed : int
        >= 0. Equal seeds give equal fields on the CPU, unless `seconds` ends the fit.
    on_step : callable, optional
        Called with the fit so far and the number of steps done. What it raises ends the fit; the fit that it
        was given stays usable.

    Returns
    -------
    ImageFit

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    Loss: mean squared error. The curve's PSNR is measured on 65536 random pixels if there are more.

    Examples
    --------
    >>> ramp = torch.linspace(0, 1, 32).expand(24, 32)[..., None]
    >>> fit = fit_image(ramp, steps=60, n_levels=4, log2_hashmap_size=8, batch=512)
    >>> fit.render().shape, fit.psnr() > 25
    (torch.Size([24, 32, 1]), True)
    """
    if not isinstance(picture, Tensor) or not picture.is_floating_point():
        raise TypeError("`picture` must be a floating-point Tensor")
    if picture.dim() != 3 or picture.numel() == 0:
        raise ValueError(f"`picture` must have shape [H, W, C], got {tuple(picture.shape)}")
    check_int("batch", batch, 1, None)
    check_int("seed", seed, 0, None)
    device = picture.device
    height, width, channels = picture.shape
    colours = picture.detach().float().reshape(-1, channels)
    finest: dict[str, Any] = {}
    if n_levels != 1:
        finest["finest_resolution"] = max(base_resolution, max(height, width) / 2)
    fit = ImageFit(
        new_field(
            encoding,
            2,
            channels,
            seed=seed,
            device=device,
            n_levels=n_levels,
            log2_hashmap_size=log2_hashmap_size,
            base_resolution=base_resolution,
            **finest,
        ),
        picture.detach().float(),
    )
    generator = torch.Generator().manual_seed(seed)
    probe = torch.arange(height * width, device=device)
    if len(probe) > _MEASURED_PIXELS:
        probe = torch.randint(len(probe), (_MEASURED_PIXELS,), generator=generator).to(device)

    def loss() -> Tensor:
        pixel = torch.randint(height * width, (batch,), generator=generator).to(device)
        found: Tensor = fit.field(_centres(pixel, height, width))
        return (found - colours[pixel]).square().mean()

    def after_step(step: int, last: bool, clock: Clock) -> None:
        fit.steps, fit.seconds = step, clock.seconds
        if is_measured(step, steps, last):
            with torch.no_grad():
                found = fit.field(_centres(probe, height, width)).clamp(0, 1)
            fit.curve.append(Measured(step, clock.seconds, psnr(found, colours[probe])))
        if on_step is not None:
            on_step(fit, step)

    train(fit.field, loss, after_step, steps=steps, seconds=seconds, learning_rate=learning_rate)
    return fit


def _centres(pixel: Tensor, height: int, width: int) -> Tensor:
    """Return the points [N, 2] of pixels, counted along the rows."""
    row, column = pixel // width, pixel % width
    return (torch.stack([column, row], dim=-1).float() + 0.5) / max(height, width)
