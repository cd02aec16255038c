"""Heatmaps: how likely each edge is in a shortest tour, in every form in which models say it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._input import check_finite, raise_first, read_integers, read_numbers
from ._sparse import Edges, as_csr, keep_heaviest, read_csr, symmetrised
from .instance import Instances
from .priors import MAX_DENSE, knn_prior_lists, softdist_lists

MAX_WIDTH = 32
_ROWS = 2048
_BLOCK = 1 << 25  # entries of a dense heatmap that are looked at together
_FEW = "give lists of neighbours (ids, weights), CSR, or edge weights with `edge_index`"


@dataclass(frozen=True)
class Heatmap:
    """The heaviest edges of each city, symmetrised.

    Attributes
    ----------
    ids : int32 ndarray [B, N, K]
        Neighbours of each city in descending weight, -1 in empty slots.
    weights : float32 ndarray [B, N, K]
        (H_ij + H_ji) / 2, 0 in empty slots. Only ratios within a row matter to `method="ils"`; `mcts` takes
        them as they are.
    rows_without_heat : int64 ndarray [B]
        Cities without an edge of weight above zero.

    Examples
    --------
    >>> ids = torch.tensor([[1, 2], [0, 2], [0, 1]])
    >>> weights = torch.tensor([[0.9, 0.1], [0.7, 0.0], [0.0, 0.0]])
    >>> heat = Heatmap.from_any((ids, weights))
    >>> heat.ids[0], heat.weights[0].round(3)
    (array([[ 1,  2],
           [ 0, -1],
           [ 0, -1]], dtype=int32), array([[0.8 , 0.05],
           [0.8 , 0.  ],
           [0.05, 0.  ]], dtype=float32))
    """

    ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    rows_without_heat: NDArray[np.int64]

    @classmethod
    def from_any(
        cls,
        heatmap: Any,
        coords: Any = None,
        *,
        n: int | None = None,
        dist: Any = None,
        metric: str = "euclidean",
        edge_index: Any = None,
        logits: bool = False,
        width: int = MAX_WIDTH,
    ) -> Heatmap:
        """Read a heatmap.

        Parameters
        ----------
        heatmap
            One of

            * None or "knn": the k-nearest prior (`knn_prior_heatmap`); "softdist": `softdist_heatmap`; both
              need `coords` or `dist`. "zero": nothing known.
            * Tensor or ndarray [N, N] or [B, N, N], any real dtype, on any device: dense; N <= 20000.
            * (ids [N, K] or [B, N, K], weights alike): neighbours of each city; id -1 is an empty slot.
            * a torch tensor [N, N] in COO or CSR layout, a scipy sparse matrix, or (indptr, indices, data).
            * weights [E] or [B, E] with `edge_index` [2, E] (or [B, 2, E]): what graph models emit.
            * a list of B of these, one for each instance.
            * a Heatmap.

            Weights are not negative; rows need not sum to anything. Diagonals are ignored, repeated entries
            merged by their maximum.
        coords, dist, metric
            The instances, as in `solve`: what the number of cities is checked against.
        n : int, optional
            Number of cities, where there are no `coords` and the heatmap does not tell: with `edge_index`.
        edge_index : int Tensor [2, E] or [B, 2, E], optional
        logits : bool
            Weights are logits: their sigmoid is taken. Entries that a sparse format leaves out stay 0.
        width : int
            Edges kept for each city, at most.

        Returns
        -------
        Heatmap

        Raises
        ------
        ValueError, TypeError
            Naming `heatmap` or `edge_index`: sizes that do not fit the instances, entries that are
            negative or not finite, ids out of range, a dense heatmap of more than 20000 cities.
        """
        instances = None if coords is None and dist is None else Instances.read(coords, dist, metric)
        return HeatmapReader(instances, edge_index, logits, width, n).read(heatmap)

    @property
    def batch(self) -> int:
        return len(self.ids)

    @classmethod
    def _of_lists(cls, ids: NDArray[np.int32], weights: NDArray[np.float32]) -> Heatmap:
        return cls(ids, weights, (ids[..., :1] < 0).all(-1).sum(-1).astype(np.int64))


@dataclass(frozen=True)
class HeatmapReader:
    """Reads heatmaps of some instances; the arguments are those of `Heatmap.from_any`."""

    instances: Instances | None
    edge_index: Any = None
    logits: bool = False
    width: int = MAX_WIDTH
    given_n: int | None = None

    def read(self, heatmap: Any) -> Heatmap:
        if isinstance(heatmap, Heatmap):
            self._check_size(heatmap.batch, heatmap.ids.shape[1], heatmap.ids.shape)
            return heatmap
        if self.edge_index is not None:
            return self._edge_weights(heatmap)
        if heatmap is None or isinstance(heatmap, str):
            return self._built_in(heatmap)
        if isinstance(heatmap, list):
            return self._one_each(heatmap)
        if isinstance(heatmap, tuple) and len(heatmap) == 2:
            return self._neighbour_lists(*heatmap)
        csr = as_csr(heatmap)
        if csr is not None:
            indptr, indices, data = read_csr(*csr)
            n = len(indptr) - 1
            self._check_size(1, n, (n, n))
            rows = np.repeat(np.arange(n), np.diff(indptr))
            return self._from_edges([rows], [indices], [self._weights(data)], n)
        if isinstance(heatmap, tuple):
            wanted = "(ids, weights) or (indptr, indices, data)"
            raise TypeError(f"`heatmap` must be {wanted} when a tuple, got {len(heatmap)} entries")
        return self._dense(read_numbers("heatmap", heatmap))

    # -- formats --

    def _built_in(self, name: str | None) -> Heatmap:
        kinds: dict[str, Callable[[Instances], tuple[Tensor, Tensor]]] = {
            "knn": knn_prior_lists,
            "softdist": softdist_lists,
        }
        if self.logits:
            raise ValueError(f"`logits` needs a heatmap of numbers, got {name!r}")
        if self.instances is None:
            raise ValueError(f"`heatmap` {name or 'knn'!r} is made from `coords` or `dist`, got neither")
        batch, n = self.instances.batch, self.instances.n
        if name == "zero":
            nobody = np.full((batch, n, 1), -1, np.int32)
            return Heatmap._of_lists(nobody, np.zeros(nobody.shape, np.float32))
        make = kinds.get(name or "knn")
        if make is None:
            raise ValueError(f"`heatmap` must be one of knn, softdist, zero, or numbers, got {name!r}")
        return self._of_neighbours(*make(self.instances))

    def _one_each(self, heatmaps: list[Any]) -> Heatmap:
        batch = len(heatmaps) if self.instances is None else self.instances.batch
        if len(heatmaps) != batch or not heatmaps:
            raise ValueError(f"`heatmap` must hold one for each of {batch} instances, got {len(heatmaps)}")
        parts = []
        for b, heatmap in enumerate(heatmaps):
            one = None if self.instances is None else self.instances.only(b)
            parts.append(HeatmapReader(one, None, self.logits, self.width, self.given_n).read(heatmap))
        sizes = {part.ids.shape[:2] for part in parts}
        if len(sizes) > 1 or next(iter(sizes))[0] != 1:
            raise ValueError(f"`heatmap` must hold single heatmaps of one size, got (B, N) {sorted(sizes)}")
        most = max(part.ids.shape[-1] for part in parts)
        ids = np.full((batch, *parts[0].ids.shape[1:2], most), -1, np.int32)
        weights = np.zeros(ids.shape, np.float32)
        for b, part in enumerate(parts):
            ids[b, :, : part.ids.shape[-1]] = part.ids[0]
            weights[b, :, : part.ids.shape[-1]] = part.weights[0]
        return Heatmap._of_lists(ids, weights)

    def _neighbour_lists(self, given_ids: Any, given_weights: Any) -> Heatmap:
        ids, weights = read_integers("heatmap ids", given_ids), read_numbers("heatmap weights", given_weights)
        if ids.shape != weights.shape or ids.dim() not in (2, 3):
            raise ValueError(
                "`heatmap` (ids, weights) must both have shape [N, K] or [B, N, K], "
                f"got {tuple(ids.shape)} and {tuple(weights.shape)}"
            )
        batched = ids.reshape(-1, *ids.shape[-2:])
        self._check_size(batched.shape[0], batched.shape[1], tuple(ids.shape))
        return self._of_neighbours(batched, self._weights(weights, empty=ids < 0).reshape(batched.shape))

    def _of_neighbours(self, ids: Tensor, weights: Tensor) -> Heatmap:
        batch, n, width = ids.shape
        columns = ids.cpu().long().numpy().reshape(batch, -1)
        values = weights.cpu().double().numpy().reshape(batch, -1)
        if columns.size and columns.min() < -1:
            raise ValueError(f"`heatmap` ids must be in [-1, {n}), got {columns.min()}")
        rows = np.repeat(np.arange(n), width)
        there = [c >= 0 for c in columns]
        return self._from_edges(
            [rows[t] for t in there],
            [c[t] for c, t in zip(columns, there, strict=True)],
            [v[t] for v, t in zip(values, there, strict=True)],
            n,
        )

    def _edge_weights(self, given: Any) -> Heatmap:
        weights, index = read_numbers("heatmap", given), read_integers("edge_index", self.edge_index)
        n = self.given_n if self.instances is None else self.instances.n
        if n is None:
            raise ValueError("`edge_index` needs `coords` or `n`, which say how many cities there are")
        if weights.dim() not in (1, 2) or index.dim() not in (2, 3) or index.shape[-2] != 2:
            raise ValueError(
                "`heatmap` must have shape [E] or [B, E] and `edge_index` [2, E] or [B, 2, E], "
                f"got {tuple(weights.shape)} and {tuple(index.shape)}"
            )
        batch = weights.shape[0] if weights.dim() == 2 else 1
        if index.shape[-1] != weights.shape[-1] or (index.dim() == 3 and index.shape[0] != batch):
            wanted, got = tuple(weights.shape), tuple(index.shape)
            raise ValueError(f"`edge_index` must have a column for each weight of {wanted}, got {got}")
        self._check_size(batch, n, tuple(weights.shape))
        values = self._weights(weights).cpu().double().reshape(batch, -1).numpy()
        pairs = index.cpu().expand(batch, 2, -1).numpy()
        return self._from_edges(list(pairs[:, 0]), list(pairs[:, 1]), list(values), n, name="edge_index")

    def _dense(self, given: Tensor) -> Heatmap:
        if given.dim() not in (2, 3) or given.shape[-1] != given.shape[-2]:
            raise ValueError(f"`heatmap` must have shape [N, N] or [B, N, N], got {tuple(given.shape)}")
        heat = given.reshape(-1, *given.shape[-2:])
        batch, n, _ = heat.shape
        self._check_size(batch, n, tuple(given.shape))
        if n > MAX_DENSE:
            raise ValueError(f"`heatmap` must have at most {MAX_DENSE} cities when dense, got {n}: {_FEW}")
        width = min(self.width, n - 1)
        ids = np.full((batch, n, max(width, 1)), -1, np.int32)
        weights = np.zeros((batch, n, max(width, 1)), np.float32)
        if width == 0:
            return Heatmap._of_lists(ids, weights)
        together = max(1, _BLOCK // (n * n))
        for b in range(0, batch, together):
            for row in range(0, n, _ROWS):
                some, last = slice(b, b + together), min(row + _ROWS, n)
                here, there = heat[some, row:last], heat[some, :, row:last]
                if given.dim() == 2:  # errors name indices of what was given
                    here, there = (
                        self._weights(here[0], (row,))[None],
                        self._weights(there[0], (0, row))[None],
                    )
                else:
                    here, there = self._weights(here, (b, row)), self._weights(there, (b, 0, row))
                block = (here + there.mT) / 2
                block.diagonal(row, -2, -1).fill_(-1)
                best = block.topk(width)
                kept = best.values > 0
                ids[some, row:last] = best.indices.masked_fill(~kept, -1).int().cpu().numpy()
                weights[some, row:last] = best.values.masked_fill(~kept, 0).float().cpu().numpy()
        return Heatmap._of_lists(ids, weights)

    # -- what they share --

    def _weights(self, given: Tensor, first: tuple[int, ...] = (), empty: Tensor | None = None) -> Tensor:
        """Check weights and return them as probabilities, in float32 or float64."""
        weights = given if given.dtype == torch.float64 else given.float()
        if empty is not None:
            weights = weights.masked_fill(empty, 0)
        if self.logits:
            if bool(weights.isnan().any()):
                raise_first("heatmap", weights, weights.isnan(), "not be NaN", first)
            weights = weights.sigmoid()
            return weights if empty is None else weights.masked_fill(empty, 0)
        check_finite("heatmap", weights, first)
        if weights.numel() and bool(weights.min() < 0):
            hint = ": for logits say `logits=True`"
            raise_first("heatmap", weights, weights < 0, "not be negative", first, hint)
        return weights

    def _check_size(self, batch: int, n: int, shape: tuple[int, ...]) -> None:
        if self.instances is None:
            return
        if (batch, n) != (self.instances.batch, self.instances.n):
            wanted = f"{self.instances.batch} instances of {self.instances.n} cities"
            raise ValueError(f"`heatmap` must fit {wanted}, got shape {shape}")

    def _from_edges(
        self,
        rows: list[NDArray[np.int64]],
        columns: list[NDArray[np.int64]],
        weights: list[Any],
        n: int,
        name: str = "heatmap ids",
    ) -> Heatmap:
        lists = []
        for i, j, w in zip(rows, columns, weights, strict=True):
            for ends in (i, j):
                outside = ends[(ends < 0) | (ends >= n)]
                if len(outside):
                    raise ValueError(f"`{name}` must be in [0, {n}), got {outside[0]}")
            edges = symmetrised(Edges(i, j, np.asarray(w, np.float64)), n)
            lists.append(keep_heaviest(edges, n, self.width))
        most = max(1, max((ids.shape[1] for ids, _ in lists), default=1))
        ids = np.full((len(lists), n, most), -1, np.int32)
        kept = np.zeros((len(lists), n, most), np.float32)
        for b, (some, heat) in enumerate(lists):
            ids[b, :, : some.shape[1]] = some
            kept[b, :, : heat.shape[1]] = heat
        return Heatmap._of_lists(ids, kept)
