"""Multiresolution encodings of points: the simplex grid, n + 1 vertices a level, and the cubic one, 2^n.

"Efficient Encoding of Graphics Primitives with Simplex-based Structures", 2023 (arXiv 2311.15439), and
Instant-NGP (arXiv 2201.05989).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._load import load_ops
from ..reference import grid as _grid_reference
from ..reference import simplex as _simplex_reference
from . import _encode
from ._levels import GridLevels, SimplexLevels

load_ops()

__all__ = ["GridLevels", "SimplexLevels", "grid_encode", "simplex_encode"]


def simplex_encode(
    x: Tensor,
    table: Tensor,
    levels: SimplexLevels,
    *,
    bounds: str = "clamp",
    out_dtype: torch.dtype | None = None,
    max_level: int | None = None,
    deterministic: bool | None = None,
) -> Tensor:
    """Interpolate a table of features on the simplices of several grids (arXiv 2311.15439).

    On each level the point is scaled, shifted and skewed; its n + 1 vertices and their weights come from
    sorting the fractional parts of its coordinates. Continuous and piecewise linear, differentiable any
    number of times in every tensor.

    Parameters
    ----------
    x : float32 or float64 Tensor [N, n]
        Points; the unit cube is what the levels are laid out for.
    table : float16, bfloat16, float32 or float64 Tensor [P, F]
        Entries of all levels, P = levels.n_entries, F one of 1, 2, 4, 8.
    levels : SimplexLevels
    bounds : {"clamp", "extend"}
        Outside of the cube: clamp coordinates to [0, 1], with derivative 0 there, or go on, continuously
        and, on dense levels, periodically.
    out_dtype : torch.dtype, optional
        Default: the table's, under autocast that of autocast (but float64 stays).
    max_level : int, optional
        Levels from this one on are 0 and get no gradient, 0 <= max_level <= L: coarse-to-fine training.
    deterministic : bool, optional
        Whether table gradients are summed in a fixed order on CUDA, too; the CPU always does. Default:
        `torch.are_deterministic_algorithms_enabled()`.

    Returns
    -------
    Tensor [N, L F], contiguous
        Level after level. All NaN for points with a coordinate that is not finite (their table gradient is
        skipped).

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, dtype, device or value. Half-precision points are a TypeError.

    Notes
    -----
    Sums are float32, or float64 if `x` or `table` is; float64 points are located in float64. The second
    derivative in x is 0 inside of simplices: a Laplacian by autograd sees nothing of the encoding, use
    finite differences with a step of about half the finest cell. On a face between simplices the gradient
    is that of one side.

    Examples
    --------
    >>> import torch
    >>> levels = SimplexLevels(3, n_levels=2, log2_hashmap_size=12, base_resolution=4)
    >>> table = torch.ones(levels.n_entries, 2)
    >>> simplex_encode(torch.rand(5, 3), table, levels).shape
    torch.Size([5, 4])
    >>> simplex_encode(torch.full((1, 3), 0.3), table, levels, max_level=1)
    tensor([[1., 1., 0., 0.]])
    """
    return _encode.encode(
        _simplex, SimplexLevels, x, table, levels, bounds, out_dtype, max_level, deterministic
    )


def grid_encode(
    x: Tensor,
    table: Tensor,
    levels: GridLevels,
    *,
    bounds: str = "clamp",
    out_dtype: torch.dtype | None = None,
    max_level: int | None = None,
    deterministic: bool | None = None,
) -> Tensor:
    """Interpolate a table of features between the 2^n corners of the cells of several grids (Instant-NGP).

    Parameters, result and errors are those of `simplex_encode`, with `GridLevels`. Multilinear; the second
    derivative in x is not 0 and is computed in plain torch, slower than everything else.

    Examples
    --------
    >>> import torch
    >>> levels = GridLevels(2, n_levels=2, log2_hashmap_size=12, base_resolution=4)
    >>> table = torch.ones(levels.n_entries, 4)
    >>> grid_encode(torch.rand(5, 2), table, levels).shape
    torch.Size([5, 8])
    """
    return _encode.encode(_grid, GridLevels, x, table, levels, bounds, out_dtype, max_level, deterministic)


_simplex = _encode.register_family("simplex_encode", vars(_simplex_reference), None)
_grid = _encode.register_family("grid_encode", vars(_grid_reference), _grid_reference.grid_encode_vjp_xx)
