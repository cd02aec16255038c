"""Volume rendering, and a scene of formulas to fit radiance fields to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .camera import camera_rays

__all__ = ["FAR", "NEAR", "Radiance", "Rendered", "Views", "render", "scene_views", "three_spheres"]

Radiance = Callable[[Tensor], tuple[Tensor, Tensor]]

NEAR, FAR = 1.2, 4.8
_DISTANCE, _OPENING = 3.0, 0.52
_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
_EXACT_SAMPLES = 192
_CHUNK = 1 << 12  # rays

_CENTRES = torch.tensor([[0.0, 0.0, 0.0], [0.7, 0.3, 0.6], [-0.6, -0.4, -0.8]])
_RADII = torch.tensor([0.5, 0.35, 0.4])
_COLOURS = torch.tensor([[0.95, 0.45, 0.25], [0.30, 0.65, 0.95], [0.55, 0.85, 0.35]])
_DENSITY, _SOFTNESS = 60.0, 0.02


class Rendered(NamedTuple):
    """Colours [rays, 3] before white paper, opacities [rays] and expected depths [rays]."""

    colour: Tensor
    opacity: Tensor
    depth: Tensor


class Views(NamedTuple):
    """Pictures of a scene: eyes and unit rays [views, size^2, 3], colours [views, size^2, 3]."""

    eyes: Tensor
    rays: Tensor
    colours: Tensor


def render(
    radiance: Radiance, eyes: Tensor, rays: Tensor, samples: int, jitter: Tensor | None = None
) -> Rendered:
    """Integrate a radiance field along rays, from depth `NEAR` to `FAR`.

    Parameters
    ----------
    radiance : callable
        From points [N, 3] to densities [N] >= 0 and colours [N, 3].
    eyes, rays : Tensor [rays, 3]
        Where a ray starts, and its unit direction.
    samples : int
        Intervals of equal length; the field is constant in each.
    jitter : Tensor [rays, samples], optional
        In [0, 1), where the sample lies in its interval; in the middle by default.

    Returns
    -------
    Rendered

    Notes
    -----
    The emission-absorption model as NeRF discretises it, arXiv 2003.08934, equation 3.
    """
    step = (FAR - NEAR) / samples
    place = torch.arange(samples, device=rays.device) + (0.5 if jitter is None else jitter)
    depth = (NEAR + step * place).expand(len(rays), samples)
    points = eyes[:, None] + depth[..., None] * rays[:, None]
    density, colour = radiance(points.reshape(-1, 3))
    absorbed = density.reshape(depth.shape) * step
    before = absorbed.cumsum(-1) - absorbed
    weight = torch.exp(-before) * -torch.expm1(-absorbed)
    opacity = weight.sum(-1)
    seen = (weight[..., None] * colour.reshape(*depth.shape, 3)).sum(1)
    return Rendered(
        seen + (1 - opacity)[:, None], opacity, (weight * depth).sum(-1) / opacity.clamp(min=1e-6)
    )


def three_spheres(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return densities [N] and colours [N, 3] of three soft, striped spheres."""
    away = points[:, None] - _CENTRES.to(points)
    outside = away.norm(dim=-1) - _RADII.to(points)
    density = _DENSITY * torch.sigmoid(-outside / _SOFTNESS)
    share = torch.softmax(-outside / _SOFTNESS, dim=-1)
    stripes = 0.75 + 0.25 * torch.sin(12 * points + torch.tensor([0.0, 1.0, 2.0]).to(points))
    return density.sum(-1), (share @ _COLOURS.to(points)) * stripes


def scene_views(count: int, size: int, *, first: int = 0, radiance: Radiance = three_spheres) -> Views:
    """Render a scene from around it.

    Parameters
    ----------
    count : int
        Of views; view k is the same whatever the count.
    size : int
        Pixels of a picture's edge.
    first : int
        Number of the first view: views of other numbers look from elsewhere.
    radiance : callable
        As in `render`.
    """
    numbers = torch.arange(first, first + count, dtype=torch.float64)
    azimuth = numbers * _GOLDEN_ANGLE
    elevation = -0.3 + 1.2 * torch.frac(numbers * (math.sqrt(5) - 1) / 2)
    flat = torch.stack(
        [azimuth.cos() * elevation.cos(), azimuth.sin() * elevation.cos(), elevation.sin()], -1
    )
    eyes = (_DISTANCE * flat).float()
    rays = torch.stack([camera_rays(eye, size, _OPENING) for eye in eyes])
    starts = eyes[:, None].expand_as(rays)
    with torch.no_grad():
        chunks = zip(starts.reshape(-1, 3).split(_CHUNK), rays.reshape(-1, 3).split(_CHUNK), strict=True)
        colours = torch.cat([render(radiance, o, d, _EXACT_SAMPLES).colour for o, d in chunks])
    return Views(starts, rays, colours.reshape(rays.shape))
