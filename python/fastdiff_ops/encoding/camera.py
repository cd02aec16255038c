"""Rays of a camera that looks at the origin."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["camera_rays"]


def camera_rays(eye: Tensor, size: int, opening: float) -> Tensor:
    """Return the unit rays of a square picture's pixels, row by row from the top; z is up.

    Parameters
    ----------
    eye : Tensor [3]
        Where the camera is; not on the z axis.
    size : int
        Pixels of an edge.
    opening : float
        Tangent of half the angle of view.

    Returns
    -------
    Tensor [size * size, 3]
    """
    forward = -eye / eye.norm()
    upwards = torch.tensor([0.0, 0.0, 1.0], dtype=eye.dtype, device=eye.device)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, upwards), dim=0)
    up = torch.linalg.cross(right, forward)
    place = (torch.arange(size, dtype=eye.dtype, device=eye.device) + 0.5) / size * 2 - 1
    v, u = torch.meshgrid(-place, place, indexing="ij")
    rays = forward + opening * (u.reshape(-1, 1) * right + v.reshape(-1, 1) * up)
    return torch.nn.functional.normalize(rays, dim=-1)
