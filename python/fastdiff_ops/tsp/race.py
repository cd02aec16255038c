"""One solver in a process of its own, for `compare`: python -m fastdiff_ops.tsp.race < request.

The request is JSON: "solver", "files" (an .npy [N, 2] for each instance), "budgets" in seconds, "seed". Each
run becomes a line of JSON: "instance", "budget", "cpu", "wall" and "tour".
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np

from .generate import generate
from .peers import SOLVERS


def main() -> None:
    """Answer one request."""
    request: dict[str, Any] = json.load(sys.stdin)
    solver = SOLVERS[request["solver"]]
    budgets: list[float] = [max(request["budgets"])] if solver.once else request["budgets"]
    solver.prepare(generate(20, seed=0)[0])(0.05, 0)  # imports, and what is set up once
    for instance, file in enumerate(request["files"]):
        run = solver.prepare(np.load(file, allow_pickle=False))
        for budget in budgets:
            wall, cpu = os.times().elapsed, time.process_time()
            tour = run(budget, request["seed"])
            spent = {"cpu": time.process_time() - cpu, "wall": os.times().elapsed - wall}
            line = {"instance": instance, "budget": budget, **spent, "tour": np.asarray(tour).tolist()}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
