"""The training pictures: scikit-learn's 8 x 8 handwritten digits, drawn smoothly at 16 x 16 pixels.

Only training and tests need the data, and with it scikit-learn; the demo itself runs on the embedded weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["load_digits", "random_affine", "render"]


def load_digits() -> tuple[Tensor, Tensor]:
    """Load scikit-learn's digits (UCI optical recognition of handwritten digits, CC BY 4.0).

    Returns
    -------
    images : Tensor
        Ink in [0, 1], float32 ``[1797, 1, 8, 8]``.
    labels : Tensor
        Digits, int64 ``[1797]``.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise ImportError("the digits need scikit-learn: pip install scikit-learn") from error
    data = load()
    return torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(
        data.target, dtype=torch.int64
    )


def render(images: Tensor, size: int = 16, affine: Tensor | None = None) -> Tensor:
    """Draw 8 x 8 ink densities as crisp strokes with a margin.

    The density is interpolated bicubically and put through a steep sigmoid, which turns the blur of the
    interpolation into an edge about one pixel wide.

    Parameters
    ----------
    images : Tensor
        Ink in [0, 1], ``[B, 1, 8, 8]``.
    size : int
        Height and width of the result in pixels.
    affine : Tensor, optional
        Maps ``[B, 2, 3]`` from the coordinates of the result to those of the ink, both from -1 to 1. None is
        the identity.

    Returns
    -------
    Tensor
        Pictures in [-1, 1], ``[B, 1, size, size]``; ink is 1.
    """
    if affine is None:
        affine = torch.eye(2, 3).expand(len(images), 2, 3)
    # The padded picture is 10 wide, so one density pixel of margin is left on each side.
    padded = F.pad(images, (1, 1, 1, 1))
    grid = F.affine_grid(affine.to(images), [len(images), 1, size, size], align_corners=False)
    density = F.grid_sample(padded, grid, mode="bicubic", padding_mode="zeros", align_corners=False).clamp(
        0, 1
    )
    low, high = torch.sigmoid(torch.tensor([-0.53, 0.47], dtype=images.dtype) * 9).tolist()
    picture: Tensor = 2 * (torch.sigmoid((density - 0.53) * 9) - low) / (high - low) - 1
    return picture


def random_affine(n: int, generator: torch.Generator) -> Tensor:
    """Draw small random rotations, shears, scales and shifts, ``[n, 2, 3]``, for :func:`render`."""
    u = torch.rand(6, n, generator=generator) * 2 - 1
    angle, shear, scale_x, scale_y = 0.14 * u[0], 0.12 * u[1], 1 + 0.08 * u[2], 1 + 0.08 * u[3]
    cos, sin = angle.cos(), angle.sin()
    row_x = torch.stack([scale_x * cos, scale_x * (shear * cos - sin), 0.06 * u[4]], dim=1)
    row_y = torch.stack([scale_y * sin, scale_y * (shear * sin + cos), 0.06 * u[5]], dim=1)
    return torch.stack([row_x, row_y], dim=1)
