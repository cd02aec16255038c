"""Sparse heatmaps as lists of edges: reading, merging, symmetrising, cutting to the heaviest."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._input import read_integers, read_numbers


class Edges(NamedTuple):
    """Weighted directed edges: three arrays of one length."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    weight: NDArray[np.float64]


def as_csr(heatmap: Any) -> tuple[Any, Any, Any] | None:
    """Return (indptr, indices, data) of what is a sparse matrix; None for everything else."""
    if isinstance(heatmap, tuple) and len(heatmap) == 3:
        return heatmap
    if isinstance(heatmap, Tensor) and heatmap.layout in (torch.sparse_coo, torch.sparse_csr):
        if heatmap.dim() != 2 or heatmap.shape[0] != heatmap.shape[1]:
            raise ValueError(f"`heatmap` must have shape [N, N] when sparse, got {tuple(heatmap.shape)}")
        csr = heatmap.detach()
        if csr.layout == torch.sparse_coo:
            # not by to_sparse_csr: that adds up repeated entries
            rows, columns = csr._indices().cpu()
            order = rows.argsort(stable=True)
            counts = rows.bincount(minlength=csr.shape[0])
            indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
            return indptr, columns[order], csr._values().cpu()[order]
        return csr.crow_indices(), csr.col_indices(), csr.values()
    if not isinstance(heatmap, (Tensor, np.ndarray)) and hasattr(heatmap, "tocsr"):
        if heatmap.shape[0] != heatmap.shape[1]:
            raise ValueError(f"`heatmap` must have shape [N, N] when sparse, got {tuple(heatmap.shape)}")
        csr = heatmap.tocsr()
        return csr.indptr, csr.indices, csr.data
    return None


def read_csr(indptr: Any, indices: Any, data: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], Tensor]:
    """Check the arrays of a CSR matrix.

    Raises
    ------
    ValueError, TypeError
        If they do not fit each other.
    """
    starts = read_integers("heatmap indptr", indptr).cpu().numpy()
    columns = read_integers("heatmap indices", indices).cpu().numpy()
    values = read_numbers("heatmap data", data).cpu()
    if starts.ndim != 1 or columns.ndim != 1 or values.dim() != 1 or len(columns) != len(values):
        shapes = f"{starts.shape}, {columns.shape} and {tuple(values.shape)}"
        raise ValueError(f"`heatmap` (indptr, indices, data) must have shapes [N + 1], [E], [E]: {shapes}")
    if len(starts) < 2 or starts[0] != 0 or starts[-1] != len(columns) or (np.diff(starts) < 0).any():
        raise ValueError(f"`heatmap` indptr must rise from 0 to the number of entries, {len(columns)}")
    return starts, columns, values


def merge_repeated(edges: Edges, n: int) -> Edges:
    """Return edges once each, with their largest weight, in order; without loops and zeros."""
    kept = (edges.source != edges.target) & (edges.weight > 0)
    return _grouped(Edges(*(a[kept] for a in edges)), n, np.maximum)


def symmetrised(edges: Edges, n: int) -> Edges:
    """Return (H + H^T) / 2 of edges that occur once each."""
    both = (
        np.concatenate([edges.source, edges.target]),
        np.concatenate([edges.target, edges.source]),
        np.concatenate([edges.weight, edges.weight]) / 2,
    )
    return _grouped(Edges(*both), n, np.add)


def _grouped(edges: Edges, n: int, reduce: np.ufunc) -> Edges:
    key = edges.source * n + edges.target
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    if not len(first):
        return edges
    weight = reduce.reduceat(edges.weight[order], first)
    return Edges(key[first] // n, key[first] % n, weight)


def keep_heaviest(edges: Edges, n: int, width: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return ids and weights [N, K <= width] of each city's heaviest edges, equal ones by number."""
    order = np.lexsort((edges.target, -edges.weight, edges.source))
    source = edges.source[order]
    counts = np.bincount(source, minlength=n)
    rank = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = rank < width
    most = min(width, int(counts.max(initial=0)))
    ids = np.full((n, most), -1, np.int32)
    weights = np.zeros((n, most), np.float32)
    ids[source[kept], rank[kept]] = edges.target[order][kept]
    weights[source[kept], rank[kept]] = edges.weight[order][kept]
    return ids, weights
