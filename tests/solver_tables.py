"""Solver tables to test, and tables applied by hand: rows as plain numpy sums."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from fastdiff_ops.schedules import (
    EDM,
    VE,
    Discrete,
    FlowMatching,
    NoiseSchedule,
    VPCosine,
    VPLinear,
    timesteps,
)
from fastdiff_ops.solvers import SolverTable, make_table, solver_names

SCHEDULES: list[tuple[NoiseSchedule, str, str | None]] = [
    (VPLinear(), "logSNR", None),
    (VPCosine(), "time_uniform", None),
    (VE(), "karras", "zero"),
    (EDM(), "karras", None),
    (FlowMatching(3.0), "time_uniform", None),
    (Discrete.from_table("scaled_linear"), "time_uniform", "zero"),
]


NOISE_PREDICTING = ("dpm_solver", "deis", "ipndm", "ghvb", "plms", "lms", "dpm2", "euler_ancestral")
# in terms of sigma / alpha, which is infinite at alpha = 0
NOISE_PREDICTING += ("dpmpp_2s_ancestral", "dpmpp_2s_sde")


def every_table(n: int = 6) -> list[SolverTable]:
    tables = []
    for name, (schedule, spacing, final) in itertools.product(solver_names(), SCHEDULES):
        if name.startswith(NOISE_PREDICTING) and isinstance(schedule, FlowMatching):
            continue  # starts at alpha = 0
        tables.append(make_table(name, schedule, timesteps(schedule, n, spacing, final_sigma=final)))
    return tables


TABLES = every_table()
IDS = [f"{table.name}-{table.schedule.kind}" for table in TABLES]

# target(e, x): what the rows take as model output at evaluation e
Target = Callable[[int, np.ndarray], np.ndarray]


def run_table(table: SolverTable, x: np.ndarray, target: Target, noise: list[np.ndarray]) -> list[np.ndarray]:
    """Every state X of a run, in float64; `noise[e]` is the draw of evaluation e."""
    anchor, history, states = x, [], []
    for e, rows in enumerate(table.rows):
        columns = [x, anchor, target(e, x), noise[e], None, *history]

        columns[4] = _combine(rows[1], columns)
        x_next = _combine(rows[0], columns)
        history = [_combine(row, columns) for row in rows[2 : 2 + table.n_store]][::-1] + history
        anchor = {"same": x_next, "keep": anchor, "row": columns[4]}[table.anchor[e]]
        x = x_next
        states.append(x)
    return states


def _combine(row: np.ndarray, columns: list) -> np.ndarray:
    return sum((w * c for w, c in zip(row, columns, strict=False) if w != 0), np.zeros_like(columns[0]))


def moments(table: SolverTable, mean: float, std: float) -> tuple[float, float]:
    """Exact mean and variance of the result for data N(mean, std^2), started from N(0, 1).

    The model is affine then, and so is the run: x is carried as its coefficients over (1, start, draw 0,
    ...).
    """
    basis = np.eye(2 + len(table))
    one, start, draws = basis[0], basis[1], list(basis[2:])

    def target(e: int, x: np.ndarray) -> np.ndarray:
        alpha, sigma = table.alpha[e], table.sigma[e]
        x0 = mean * one + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (x - alpha * mean * one)
        return x0 if table.target[e] == "x0" else (x - alpha * x0) / sigma

    x = run_table(table, start, target, draws)[-1]
    return float(x[0]), float((x[1:] ** 2).sum())
