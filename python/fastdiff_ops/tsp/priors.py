"""Heatmaps without a model: from ranks among nearest neighbours, and from distances."""

from __future__ import annotations

import math
from typing import Any, Final, Literal, overload

import torch
from torch import Tensor

from fastdiff_ops.schedules._checks import check_count, check_positive

from ._input import read_integers, read_numbers
from .instance import Instances

MAX_DENSE: Final = 20_000
SOFTDIST_NEIGHBOURS: Final = 32
# How often the k-th nearest city follows or precedes a city in a shortest tour: arXiv 2411.09238, appendix.
_TABLES: Final = {
    500: "440078 256266 132750 73265.6 40812.5 23593.8 13406.3 7750 4484.38 2734.38 1781.25 1187.5 687.5 375 "
    "375 187.5 78.125 15.625 46.875 15.625 46.875 31.25 15.625 15.625",
    1000: "437555 254719 137672 74109.4 39789.1 23515.6 13226.6 7453.13 4734.38 3007.81 1593.75 1085.94 "
    "562.5 296.875 265.625 171.875 101.563 46.875 15.625 31.25 23.4375 7.8125 15.625",
    10000: "441756 254094 132925 71950 39518.8 23750 14143.8 8093.75 4912.5 3331.25 1843.75 1112.5 837.5 "
    "556.25 375 262.5 181.25 87.5 68.75 50 50 25 25 6.25 12.5 6.25 6.25 6.25 6.25 6.25",
}


def knn_prior_table(n: int) -> Tensor:
    """Return the published table for N cities, float64 [K], normalised: N < 750, N < 5000, and above."""
    size = 500 if n < 750 else 1000 if n < 5000 else 10000
    table = torch.tensor([float(v) for v in _TABLES[size].split()], dtype=torch.float64)
    return table / table.sum()


@overload
def knn_prior_heatmap(
    coords: Any, k: int | None = ..., table: Any = ..., dense: Literal[False] = ...
) -> tuple[Tensor, Tensor]: ...
@overload
def knn_prior_heatmap(
    coords: Any, k: int | None = ..., table: Any = ..., *, dense: Literal[True]
) -> Tensor: ...
def knn_prior_heatmap(
    coords: Any, k: int | None = None, table: Any = None, dense: bool = False
) -> tuple[Tensor, Tensor] | Tensor:
    """Return the k-nearest prior: weights say how often such a neighbour is next in a good tour.

    H[i, r-th nearest city of i] = P(r): statistics of shortest tours, which hardly depend on the size of the
    instance; no model and no parameter (arXiv 2411.09238, "GT-Prior").

    Parameters
    ----------
    coords : float Tensor or ndarray [N, 2] or [B, N, 2]
    k : int, optional
        Neighbours of each city; default and at most the table's length and N - 1.
    table : float [K], optional
        P(1), P(2), ...; default the published one for N, see `fit_knn_prior` for others.
    dense : bool
        Return [.., N, N]; N <= 20000.

    Returns
    -------
    (ids, weights) : int32 and float32 Tensor [.., N, k]
        Neighbours in ascending distance, on the device of `coords`. Or, if `dense`, float32 [.., N, N].

    Raises
    ------
    ValueError, TypeError
        Naming the argument.

    Examples
    --------
    >>> coords = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    >>> ids, weights = knn_prior_heatmap(coords, table=[0.7, 0.3])
    >>> ids.tolist(), weights[0].tolist() == [torch.tensor(0.7).item(), torch.tensor(0.3).item()]
    ([[1, 2], [0, 2], [1, 0]], True)
    """
    instances = Instances.read(coords)
    if k is not None:
        check_count("k", k, 1)
    ids, weights = knn_prior_lists(instances, table, k)
    return _returned(instances, ids, weights.float(), dense)


def knn_prior_lists(instances: Instances, table: Any = None, k: int | None = None) -> tuple[Tensor, Tensor]:
    """Return ids and weights [B, N, k] of the k-nearest prior, on the host."""
    prior = knn_prior_table(instances.n) if table is None else _read_table(table)
    k = min(len(prior), instances.n - 1, len(prior) if k is None else k)
    ids = instances.nearest(k)
    return ids, prior[:k].expand(ids.shape)


@overload
def softdist_heatmap(
    coords: Any, tau: float | None = ..., k: int = ..., dense: Literal[False] = ...
) -> tuple[Tensor, Tensor]: ...
@overload
def softdist_heatmap(
    coords: Any, tau: float | None = ..., k: int = ..., *, dense: Literal[True]
) -> Tensor: ...
def softdist_heatmap(
    coords: Any, tau: float | None = None, k: int = SOFTDIST_NEIGHBOURS, dense: bool = False
) -> tuple[Tensor, Tensor] | Tensor:
    """Return softmax(-d / tau) over the other cities (SoftDist: Xia et al., ICML 2024).

    Parameters
    ----------
    coords : float Tensor or ndarray [N, 2] or [B, N, 2]
    tau : float, optional
        Temperature, in the unit of `coords`; default 0.16 sqrt(A / N) for each instance, A the area of the
        bounding box.
    k : int
        Nearest cities that are kept, at most N - 1; 32 hold all but about 1e-4 of a row. The rest of a row is
        renormalised.
    dense : bool
        Return all of it, [.., N, N]; N <= 20000. `k` is not used.

    Returns
    -------
    (ids, weights) : int32 and float32 Tensor [.., N, k]
        Neighbours in ascending distance, on the device of `coords`. Or, if `dense`, float32 [.., N, N].
        Worked out in float64.

    Raises
    ------
    ValueError, TypeError
        Naming the argument.

    Examples
    --------
    >>> ids, weights = softdist_heatmap(torch.rand(100, 2), k=8)
    >>> bool((weights.sum(-1) - 1).abs().max() < 1e-6)
    True
    """
    instances = Instances.read(coords)
    if tau is not None:
        check_positive(tau=tau)
    check_count("k", k, 1)
    if dense:
        _check_dense(instances.n)
        scale = _temperatures(instances, tau)[:, None, None]
        blocks = []
        for b in range(instances.batch):
            lengths = instances.all_lengths(b, b + 1) / scale[b]
            itself = torch.eye(instances.n, dtype=torch.bool)
            blocks.append((-lengths).masked_fill(itself, -torch.inf).softmax(-1))
        heat = torch.cat(blocks).nan_to_num(0.0).float()  # a single city has no other
        return (heat[0] if instances.single else heat).to(instances.device)
    ids, weights = softdist_lists(instances, tau, k)
    return _returned(instances, ids, weights.float(), dense=False)


