"""An order of points in which neighbours follow each other."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops._levels import check_int

_BITS = 63  # of an int64 key


def morton_order(x: Tensor, bits: int | None = None) -> Tensor:
    """Return the permutation that sorts points along a Morton (Z-order) curve.

    Encoding sorted points reads each part of the table once: worth it for large random batches, since points
    in one cell share their vertices.

    Parameters
    ----------
    x : floating Tensor [N, n]
        Points in the unit cube; outside they count as on its boundary, NaN as 0.
    bits : int, optional
        Resolution along each axis, bits * n <= 63. Default 10, or what fits.

    Returns
    -------
    int64 Tensor [N]
        `x[order]` is sorted; points with the same key keep their order.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, dtype or range.

    Examples
    --------
    >>> morton_order(torch.tensor([[0.9, 0.9], [0.1, 0.1], [0.9, 0.1]]))
    tensor([1, 2, 0])
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError("`x` must be a floating-point Tensor")
    if x.dim() != 2 or not 1 <= x.shape[1] <= _BITS:
        raise ValueError(f"`x` must have shape [N, n] with n <= {_BITS}, got {tuple(x.shape)}")
    n = x.shape[1]
    if bits is None:
        bits = min(10, _BITS // n)
    check_int("bits", bits, 1, min(_BITS // n, 30))
    cells = 1 << bits
    grid = (x.detach().nan_to_num(0.0).clamp(0, 1).double() * cells).long().clamp(max=cells - 1)
    key = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
    for bit in range(bits):
        for axis in range(n):
            key |= (grid[:, axis] >> bit & 1) << (bit * n + axis)
    return key.argsort(stable=True)
