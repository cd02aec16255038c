"""A batch of instances as callers give it: points or distances, checked, on the host."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdiff_ops import ops

from ._input import check_finite, raise_first, read_numbers
from .metrics import EXPLICIT, check_metric, edge_lengths, largest_length

MAX_EXPLICIT = 20_000
# Sums of a few edges must fit 32 bits in the search.
LONGEST_EDGE = 1 << 27
_ROWS = 2048
_RANGE = 1e4  # of distances, largest to the usual nearest


@dataclass(frozen=True)
class Instances:
    """B instances of N cities each.

    Attributes
    ----------
    coords : float64 Tensor [B, N, 2] or None, on the host
    dist : Tensor [B, N, N] or None, on the host, in the caller's dtype
        One of the two is given.
    metric : str
        In lower case; `explicit` with `dist`.
    single : bool
        Whether the caller gave one instance without a batch axis.
    device : torch.device
        Where the caller's tensor is, and results go.
    """

    coords: Tensor | None
    dist: Tensor | None
    metric: str
    single: bool
    device: torch.device

    @classmethod
    def read(cls, coords: Any, dist: Any = None, metric: str = "euclidean") -> Instances:
        """Check what the caller gave.

        Raises
        ------
        ValueError, TypeError
            Naming `coords`, `dist` or `metric`.
        """
        if (coords is None) == (dist is None):
            got = "none" if dist is None else "both"
            raise ValueError(f"give either `coords` or `dist`, got {got}")
        if dist is None:
            given, name, metric = read_numbers("coords", coords), "coords", check_metric(metric)
        else:
            given, name, metric = read_numbers("dist", dist), "dist", EXPLICIT
        shape = tuple(given.shape)
        square = name == "dist"
        if len(shape) not in (2, 3) or shape[-1] != (shape[-2] if square else 2):
            wanted = "[N, N] or [B, N, N]" if square else "[N, 2] or [B, N, 2]"
            raise ValueError(f"`{name}` must have shape {wanted}, got {shape}")
        if shape[-2] < 1:
            raise ValueError(f"`{name}` must hold at least one city, got shape {shape}")
        if square and shape[-1] > MAX_EXPLICIT:
            most = f"at most {MAX_EXPLICIT} cities, got {shape[-1]}"
            raise ValueError(f"`dist` must have {most}: N x N is too much; give `coords`")
        if square and given.dtype == torch.bool:
            raise TypeError("`dist` must hold numbers, got torch.bool")
        batched = given.reshape(-1, *shape[-2:])
        check_finite(name, given)
        if square:
            host = batched.cpu()
            _check_distances(host)
            return cls(None, host, metric, len(shape) == 2, given.device)
        host = batched.to("cpu", torch.float64)
        if metric != "euclidean" and largest_length(host, metric) > LONGEST_EDGE:
            raise ValueError(
                f"`coords` span more than the {LONGEST_EDGE} units that metric {metric!r} can tell apart: "
                f"scale them down, or use 'euclidean'"
            )
        return cls(host, None, metric, len(shape) == 2, given.device)

    @property
    def batch(self) -> int:
        given = self.coords if self.dist is None else self.dist
        assert given is not None
        return given.shape[0]

    @property
    def n(self) -> int:
        given = self.coords if self.dist is None else self.dist
        assert given is not None
        return given.shape[1]

    def lengths(self, tours: Tensor, *, open_path: bool = False, which: Tensor | None = None) -> Tensor:
        """Return the lengths, float64 [T], of tours int64 [T, M], which need not visit every city.

        `which` int64 [T] says to which instance each belongs; default: tour b to instance b.
        """
        if tours.shape[-1] == 1:
            return torch.zeros(tours.shape[0], dtype=torch.float64)
        rows = (torch.arange(len(tours)) if which is None else which)[:, None]
        after = tours.roll(-1, dims=-1)
        if open_path:
            tours, after = tours[:, :-1], after[:, :-1]
        if self.dist is not None:
            low, high = torch.minimum(tours, after), torch.maximum(tours, after)
            return self.dist[rows, low, high].double().sum(-1)
        assert self.coords is not None
        return edge_lengths(self.coords[rows, tours], self.coords[rows, after], self.metric).sum(-1)

    def all_lengths(self, first: int, last: int) -> Tensor:
        """Return the distances between all cities of some instances, float64 [last - first, N, N]."""
        if self.dist is not None:
            upper = self.dist[first:last].double().triu(1)
            return upper + upper.mT
        assert self.coords is not None
        points = self.coords[first:last]
        lengths = edge_lengths(points[:, :, None], points[:, None], self.metric)
        return lengths.masked_fill(torch.eye(self.n, dtype=torch.bool), 0.0)

    def only(self, b: int) -> Instances:
        """Return one instance."""
        coords = None if self.coords is None else self.coords[b : b + 1]
        return replace(
            self, coords=coords, dist=None if self.dist is None else self.dist[b : b + 1], single=True
        )

    def nearest(self, k: int) -> Tensor:
        """Return the k nearest other cities of each, int32 [B, N, k], in ascending distance; k < N."""
        if k == 0:
            return torch.empty(self.batch, self.n, 0, dtype=torch.int32)
        if self.coords is not None:
            return ops.knn(self.coords, k)[0]
        assert self.dist is not None
        found = []
        for dist in self.dist:
            far = dist.to(torch.float64, copy=True).fill_diagonal_(torch.inf)
            found.append(far.topk(k, largest=False).indices.int())
        return torch.stack(found)

    def lengths_to(self, ids: Tensor) -> Tensor:
        """Return the distances, float64 [B, N, K], from each city to those in a row of ids [B, N, K]."""
        if self.dist is not None:
            return self.dist.gather(-1, ids.long()).double()
        assert self.coords is not None
        points = self.coords[torch.arange(self.batch)[:, None, None], ids.long()]
        return edge_lengths(self.coords[:, :, None], points, self.metric)

    def scaled_matrix(self, b: int) -> tuple[NDArray[np.int32], float]:
        """Return the distances of an instance as whole numbers, and what 1 is in the caller's units."""
        assert self.dist is not None
        dist = self.dist[b]
        largest = float(dist.max())
        whole = not dist.dtype.is_floating_point or bool((dist == dist.round()).all())
        if whole and largest <= LONGEST_EDGE:
            matrix, unit = dist.to(torch.int32), 1.0
        else:
            matrix, unit = _whole_numbers(dist.double())
        matrix = matrix.triu(1)
        return np.ascontiguousarray((matrix + matrix.T).numpy()), unit