def softdist_lists(
    instances: Instances, tau: float | None = None, k: int = SOFTDIST_NEIGHBOURS
) -> tuple[Tensor, Tensor]:
    """Return ids and weights [B, N, k] of SoftDist, on the host."""
    ids = instances.nearest(min(k, instances.n - 1))
    lengths = instances.lengths_to(ids)
    return ids, (lengths / -_temperatures(instances, tau)[:, None, None]).softmax(-1)


def _temperatures(instances: Instances, tau: float | None) -> Tensor:
    """Return tau of each instance, float64 [B]."""
    if tau is not None:
        return torch.full((instances.batch,), float(tau), dtype=torch.float64)
    n = instances.n
    if instances.coords is None:  # the mean distance to the nearest city is 0.5 sqrt(A / N)
        found = 0.32 * instances.lengths_to(instances.nearest(min(1, n - 1))).mean((1, 2)).nan_to_num(0.0)
    else:
        sides = instances.coords.amax(1) - instances.coords.amin(1)
        found = 0.16 * torch.maximum((sides.prod(-1) / n).sqrt(), sides.amax(-1) / n)
    return torch.where(found > 0, found, torch.ones_like(found))


def fit_knn_prior(coords: Any, tours: Any, k_max: int = 30) -> Tensor:
    """Return how often the k-th nearest city is next in given tours: a table for `knn_prior_heatmap`.

    Parameters
    ----------
    coords : float Tensor or ndarray [N, 2] or [B, N, 2]
    tours : int Tensor or ndarray [N] or [B, N]
        Good tours of them.
    k_max : int
        Length of the table. Edges to cities farther away than that are left out.

    Returns
    -------
    float64 Tensor [k_max]
        P(1), P(2), ..., summing to 1 (all zero if no edge leads to one of the k_max nearest cities).

    Raises
    ------
    ValueError, TypeError
        Naming the argument.

    Examples
    --------
    >>> square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [2.0, 1.0], [2.0, 0.0]])
    >>> fit_knn_prior(square, [0, 1, 2, 3], k_max=3)
    tensor([0.5000, 0.5000, 0.0000], dtype=torch.float64)
    """
    instances = Instances.read(coords)
    check_count("k_max", k_max, 1)
    order = read_integers("tours", tours).cpu()
    order = order.reshape(-1, order.shape[-1]) if order.dim() in (1, 2) else order
    if order.shape != (instances.batch, instances.n):
        wanted, got = (instances.batch, instances.n), tuple(order.shape)
        raise ValueError(f"`tours` must have shape {wanted} like `coords`, got {got}")
    if not bool((order.sort(-1).values == torch.arange(instances.n)).all()):
        raise ValueError("`tours` must visit every city once")
    table = torch.zeros(k_max, dtype=torch.float64)
    near = instances.nearest(min(k_max, instances.n - 1)).long()
    beside = torch.stack([order.roll(1, -1), order.roll(-1, -1)], -1)  # [B, N, 2], of the city at each place
    neighbours = torch.empty_like(beside).scatter_(1, order[..., None].expand_as(beside), beside)
    for side in neighbours.unbind(-1):
        table[: near.shape[-1]] += (near == side[..., None]).sum((0, 1))
    return (table / table.sum().clamp(min=1)).to(instances.device)


def _read_table(table: Any) -> Tensor:
    prior = read_numbers("table", table).cpu().double()
    if prior.dim() != 1 or len(prior) == 0:
        raise ValueError(f"`table` must have shape [K], K >= 1, got {tuple(prior.shape)}")
    if not bool((prior >= 0).all()) or not 0 < float(prior.sum()) < math.inf:
        raise ValueError("`table` must hold probabilities: finite, not negative, not all zero")
    return prior / prior.sum()


def _check_dense(n: int) -> None:
    if n > MAX_DENSE:
        raise ValueError(f"`dense` heatmaps have at most {MAX_DENSE} cities, got {n}: take the lists")


def _returned(
    instances: Instances, ids: Tensor, weights: Tensor, dense: bool
) -> tuple[Tensor, Tensor] | Tensor:
    if dense:
        _check_dense(instances.n)
        full = torch.zeros(instances.batch, instances.n, instances.n)
        full.scatter_(-1, ids.long(), weights)
        return (full[0] if instances.single else full).to(instances.device)
    if instances.single:
        ids, weights = ids[0], weights[0]
    return ids.to(instances.device), weights.contiguous().to(instances.device)
