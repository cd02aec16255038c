"""`solve`: short tours of a batch of instances."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdiff_ops.ops.random import Seed

from ._arguments import (
    Method,
    check_choices,
    default_config,
    read_bound,
    read_heat,
    read_init,
    read_limits,
    stream_key,
)
from ._device import runs_on_device, search_on_device
from ._drive import Driver
from ._plan import Plan
from ._report import Callback, Report
from .config import ILSConfig
from .instance import Instances
from .mcts import MCTSConfig
from .result import History, SearchStats, TSPResult
from .route import Route
from .small import MOST_CITIES, exact_tours


def solve(
    coords: Any = None,
    heatmap: Any = None,
    *,
    dist: Any = None,
    metric: str = "euclidean",
    method: Method = "ils",
    time_limit: float | None = None,
    max_iterations: int | None = None,
    seed: Seed = None,
    trajectories: int = 1,
    threads: int | None = None,
    candidates: int | None = None,
    init: Any = None,
    config: ILSConfig | MCTSConfig | None = None,
    open_path: bool = False,
    ends: tuple[int | None, int | None] | None = None,
    fixed_edges: Any = None,
    edge_index: Any = None,
    logits: bool = False,
    bound: Any = None,
    stop_gap: float | None = None,
    stop_seconds_without_improvement: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    return_history: bool = False,
) -> TSPResult:
    """Find short tours.

    Parameters
    ----------
    coords : float Tensor or ndarray [N, 2] or [B, N, 2], optional
        Cities of one instance, or of a batch. Gradients do not flow: the answer is a permutation.
    heatmap : optional
        How likely edges are, in any form that `Heatmap.from_any` reads: dense [N, N] or [B, N, N], lists of
        neighbours (ids, weights), sparse matrices, edge weights with `edge_index`, "knn", "softdist", "zero".
        None is the k-nearest prior for `mcts`; `ils` then goes by distances alone, which order edges as the
        prior does.
    dist : Tensor or ndarray [N, N] or [B, N, N], optional
        Instead of `coords`: symmetric distances, not negative, metric or not; N <= 20000. Float distances may
        differ by direction by 1e-6 of the largest, and what is above the diagonal counts.
    metric : str
        Of `coords`: "euclidean", or TSPLIB's EUC_2D, CEIL_2D, MAN_2D, MAX_2D, ATT, GEO, in which lengths are
        whole numbers.
    method : "ils", "mcts" or "greedy"
        Iterated local search (default); the search of Fu, Qiu & Zha (arXiv 2012.10658) as tuned by arXiv
        2411.09238; or the greedy start tour alone.
    time_limit : float, optional
        Wall seconds of the whole call. Default, without `max_iterations`: a millisecond for each city of the
        batch, at most ten seconds.
    max_iterations : int, optional
        Kicks (`ils`) or simulated actions (`mcts`) of each trajectory. Without a time limit or another stop
        the result depends on the seed only, not on threads. With both, whichever is spent first ends the
        search.
    seed : int, torch.Generator, PhiloxState or None
        None draws one. Instance b, trajectory p reads a stream of its own.
    trajectories : int
        Independent searches of each instance; the better parts of what `ils` finds are combined at the end.
    threads : int, optional
        Default `torch.get_num_threads()`. Instances and trajectories are spread over them.
    candidates : int, optional
        Neighbours of a city that new edges of `ils` lead to. Default: chosen by the search; with a heatmap
        8, so that a wrong one does no harm. With that of a good model 5 do.
    init : int Tensor or ndarray [N] or [B, N], or TSPResult, optional
        Tours to start from. A result goes on where it ended, with fresh random numbers for the same seed.
    config : ILSConfig or MCTSConfig, optional
        Settings of the method. Default: chosen by size and budget.
    open_path : bool
        Paths instead of closed tours.
    ends : (int or None, int or None), optional
        First and last city of an open path.
    fixed_edges : int Tensor or ndarray [M, 2] or [B, M, 2], optional
        Edges that every tour must have.
    edge_index, logits
        See `Heatmap.from_any`.
    bound : float or [B], optional
        A known optimum, or a lower bound: what gaps are measured against.
    stop_gap : float, optional
        End the search of an instance at a length of (1 + stop_gap) * bound; 0 ends it at the bound itself.
        Without a `bound`, `ils` on a CPU takes its own estimate, about 0.7 % below the optimum.
    stop_seconds_without_improvement : float, optional
        End the search of an instance that has not improved for so long.
    callback : callable, optional
        `callback(stats)`, about every 0.2 s; a true return value ends the search.
    progress : bool
        Show a tqdm bar.
    return_history : bool
        Keep improvements in `stats.history`.

    Returns
    -------
    TSPResult
        (tours int64 [N] or [B, N], lengths float64 [] or [B], stats), tensors on the device of `coords` or
        `dist`. Never longer than `init`.

    Raises
    ------
    ValueError, TypeError
        Naming the argument: shapes that differ, entries that are not finite, edges that no tour can hold, ...

    Notes
    -----
    Up to twelve cities are solved exactly. Ctrl-C does not raise: the best tours so far are returned, within
    50 ms, with `stats.interrupted`; instances without a tour by then get a rough one. A time limit ends the
    search, but not the building of a first tour: every instance gets one.

    Of CUDA tensors `ils` searches closed Euclidean tours without fixed edges on their device, a warp for each
    trajectory: many of them are what it is good for, so give it a batch, or tens of `trajectories`. All else
    is searched by the processor. `method="mcts"` always is.

    Examples
    --------
    >>> from fastdiff_ops import tsp
    >>> angle = torch.arange(60) * 2.4
    >>> circle = torch.stack([angle.cos(), angle.sin()], -1)
    >>> tours, lengths, stats = tsp.solve(circle, max_iterations=500, seed=0)
    >>> tours.shape, round(float(lengths), 3), stats.stopped_by
    (torch.Size([60]), 6.28, 'iterations')

    A path between two cities, over an edge that must stay:

    >>> options = {"open_path": True, "ends": (3, 4), "fixed_edges": [[3, 20]]}
    >>> path, length, _ = tsp.solve(circle, max_iterations=100, **options)
    >>> path[:2].tolist(), path[-1].item()
    ([3, 20], 4)
    """
    began = time.monotonic()
    instances = Instances.read(coords, dist, metric)
    route = Route.read(instances.n, instances.batch, open_path, ends, fixed_edges)
    check_choices(method, config, trajectories, threads, candidates, callback)
    known = read_bound(bound, instances.batch)
    limits = read_limits(
        began,
        instances,
        method,
        time_limit,
        max_iterations,
        known,
        stop_gap,
        stop_seconds_without_improvement,
    )
    starts, earlier = read_init(init, instances, route)
    config = config or default_config(method, heatmap, instances.n, limits.deadline - began)
    heat = read_heat(heatmap, instances, config, edge_index, logits)
    stats = SearchStats.empty(instances.batch)
    stats.lower_bound[:] = known
    stats.runs = earlier + 1
    if heat is not None:
        stats.rows_without_heat[:] = heat.rows_without_heat
    key = stream_key(seed, earlier)
    if instances.n <= MOST_CITIES or instances.batch == 0:
        tours = exact_tours(instances, route)
        stats.stopped_by = "exact"
        return _result(instances, route, tours, stats, began, return_history, None)
    plan = Plan(instances, route, heat, method, config, candidates, starts, key, trajectories, limits)
    jobs = plan.jobs()
    driver = Driver(stats, limits, threads or torch.get_num_threads(), began)
    if return_history:
        driver.histories = [[] for _ in range(instances.batch)]
    with Report(callback, progress, limits.deadline - began, limits.max_iterations, len(jobs)) as report:
        driver.watch = report.enough if report.wanted else None
        if runs_on_device(plan):
            jobs = search_on_device(plan, driver)
        else:
            driver.run(jobs)
        report.show(stats)
    if method == "greedy" and not stats.interrupted:
        stats.stopped_by = "construction"
    tours = plan.best_tours(jobs, combine=not stats.interrupted)
    return _result(instances, route, tours, stats, began, return_history, driver.histories)


def _result(
    instances: Instances,
    route: Route,
    tours: Tensor,
    stats: SearchStats,
    began: float,
    return_history: bool,
    histories: list[History] | None,
) -> TSPResult:
    lengths = instances.lengths(tours, open_path=route.open_path)
    stats.lengths[:] = lengths.numpy()
    if stats.stopped_by == "exact":
        stats.lower_bound[:] = np.where(np.isnan(stats.lower_bound), stats.lengths, stats.lower_bound)
    stats.seconds = time.monotonic() - began
    if return_history:
        kept = histories or [[] for _ in range(instances.batch)]
        for history, length in zip(kept, lengths.tolist(), strict=True):
            # the last entry is this tour, as the search saw it
            history[-1:] = [(history[-1][0] if history else stats.seconds, length)]
        stats.history = kept[0] if instances.single else kept
    if instances.single:
        tours, lengths = tours[0], lengths[0]
    return TSPResult(tours.to(instances.device), lengths.to(instances.device), stats)
