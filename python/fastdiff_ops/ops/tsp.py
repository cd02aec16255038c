"""Operators of the tour search: nearest neighbours in the plane."""

from __future__ import annotations

import torch
from torch import Tensor

from .._load import load_ops
from ..reference import tsp as reference
from ._levels import check_int
from ._registration import register_reference

load_ops()

_MAX_POINTS = (1 << 30) - 1


def knn(coords: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest points of every point, and how far they are.

    Parameters
    ----------
    coords : Tensor [N, 2] or [B, N, 2]
        float32 or float64, finite; N < 2^30. An instance's points see one another only. No gradient flows
        through: ids have none, and distances are meant for selecting.
    k : int
        1 <= k <= N - 1.

    Returns
    -------
    ids : int32 Tensor [..., N, k]
        Nearest first, never the point itself; points at one distance in ascending id.
    distances : float32 Tensor [..., N, k]
        Euclidean, beside them.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype or number does not fit, or (on the CPU) a coordinate is not finite.

    Notes
    -----
    Distances are compared as float64 squares, so all devices and thread counts give one result. On the CPU a
    uniform grid, or a k-d tree where points crowd: O(k log N) a point whatever their density, copies of one
    point included. On a GPU all pairs for small N, else a grid, which is slow where thousands of points share
    a cell. There a point with a coordinate that is not finite has ids -1 and distances NaN, and is nobody's
    neighbour.

    Examples
    --------
    >>> import torch
    >>> ids, distances = knn(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]), k=2)
    >>> ids
    tensor([[2, 1],
            [2, 0],
            [0, 1]], dtype=torch.int32)
    >>> distances[0]
    tensor([1., 5.])
    """
    if not isinstance(coords, Tensor):
        raise TypeError(f"`coords` must be a Tensor, got {type(coords).__name__}")
    if coords.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"`coords` must be float32 or float64, got {coords.dtype}")
    if coords.dim() not in (2, 3) or coords.shape[-1] != 2:
        raise ValueError(f"`coords` must be [N, 2] or [B, N, 2], got shape {tuple(coords.shape)}")
    n = coords.shape[-2]
    if n < 2 or n > _MAX_POINTS:
        raise ValueError(f"`coords` must have at least 2 and less than 2^30 points, got {n}")
    check_int("k", k, 1, n - 1)
    one = coords.dim() == 2
    points = coords.detach()
    ids, distances = torch.ops.fastdiff_ops.knn.default(points[None] if one else points, k)
    return (ids[0], distances[0]) if one else (ids, distances)


@torch.library.register_fake("fastdiff_ops::knn")
def _(coords: Tensor, k: int) -> tuple[Tensor, Tensor]:
    shape = (*coords.shape[:2], k)
    return coords.new_empty(shape, dtype=torch.int32), coords.new_empty(shape, dtype=torch.float32)


register_reference("knn", reference.knn)
