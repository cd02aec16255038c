"""SDE solvers against the exact moments of their own recursion."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fastdiff_ops.ops.random import randn
from fastdiff_ops.schedules import VPLinear, timesteps
from fastdiff_ops.solvers import SolverTable, make_table, sample
from solver_tables import moments

VP = VPLinear()
MEAN, STD = 0.7, 0.4


def table(name: str, n: int, eta: float, **options) -> SolverTable:
    return make_table(name, VP, timesteps(VP, n, "logSNR"), eta=eta, **options)


@pytest.mark.parametrize(
    ("name", "n", "eta", "variance"),
    [
        ("dpmpp_2m_sde", 10, 0.0, 0.165867),
        ("dpmpp_2m_sde", 50, 0.0, 0.160815),
        ("dpmpp_2m_sde", 10, 1.0, 0.159952),
        ("dpmpp_2m_sde", 50, 1.0, 0.161974),
        ("dpmpp_sde", 50, 0.5, 0.138958),
    ],
)
def test_golden_variances(name: str, n: int, eta: float, variance: float) -> None:
    assert moments(table(name, n, eta), MEAN, STD)[1] == pytest.approx(variance, abs=6e-7)


@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "ddim"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_law_converges_to_the_data(name: str, eta: float) -> None:
    """At t0 the exact law is N(alpha m, alpha^2 s^2 + sigma^2)."""
    alpha, sigma = float(VP.alpha(VP.t0)), float(VP.sigma(VP.t0))
    errors = []
    for n in (50, 200, 800):
        mean, variance = moments(table(name, n, eta), MEAN, STD)
        errors.append(max(abs(mean - alpha * MEAN), abs(variance - alpha**2 * STD**2 - sigma**2)))
    # the start N(0, 1) instead of the true marginal leaves an error that no step size removes
    assert errors[2] < 1.2 * 0.0066 * MEAN
    assert errors[2] < 0.5 * errors[0] or errors[0] < 0.005


# Power: 200000 draws put the sample variance within 5e-4 (one sigma) of the truth, the mean within 9e-4. A
# noise factor wrong by 2 % moves the variance by at least 4e-3.
@pytest.mark.parametrize(
    ("name", "n", "eta"),
    [
        ("dpmpp_2m_sde", 10, 1.0),
        ("dpmpp_2m_sde", 10, 0.5),
        ("dpmpp_sde", 10, 0.5),
        ("dpmpp_3m_sde", 8, 1.0),
        ("ddim", 8, 0.5),
    ],
)
def test_monte_carlo(name: str, n: int, eta: float) -> None:
    chosen = table(name, n, eta)
    mean, variance = moments(chosen, MEAN, STD)

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        t = t[:1].double()
        alpha, sigma = float(VP.alpha(t)), float(VP.sigma(t))
        return MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)

    x = randn((200, 1000), seed=2024, offset=7)
    draws = sample(model, x, chosen, prediction_type="x0", seed=2025)
    assert float(draws.double().mean()) == pytest.approx(mean, abs=5e-3)
    assert float(draws.double().var()) == pytest.approx(variance, abs=3e-3)


def test_noise_of_an_evaluation_does_not_depend_on_eta() -> None:
    """Draw 1 + e belongs to evaluation e, so x_T and the later noise are never the same numbers."""
    model = lambda x, t: torch.zeros_like(x)  # noqa: E731
    zero = torch.zeros(1, 64, dtype=torch.float64)
    ts = [1.0, 0.5, 0.2]
    for eta in (0.5, 1.0):
        chosen = make_table("dpmpp_sde", VP, ts, eta=eta)
        x = sample(model, zero, chosen, prediction_type="x0", seed=11, offset=3)
        z = [randn((1, 64), seed=11, offset=4 + e, dtype=torch.float64) for e in range(2)]
        rows = [chosen.step(e).state for e in range(2)]
        expected = rows[1].state * rows[0].noise * z[0] + rows[1].noise * z[1]
        torch.testing.assert_close(x, expected, rtol=1e-13, atol=1e-13)


def test_recursion_notices_a_wrong_noise_factor() -> None:
    import dataclasses

    chosen = table("dpmpp_2m_sde", 10, 1.0)
    rows = np.array(chosen.rows)
    rows[:, 0, 3] *= math.sqrt(1.02)
    changed = moments(dataclasses.replace(chosen, rows=rows), MEAN, STD)[1]
    assert abs(changed - moments(chosen, MEAN, STD)[1]) > 3e-3
