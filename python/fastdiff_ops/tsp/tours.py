"""Tours without a search: their lengths, whether they are tours, one descent, decoding a heatmap."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._engines import make_problem
from ._input import read_integers
from .heatmaps import Heatmap
from .instance import Instances
from .metrics import EXPLICIT, check_metric
from .route import Route
from .small import MOST_CITIES, exact_tours


def tour_length(
    coords_or_dist: Any, tours: Any, *, metric: str = "euclidean", open_path: bool = False
) -> Tensor:
    """Return the lengths of tours, summed in float64.

    Parameters
    ----------
    coords_or_dist : Tensor or ndarray [N, 2], [B, N, 2], [N, N] or [B, N, N]
        Points, or distances. Two columns mean points, unless `metric` is "explicit".
    tours : int Tensor or ndarray [..., N] or [B, ..., N]
        Cities in the order of the visit; with B instances, an entry for each.
    metric : str
        As in `solve`; "explicit" says that distances are given.
    open_path : bool
        Whether to leave out the way back.

    Returns
    -------
    float64 Tensor
        Shaped like `tours` without its last axis, on its device if it is a tensor, else on that of
        `coords_or_dist`.

    Raises
    ------
    ValueError, TypeError
        Naming the argument.

    Examples
    --------
    >>> square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    >>> tour_length(square, [[0, 1, 2, 3], [0, 2, 1, 3]])
    tensor([4.0000, 4.8284], dtype=torch.float64)
    """
    name = check_metric(metric, explicit=True)
    shape = np.shape(coords_or_dist)
    explicit = name == EXPLICIT or (len(shape) >= 2 and shape[-1] != 2)
    instances = Instances.read(
        None if explicit else coords_or_dist,
        coords_or_dist if explicit else None,
        "euclidean" if explicit else name,
    )
    given = read_integers("tours", tours)
    order = _check_tours(given.cpu(), instances)
    which = torch.arange(instances.batch).repeat_interleave(len(order) // max(1, instances.batch))
    lengths = instances.lengths(order, open_path=open_path, which=which).reshape(given.shape[:-1])
    return lengths.to(given.device if isinstance(tours, Tensor) else instances.device)


def is_tour(tours: Any, n: int | None = None) -> Tensor:
    """Return whether tours visit each of their cities 0..N-1 once.

    Parameters
    ----------
    tours : int Tensor or ndarray [..., N]
    n : int, optional
        Number of cities that they must have.

    Returns
    -------
    bool Tensor [...]

    Raises
    ------
    TypeError
        If they are no integers.

    Examples
    --------
    >>> is_tour([[0, 2, 1], [0, 1, 1]])
    tensor([ True, False])
    """
    order = read_integers("tours", tours)
    if order.dim() == 0:
        raise ValueError("`tours` must have shape [..., N], got ()")
    there = (order.sort(-1).values == torch.arange(order.shape[-1], device=order.device)).all(-1)
    return there if n is None else there & (order.shape[-1] == n)


def two_opt(
    coords: Any,
    tours: Any,
    *,
    dist: Any = None,
    metric: str = "euclidean",
    open_path: bool = False,
    ends: Any = None,
    fixed_edges: Any = None,
    candidates: int = 8,
) -> Tensor:
    """Improve tours until no 2-opt, Or-opt or sequential 3-opt move among near neighbours makes them shorter.

    One descent without randomness; `solve(..., init=tours)` goes on from there.

    Parameters
    ----------
    coords, dist, metric, open_path, ends, fixed_edges
        As in `solve`.
    tours : int Tensor or ndarray [N] or [B, N]
    candidates : int
        Neighbours of a city that new edges may lead to.

    Returns
    -------
    int64 Tensor [N] or [B, N]
        Never longer than what was given, on the device of the instances.

    Raises
    ------
    ValueError, TypeError
        Naming the argument.

    Examples
    --------
    >>> square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    >>> two_opt(square, [0, 2, 1, 3])
    tensor([0, 1, 2, 3])
    """
    instances = Instances.read(coords, dist, metric)
    route = Route.read(instances.n, instances.batch, open_path, ends, fixed_edges)
    start = read_starts("tours", tours, instances, route)
    if instances.n <= MOST_CITIES:
        better = exact_tours(instances, route)
    else:
        better = torch.empty_like(start)
        for b in range(instances.batch):
            problem = make_problem(instances, route, None, b, candidates=candidates)
            order = problem.host.optimise(start[b].to(torch.int32).numpy())
            better[b] = torch.from_numpy(route.arrange(order.astype(np.int64)))
        worse = instances.lengths(better, open_path=open_path) > instances.lengths(start, open_path=open_path)
        better[worse] = start[worse]
    return (better[0] if instances.single else better).to(instances.device)


def read_starts(name: str, tours: Any, instances: Instances, route: Route) -> Tensor:
    """Return one tour for each instance, int64 [B, N] on the host, or raise for what is none."""
    given = read_integers(name, tours).cpu()
    single, n = instances.single, instances.n
    if given.shape != (instances.batch, n) and not (single and given.shape == (n,)):
        wanted = f"[{n}]" if single else f"[{instances.batch}, {n}]"
        raise ValueError(f"`{name}` must have shape {wanted}, got {tuple(given.shape)}")
    order = given.reshape(instances.batch, instances.n)
    for b in (~is_tour(order)).nonzero()[:1].flatten().tolist():
        raise ValueError(f"`{name}` must visit every city once, but tour {b} does not")
    for b in range(instances.batch):
        wrong = route.violation(order[b].numpy(), b)
        if wrong is not None:
            raise ValueError(f"`{name}` must keep to the route, but tour {b} {wrong}")
    return order


def greedy_decode(heatmap: Any, coords: Any, *, edge_index: Any = None, logits: bool = False) -> Tensor:
    """Return the tours that a heatmap spells: its edges by weight over length, as far as they make paths.

    The usual decoder of diffusion models for tours (Graikos et al., arXiv 2206.09012; DIFUSCO, arXiv
    2302.08224, section 4): edges in descending (H_ij + H_ji) / d_ij, each taken if it leaves paths. Paths
    that remain are joined by their nearest ends.

    Parameters
    ----------
    heatmap, edge_index, logits
        As in `solve`; of each city the 32 heaviest edges are seen.
    coords : float Tensor or ndarray [N, 2] or [B, N, 2]

    Returns
    -------
    int64 Tensor [N] or [B, N], on the device of `coords`

    Raises
    ------
    ValueError, TypeError
        Naming the argument.

    Examples
    --------
    >>> coords = torch.rand(50, 2)
    >>> heat = torch.eye(50).roll(1, 0)  # 0, 1, 2, ...
    >>> bool((greedy_decode(heat, coords) == torch.arange(50)).all())
    True
    """
    instances = Instances.read(coords)
    heat = Heatmap.from_any(heatmap, coords, edge_index=edge_index, logits=logits)
    tours = torch.empty(instances.batch, instances.n, dtype=torch.int64)
    for b in range(instances.batch):
        edges = _paths(heat, instances, b)
        keep = Route(instances.n, False, (None, None), edges[None])
        one = instances.only(b)
        if instances.n <= MOST_CITIES:
            order = exact_tours(one, keep)[0].numpy()
        else:
            joined = make_problem(one, keep, None, 0).host.greedy()
            order = keep.arrange(joined.astype(np.int64))
        tours[b] = torch.from_numpy(order)
    return (tours[0] if instances.single else tours).to(instances.device)


def _paths(heat: Heatmap, instances: Instances, b: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the edges, int64 [M, 2], that are taken one after another."""
    ids = torch.from_numpy(heat.ids[b : b + 1])
    n = instances.n
    there = (heat.ids[b] >= 0).ravel()
    lengths = instances.only(b).lengths_to(ids.clamp(min=0))[0].numpy().ravel()
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (heat.weights[b].ravel() / lengths)[there]
    source, target = np.repeat(np.arange(n), heat.ids.shape[-1])[there], heat.ids[b].ravel()[there]
    low, high = np.minimum(source, target), np.maximum(source, target)
    order = np.lexsort((high, low, -value))
    free, root, taken = [2] * n, list(range(n)), []
    for u, v in zip(low[order].tolist(), high[order].tolist(), strict=True):
        if free[u] == 0 or free[v] == 0:
            continue
        a, c = _root(root, u), _root(root, v)
        if a != c:
            root[a] = c
            free[u] -= 1
            free[v] -= 1
            taken.append((u, v))
    return np.array(taken, np.int64).reshape(-1, 2)


def _root(root: list[int], city: int) -> int:
    while root[city] != city:
        root[city] = root[root[city]]
        city = root[city]
    return city


def _check_tours(order: Tensor, instances: Instances) -> Tensor:
    """Return tours as rows [T, N], T a multiple of B."""
    wanted = "[..., N]" if instances.single else f"[{instances.batch}, ..., N]"
    if (
        order.dim() == 0
        or order.shape[-1] != instances.n
        or not (instances.single or (order.dim() > 1 and order.shape[0] == instances.batch))
    ):
        raise ValueError(f"`tours` must have shape {wanted} with N = {instances.n}, got {tuple(order.shape)}")
    if not bool(is_tour(order).all()):
        raise ValueError("`tours` must visit every city once")
    return order.reshape(-1, instances.n)
