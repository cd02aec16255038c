"""Sparse heatmaps as lists of edges: reading, merging, symmetrising, cutting to the heaviest."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._input import read_integers, read_numbers

_ROWS: Final = 1 << 16
_ENTRIES: Final = 1 << 22


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


def symmetrised(edges: Edges, n: int) -> Edges:
    """Return (H + H^T) / 2, sorted by source and target.

    Loops and zeros are left out; of repeated edges the heaviest counts.
    """
    kept = (edges.source != edges.target) & (edges.weight > 0)
    source, target, weight = (array[kept] for array in edges)
    # one sort for both steps: directed edges beside their reverse
    key = torch.from_numpy(np.concatenate([2 * (source * n + target), 2 * (target * n + source) + 1]))
    key, order = torch.sort(key, stable=True)
    directed, heaviest = _grouped(key.numpy(), np.concatenate([weight, weight])[order.numpy()], np.maximum)
    pairs, total = _grouped(directed >> 1, heaviest, np.add)
    return Edges(pairs // n, pairs % n, total / 2)


def _grouped(
    key: NDArray[np.int64], weight: NDArray[np.float64], reduce: np.ufunc
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return each of the sorted keys once, and its weights reduced to one."""
    first = np.flatnonzero(np.diff(key, prepend=-1))
    return key[first], reduce.reduceat(weight, first) if len(first) else weight


def keep_heaviest(edges: Edges, n: int, width: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return ids and weights [N, K <= width] of each city's heaviest edges, of equal ones the first.

    `edges` are sorted by source.
    """
    degree = np.bincount(edges.source, minlength=n)
    most = min(width, int(degree.max(initial=0)))
    ids = np.full((n, most), -1, np.int32)
    weights = np.zeros((n, most), np.float32)
    place = np.cumsum(degree) - degree
    row = 0
    while row < n and most:
        last, widest = _rows_together(degree, row)
        some = slice(place[row], place[last - 1] + degree[last - 1])
        source, rank = edges.source[some] - row, np.arange(some.stop - some.start)
        rank -= place[edges.source[some]] - place[row]
        found = np.full((last - row, widest), -1, np.int32)
        heat = np.zeros((last - row, widest), np.float32)
        found[source, rank], heat[source, rank] = edges.target[some], edges.weight[some]
        order = np.argsort(-heat, axis=1, kind="stable")[:, :most]
        ids[row:last, : order.shape[1]] = np.take_along_axis(found, order, axis=1)
        weights[row:last, : order.shape[1]] = np.take_along_axis(heat, order, axis=1)
        row = last
    return ids, weights


def _rows_together(degree: NDArray[np.int64], row: int) -> tuple[int, int]:
    """Return where rows end that are worked on together, as a padded array, and their widest."""
    widest = np.maximum.accumulate(degree[row : row + _ROWS])
    fits = widest * np.arange(1, len(widest) + 1) <= _ENTRIES
    count = max(1, int(fits.sum()))
    return row + count, max(1, int(widest[count - 1]))
