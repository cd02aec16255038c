"""Operators of the tour search, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 1 << 22  # distances worked on at a time


def knn(coords: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Reference of `torch.ops.fastdiff_ops.knn`; see `fastdiff_ops.ops.knn`. Every distance, sorted."""
    batch, n, _ = coords.shape
    ids = torch.empty((batch, n, k), dtype=torch.int32, device=coords.device)
    distances = torch.empty((batch, n, k), dtype=torch.float32, device=coords.device)
    rows = max(1, _CHUNK // max(1, n))
    for b in range(batch):
        xy = coords[b].double()
        usable = xy.isfinite().all(1)
        for start in range(0, n, rows):
            own = torch.arange(start, min(n, start + rows), device=coords.device)
            dx, dy = (xy[own, None, axis] - xy[None, :, axis] for axis in (0, 1))
            d2 = dx * dx + dy * dy
            d2 = d2.masked_fill(~usable[None] | ~usable[own, None], torch.nan)  # NaN sorts last
            d2.scatter_(1, own[:, None], torch.nan)
            nearest = d2.sort(dim=1, stable=True)  # equal distances: the smaller id first
            d2, place = nearest.values[:, :k], nearest.indices[:, :k]
            ids[b, own] = place.masked_fill(d2.isnan(), -1).int()
            distances[b, own] = d2.sqrt().float()
    return ids, distances
