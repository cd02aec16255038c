"""The solvers that `compare` lets race: ours, and what else a user would take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SOLVERS", "Solver"]

Coords = NDArray[np.float64]
Order = Any  # a sequence of cities from 0
Run = Callable[[float, int], Order]  # (seconds, seed)

_UINT16 = 2**16 - 1
_LKH_GRID = 10**6
_ROUTING_GRID = 40_000


@dataclass(frozen=True)
class Solver:
    """A way to find a tour.

    Attributes
    ----------
    name : str
    prepare : callable
        Gets coordinates float64 [N, 2], and does what shall not be counted; returns the run.
    module : str
        What must be installed.
    most_cities : int
        Larger instances are left out.
    once : bool
        It ends by itself: one run, given the largest of the budgets.
    note : str
        What a reader must know to judge it.
    """

    name: str
    prepare: Callable[[Coords], Run]
    module: str = "fastdiff_ops"
    most_cities: int = 10**9
    once: bool = False
    note: str = ""

    @property
    def available(self) -> bool:
        """Whether it is installed."""
        return find_spec(self.module) is not None


def _ours(method: str, heatmap: str | None = None) -> Callable[[Coords], Run]:
    def prepare(coords: Coords) -> Run:
        from .solve import solve

        def run(seconds: float, seed: int) -> Order:
            found = solve(coords, heatmap, method=method, time_limit=seconds, seed=seed, threads=1)  # type: ignore[arg-type]
            return found.tours.numpy()

        return run

    return prepare


def _fast_tsp(coords: Coords) -> Run:
    import fast_tsp

    matrix = _scaled_matrix(coords, _UINT16 / _diagonal(coords), np.uint16)
    return lambda seconds, _: fast_tsp.find_tour(matrix, duration_seconds=seconds, max_threads=1)


def _lkh(coords: Coords) -> Run:
    from elkai import _elkai  # its public face takes no time limit

    scaled = (coords - coords.min(axis=0)) * (_LKH_GRID / max(np.ptp(coords, axis=0).max(), 1e-300))
    places = "\n".join(f"{k} {x:.2f} {y:.2f}" for k, (x, y) in enumerate(scaled.tolist(), 1))
    problem = (
        f"TYPE : TSP\nDIMENSION : {len(coords)}\nEDGE_WEIGHT_TYPE : EUC_2D\nNODE_COORD_SECTION\n{places}\n"
    )

    def run(seconds: float, seed: int) -> Order:
        settings = f"RUNS = 1\nSEED = {seed + 1}\nTIME_LIMIT = {seconds}\nPROBLEM_FILE = :stdin:\n"
        return np.asarray(_elkai.solve_problem(settings, problem)) - 1

    return run


def _routing(coords: Coords) -> Run:
    from ortools.constraint_solver import pywrapcp, routing_enums_pb2

    matrix = _scaled_matrix(coords, _ROUTING_GRID / _diagonal(coords), np.int64).tolist()
    manager = pywrapcp.RoutingIndexManager(len(coords), 1, 0)

    def run(seconds: float, _: int) -> Order:
        model = pywrapcp.RoutingModel(manager)
        model.SetArcCostEvaluatorOfAllVehicles(model.RegisterTransitMatrix(matrix))
        settings = pywrapcp.DefaultRoutingSearchParameters()
        settings.first_solution_strategy = routing_enums_pb2.FirstSolutionStrategy.PATH_CHEAPEST_ARC
        settings.local_search_metaheuristic = routing_enums_pb2.LocalSearchMetaheuristic.GUIDED_LOCAL_SEARCH
        settings.time_limit.FromNanoseconds(int(seconds * 1e9))
        solution = model.SolveWithParameters(settings)
        order, at = [], model.Start(0)
        while not model.IsEnd(at):
            order.append(manager.IndexToNode(at))
            at = solution.Value(model.NextVar(at))
        return order

    return run


def _diagonal(coords: Coords) -> float:
    return max(float(np.hypot(*np.ptp(coords, axis=0))), 1e-300)


def _scaled_matrix(coords: Coords, scale: float, dtype: Any) -> NDArray[Any]:
    """Distances times `scale`, rounded; a block of rows at a time, since float64 ones take much room."""
    matrix = np.empty((len(coords), len(coords)), dtype)
    for row in range(0, len(coords), 1024):
        block = coords[row : row + 1024, None] - coords[None]
        matrix[row : row + 1024] = np.rint(np.sqrt((block * block).sum(-1)) * scale)
    return matrix


SOLVERS: dict[str, Solver] = {
    solver.name: solver
    for solver in (
        Solver("ils", _ours("ils"), note="solve(method='ils')"),
        Solver("mcts", _ours("mcts"), note="solve(method='mcts'), k-nearest prior"),
        Solver(
            "fast-tsp",
            _fast_tsp,
            "fast_tsp",
            20_000,
            note="takes a uint16 matrix, which is made outside of its time and ends it at 20 000 cities",
        ),
        Solver(
            "LKH",
            _lkh,
            "elkai",
            10_000,
            once=True,
            note="by elkai, one run, which ends by itself; TIME_LIMIT does not limit its preprocessing",
        ),
        Solver(
            "OR-tools",
            _routing,
            "ortools",
            2_000,
            note="routing: cheapest arc, then guided local search; its matrix is made outside of its time",
        ),
    )
}