def _whole_numbers(dist: Tensor) -> tuple[Tensor, float]:
    """Return distances in a unit that keeps the largest below the limit, and the unit."""
    largest = float(dist.max())
    limit = LONGEST_EDGE - 1
    nearest = dist.clone().fill_diagonal_(torch.inf).amin(1).mean()
    if largest <= _RANGE * float(nearest):
        unit = max(largest / limit, np.finfo(np.float64).tiny)
        return (dist / unit).round().to(torch.int32), unit
    # By huge distances people forbid edges. These must not cost all others their resolution: beyond what
    # distances that obey the triangle inequality can be, order counts, not size.
    usual = min(largest, dist.shape[0] * _longest_bridge(dist))
    unit = 2 * usual / limit
    beyond = (dist - usual).clamp(min=0) * (usual / max(largest - usual, usual))
    return ((dist.clamp(max=usual) + beyond) / unit).round().to(torch.int32), unit


def _longest_bridge(dist: Tensor) -> float:
    """Return the longest edge of the minimum spanning tree."""
    n = dist.shape[0]
    to_tree = dist[0].clone()
    joined = torch.zeros(n, dtype=torch.float64)  # inf once in the tree
    joined[0] = torch.inf
    longest = 0.0
    for _ in range(n - 1):
        nearest = (to_tree + joined).min(0)
        longest = max(longest, float(nearest.values))
        joined[nearest.indices] = torch.inf
        torch.minimum(to_tree, dist[nearest.indices], out=to_tree)
    return longest


def _check_distances(dist: Tensor) -> None:
    """Raise for distances that are negative or differ by direction; diagonals mean nothing."""
    n = dist.shape[-1]
    for b in range(dist.shape[0]):
        tolerance = 1e-6 * float(dist[b].max()) if dist.dtype.is_floating_point else 0.0
        for row in range(0, n, _ROWS):
            rows = dist[b, row : row + _ROWS]
            if bool((rows < 0).any()):
                raise_first("dist", rows[None], (rows < 0)[None], "not be negative", (b, row))
            differs = (rows - dist[b, :, row : row + _ROWS].T).abs()
            if float(differs.max()) > tolerance:
                i, j = divmod(int(differs.argmax()), n)
                where = f"cities {row + i} and {j} of instance {b}"
                raise ValueError(
                    f"`dist` must be symmetric, but |d_ij - d_ji| is up to {differs.max().item():g}: {where}"
                )
