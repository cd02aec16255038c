"""The compiled searches as the driver sees them, in the caller's units."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fastdiff_ops import _host

from ._drive import Progress
from .heatmaps import Heatmap
from .instance import Instances
from .route import Route

T = TypeVar("T")


@dataclass
class Problem:
    """An instance as the searches see it.

    Attributes
    ----------
    host : TourProblem
    unit : float
        What a length of 1 is in the caller's units.
    offset : float
        Added to a length in the caller's units: what rounding down takes away on average, less the edge that
        stands for the ends of an open path.
    slack : float
        Lengths are within so much of those summed in float64.
    """

    host: _host.TourProblem
    unit: float
    offset: float
    slack: float

    @property
    def lower_bound(self) -> float:
        """Length that no tour is much below, in the caller's units; NaN if it was not worked out."""
        bound = self.host.lower_bound
        return self.length(bound) if bound > 0 else math.nan

    def length(self, units: float) -> float:
        """Return a length that the search reports in the caller's units."""
        return units * self.unit + self.offset


def make_problem(instances: Instances, route: Route, heat: Heatmap | None, b: int, **options: Any) -> Problem:
    """Build the problem of instance `b`; options are those of TourProblem."""
    pairs = route.pairs(b)
    coords = matrix = None
    unit = 1.0
    if instances.coords is not None:
        coords = np.ascontiguousarray(instances.coords[b].numpy())
    else:
        matrix, unit = instances.scaled_matrix(b)
    host = _host.TourProblem(
        coords=coords,
        matrix=matrix,
        metric=instances.metric,
        open_path=route.depot,
        fixed=pairs if len(pairs) else None,
        heat_ids=None if heat is None else heat.ids[b],
        heat=None if heat is None else heat.weights[b],
        **options,
    )
    unit *= host.unit
    n = instances.n
    joining = 0.0
    if route.open_path and not route.depot:
        ends = torch.tensor([route.ends])
        joining = float(instances.lengths(ends, open_path=True, which=torch.tensor([b])))
    whole = unit == 1.0 and instances.metric != "euclidean"
    below = 0.5 * n * unit if instances.metric == "euclidean" else 0.0
    return Problem(host, unit, below - joining, 0.0 if whole else 2 * n * unit)


@dataclass
class Shared(Generic[T]):
    """What the trajectories of an instance share: made by the first, dropped after the last."""

    users: int
    _made: T | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, make: Callable[[], T]) -> T:
        with self._lock:
            made = make() if self._made is None else self._made
            self.users -= 1
            self._made = made if self.users else None
        return made


@dataclass
class Construction:
    """`method="greedy"`: nothing to search."""

    problem: Problem

    @property
    def slack(self) -> float:
        return self.problem.slack

    def __post_init__(self) -> None:
        self._order = self.problem.host.greedy()

    def run(self, seconds: float) -> bool:
        return True

    def progress(self) -> Progress:
        return Progress(self.problem.length(self.problem.host.tour_length(self._order)))

    def order(self) -> NDArray[np.int32]:
        return self._order


@dataclass
class HostSearch:
    """`method="ils"` and `method="mcts"`."""

    problem: Problem
    search: _host.IlsSearch | _host.MctsSearch

    @property
    def slack(self) -> float:
        return self.problem.slack

    def run(self, seconds: float) -> bool:
        return self.search.run(seconds)

    def progress(self) -> Progress:
        search, length = self.search, self.problem.length
        return Progress(
            length(search.best_length),
            length(search.first_local_optimum) if search.first_local_optimum > 0 else math.nan,
            self.problem.lower_bound,
            search.kicks if isinstance(search, _host.IlsSearch) else search.actions,
            search.accepted,
            0 if isinstance(search, _host.IlsSearch) else search.restarts,
        )

    def order(self) -> NDArray[np.int32]:
        return self.search.best()
