"""What heatmaps are worth: gaps of both searches with good and harmful ones, at equal processor time.

python -m bench.heatmaps            # eight instances of 500 cities, about three minutes
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from fastdiff_ops.tsp import generate, solve
from fastdiff_ops.tsp.compare import compile_clock
from numpy.typing import NDArray

from .lines import table
from .tours import KNOWN

N, COUNT = 500, 8
Method = Literal["ils", "mcts"]
BUDGETS: dict[Method, tuple[float, ...]] = {"ils": (0.05, 0.25), "mcts": (0.25, 1.0)}
OPTIMAL = "edges of the optimal tours"


def heatmaps(points: NDArray[np.float64]) -> dict[str, Any]:
    """Heatmaps by what they are; dense ones [B, N, N]."""
    good = np.zeros((COUNT, N, N), np.float32)
    tours = solve(points, time_limit=2.0 * COUNT, seed=1, threads=1).tours.numpy()
    for heat, tour in zip(good, tours, strict=True):
        heat[tour, np.roll(tour, -1)] = 1
    random = np.random.default_rng(0).random((COUNT, N, N), dtype=np.float32)
    either = good + good.transpose(0, 2, 1)
    return {
        "none": None,
        "k-nearest prior": "knn",
        "SoftDist": "softdist",
        "zero": "zero",
        OPTIMAL: good,
        "the same, blurred: 0.7, and 0.3 to each of three near others": blurred(points, either),
        "random": random,
        "inverted: every edge but the optimal ones": 1 - either,
    }


def blurred(points: NDArray[np.float64], good: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a fair network says."""
    heat = 0.7 * good
    for b, cities in enumerate(points):
        nearest = np.linalg.norm(cities[:, None] - cities[None], axis=-1).argsort(axis=1)[:, 1:8]
        random = np.random.default_rng(b)
        for city, near in enumerate(nearest):
            heat[b, city, random.choice(near, 3, replace=False)] += 0.3
    return heat


def measure() -> list[list[object]]:
    """Mean gap and worst, in percent."""
    points = generate(N, COUNT)
    rows: list[list[object]] = []
    for name, heat in heatmaps(points).items():
        row: list[object] = [name]
        for method, budgets in BUDGETS.items():
            for budget in budgets:
                gaps = [gap(points[b], b, heat, method, budget) for b in range(COUNT)]
                row.append(f"{statistics.mean(gaps):.3f} ({max(gaps):.3f})")
        rows.append(row)
    return rows


def gap(cities: NDArray[np.float64], b: int, heat: Any, method: Method, seconds: float) -> float:
    """Percent above the best known length of instance `b`."""
    one = heat[b] if isinstance(heat, np.ndarray) else heat
    found = solve(cities, one, method=method, time_limit=seconds, seed=0, threads=1)
    return max(0.0, 100 * (float(found.lengths) / KNOWN[N][b] - 1))  # known to six decimals


def main() -> None:
    """Measure in a process whose clocks tell processor time, print a table."""
    if sys.argv[1:] == ["child"]:
        print(json.dumps(measure()))
        return
    with tempfile.TemporaryDirectory() as folder:
        clock = compile_clock(Path(folder))
        variables = os.environ | {"OMP_NUM_THREADS": "1"} | ({"LD_PRELOAD": str(clock)} if clock else {})
        command = [sys.executable, "-m", "bench.heatmaps", "child"]
        done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True)
    head = [f"{method}, {budget:g} s" for method, budgets in BUDGETS.items() for budget in budgets]
    print(table(["mean gap (worst), %", *head], json.loads(done.stdout)))


if __name__ == "__main__":
    main()
