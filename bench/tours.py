"""Tours: which solvers race on which instances, and what is known of these."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from fastdiff_ops.tsp import compare, generate
from fastdiff_ops.tsp.compare import Run
from fastdiff_ops.tsp.peers import SOLVERS

from .interleave import Competitor, Contest

ILS, MCTS, FAST_TSP, LKH = "ils", "mcts", "fast-tsp", "LKH"
CONSTANT = 0.7124  # random uniform tours of N cities in an area A are near this times sqrt(N A)

# Best known lengths of generate(N, 16, seed=1234), by one run of LKH and by fast-tsp, the shorter of the two.
KNOWN: dict[int, list[float]] = {
    n: [float(word) for word in text.split()]
    for n, text in {
        200: """10.451862 10.553992 10.769151 10.573962 10.409837 10.419124 10.802699 10.656037 10.491059
            10.957462 10.261744 10.769736 10.736477 10.566288 10.951445 11.005604""",
        500: """16.035376 16.621987 16.613957 16.605897 16.502802 16.383414 16.765902 16.609078 16.280902
            16.609630 16.438237 16.575084 16.477808 17.017540 16.594973 16.704011""",
        1000: "22.709468 23.067338 23.504113 23.013187 23.155432 22.990804 23.070792 23.235661",
    }.items()
}
# Mean gaps in percent of the public implementation of the tuned search (arXiv 2411.09238) on this kind of
# processor in so many seconds, on the first instances of the published test sets.
REFERENCE = {
    (200, 0.05): 1.76,
    (200, 0.5): 0.83,
    (500, 0.05): 11.6,
    (500, 0.5): 2.14,
    (500, 5.0): 1.10,
    (1000, 0.5): 4.34,
    (1000, 5.0): 1.40,
    (1000, 10.0): 1.30,
}
AIMS = {  # of ils, in percent
    (200, 0.05): 0.05,
    (200, 0.5): 0.0,
    (500, 0.05): 0.25,
    (500, 0.5): 0.01,
    (500, 5.0): 0.0,
    (1000, 0.05): 0.7,
    (1000, 0.5): 0.025,
    (1000, 5.0): 0.01,
    (1000, 10.0): 0.02,
    (10_000, 10.0): 0.35,
}
AIMS_OVER_CONSTANT = {(100_000, 60.0): 3.0, (1_000_000, 120.0): 6.0}


@dataclass(frozen=True)
class Heat:
    """Solvers that race on the same instances with the same budgets."""

    n: int
    count: int
    budgets: tuple[float, ...]
    solvers: tuple[str, ...]

    def names(self) -> list[str]:
        """What its runs are called in results; LKH has one run, of which the largest budget is the limit."""
        return [
            competitor(solver, budget)
            for solver in self.solvers
            for budget in (self.budgets[-1:] if SOLVERS[solver].once else self.budgets)
        ]


FULL = (
    Heat(200, 16, (0.05, 0.5), (ILS, MCTS, FAST_TSP, LKH)),
    Heat(500, 16, (0.05, 0.5, 5.0), (ILS, FAST_TSP)),
    Heat(500, 8, (0.05, 0.5, 5.0), (MCTS,)),
    Heat(500, 16, (60.0,), (LKH,)),
    Heat(1000, 8, (0.05, 0.5, 5.0, 10.0), (ILS, FAST_TSP)),
    Heat(1000, 4, (0.5, 5.0), (MCTS,)),
    Heat(1000, 8, (60.0,), (LKH,)),
    Heat(10_000, 1, (10.0,), (ILS, MCTS, FAST_TSP)),
    Heat(100_000, 1, (60.0,), (ILS,)),
    Heat(1_000_000, 1, (120.0,), (ILS,)),
)
QUICK = (
    Heat(200, 4, (0.05, 0.5), (ILS, MCTS, FAST_TSP, LKH)),
    Heat(500, 4, (0.05, 0.5), (ILS, MCTS, FAST_TSP)),
    Heat(1000, 2, (0.5,), (ILS, FAST_TSP)),
)


def competitor(solver: str, budget: float) -> str:
    """What runs are called in results."""
    return solver if SOLVERS[solver].once else f"{solver}, {budget:g} s"


@dataclass
class Race:
    """What came out of a heat: processor seconds as a contest, and lengths."""

    contest: Contest
    runs: dict[str, list[Run]]
    best: list[float]

    def info(self, name: str, n: int) -> dict[str, object]:
        """Figures of one competitor for the results."""
        runs = self.runs[name]
        # lengths are known to six decimals
        gaps = [round(100 * (run.length / self.best[run.instance] - 1), 4) for run in runs]
        over = [100 * (run.length / (CONSTANT * math.sqrt(n)) - 1) for run in runs]
        return {
            "solver": runs[0].solver,
            "budget": runs[0].budget,
            "gaps": gaps,
            "mean_gap": statistics.mean(gaps),
            "worst_gap": max(gaps),
            "over_constant": statistics.mean(over),
            "wall": statistics.mean(run.wall for run in runs),
        }


def run(heat: Heat) -> Race:
    """Let the solvers of a heat race."""
    known = KNOWN[heat.n][: heat.count] if heat.n in KNOWN else None
    found = compare(generate(heat.n, heat.count), heat.budgets, solvers=heat.solvers, known=known)
    runs: dict[str, list[Run]] = {}
    for one in found.runs:
        runs.setdefault(competitor(one.solver, one.budget), []).append(one)
    contest = Contest(found.clock, {name: Competitor(name, lambda: None) for name in runs})
    contest.samples = {name: [one.cpu for one in group] for name, group in runs.items()}
    return Race(contest, runs, found.best)
