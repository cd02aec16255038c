"""What `solve` runs: which searches, and which of their tours it returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdiff_ops import _host

from ._arguments import Config, Method
from ._drive import Job, Limits, Search
from ._engines import Construction, HostSearch, Problem, Shared, make_problem
from .config import ILSConfig
from .heatmaps import Heatmap
from .instance import Instances
from .mcts import MCTSConfig
from .route import Route

SECONDS_PER_ITERATION: Final = 1e-5  # about; by the clock a result would depend on the machine
LONG: Final = 60.0
ROOMY: Final = 8  # candidates: fewer leave no room beside the edges of a wrong heatmap


@dataclass
class Plan:
    """The searches of one call: of each instance as many as there are trajectories."""

    instances: Instances
    route: Route
    heat: Heatmap | None
    method: Method
    config: Config
    candidates: int | None
    starts: Tensor | None
    key: int
    trajectories: int
    limits: Limits
    _several: dict[int, Problem] = field(default_factory=dict)  # problems whose tours are combined at the end

    def jobs(self) -> list[Job]:
        """Return the searches, instance by instance."""
        jobs = []
        for b in range(self.instances.batch):
            shared = Shared[Problem](self.trajectories)
            for p in range(self.trajectories):
                jobs.append(Job(b, partial(self._begin, shared, b, p), partial(self.measure, b)))
        return jobs

    def best_tours(self, jobs: list[Job], *, combine: bool) -> Tensor:
        """Return the shortest tour of each instance, int64 [B, N]: of equally short ones the first.

        With `combine` the better parts of an instance's tours are put together first.
        """
        instances, route = self.instances, self.route
        orders = [(job.instance, job.order) for job in jobs if job.order is not None]
        orders += self._combined(jobs) if combine else []
        found = [(b, route.arrange(order.astype(np.int64))) for b, order in orders]
        if self.starts is not None:
            found += [(b, route.arrange(start.numpy())) for b, start in enumerate(self.starts)]
        searched = {b for b, _ in found}
        missing = (b for b in range(instances.batch) if b not in searched)
        found += [(b, route.honour(_rough_tour(instances, b), b)) for b in missing]
        which = torch.tensor([b for b, _ in found])
        tours = torch.from_numpy(np.stack([tour for _, tour in found]))
        lengths = instances.lengths(tours, open_path=route.open_path, which=which)
        order = np.lexsort((lengths.numpy(), which.numpy()))  # stable: of equal lengths the first stays first
        first = np.flatnonzero(np.diff(which.numpy()[order], prepend=-1))
        return tours[torch.from_numpy(order[first])]

    def _combined(self, jobs: list[Job]) -> list[tuple[int, NDArray[np.int32]]]:
        tours: dict[int, list[NDArray[np.int32]]] = {b: [] for b in self._several}
        for job in jobs:
            if job.instance in tours and job.order is not None:
                tours[job.instance].append(job.order)
        return [(b, self._several[b].host.recombine(each)) for b, each in tours.items() if len(each) > 1]

    def problem(self, b: int, seconds: float) -> Problem:
        """Build an instance's problem for a search of so many seconds."""
        heat = None if isinstance(self.config, MCTSConfig) else self.heat
        if heat is not None and heat.rows_without_heat[b] == self.instances.n:
            heat = None
        candidates = self.candidates
        if candidates is None and heat is not None:
            candidates = ROOMY
        options = {} if candidates is None else {"candidates": candidates}
        alpha = self.config.alpha if isinstance(self.config, ILSConfig) and self.method == "ils" else False
        if self.limits.gap >= 0 and np.isnan(self.limits.targets[b]):
            alpha = True  # which estimates a bound
        return make_problem(
            self.instances, self.route, heat, b, alpha=alpha, seconds=self._budget(seconds), **options
        )

    def _budget(self, seconds: float) -> float:
        """Return how long a search may take, or what its iterations may take, by which it plans ahead."""
        if self.limits.max_iterations < math.inf:
            return self.limits.max_iterations * SECONDS_PER_ITERATION
        return seconds if seconds < math.inf else LONG

    def _begin(self, shared: Shared[Problem], b: int, p: int, seconds: float) -> Search:
        problem = shared.get(partial(self.problem, b, seconds))
        if self.method == "greedy":
            return Construction(problem)
        start = None if self.starts is None else self.starts[b].to(torch.int32).numpy()
        iterations = int(self.limits.max_iterations) if self.limits.max_iterations < math.inf else None
        options: dict[str, Any] = {
            "seed": self.key,
            "instance": b,
            "trajectory": p,
            "start": start,
            "time_limit": None if seconds == math.inf else max(seconds, 0.0),
        }
        if isinstance(self.config, MCTSConfig):
            assert self.heat is not None
            options |= {"heat_ids": self.heat.ids[b], "heat": self.heat.weights[b], "max_actions": iterations}
            options |= self.config.host_options(self.instances.n)
            return HostSearch(problem, _host.MctsSearch(problem.host, **options))
        if self.trajectories > 1:
            self._several[b] = problem
        settings = {"segment": self.config.segment, "hot": self.config.hot, "cold": self.config.cold}
        options |= {name: value for name, value in settings.items() if value is not None}
        return HostSearch(problem, _host.IlsSearch(problem.host, max_kicks=iterations, **options))

    def measure(self, b: int, order: NDArray[np.int32]) -> float:
        """Return the length of a tour or path, summed in float64."""
        tour = torch.from_numpy(order.astype(np.int64))[None]
        return float(self.instances.lengths(tour, open_path=self.route.open_path, which=torch.tensor([b])))


def _rough_tour(instances: Instances, b: int) -> NDArray[np.int64]:
    """Return a tour that takes next to no time: up and down through strips of the plane."""
    if instances.coords is None:
        return np.arange(instances.n)
    points = instances.coords[b].numpy()
    low, size = points.min(axis=0), np.ptp(points, axis=0)
    x, y = ((points - low) / np.where(size > 0, size, 1)).T
    strip = np.floor(x * math.ceil(math.sqrt(instances.n / 3)))
    return np.argsort(2 * strip + np.where(strip % 2, 1 - y, y))
