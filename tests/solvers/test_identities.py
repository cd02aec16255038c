"""What must hold between solvers, between schedules, and for every row."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from fastdiff_ops.ops import Row
from fastdiff_ops.schedules import VE, FlowMatching, VPLinear, timesteps
from fastdiff_ops.solvers import SolverTable, make_table, sample
from fastdiff_ops.solvers.phi import exact_weights
from problems import MixtureModel, start_points
from solver_tables import IDS, TABLES, run_table

VP = VPLinear()
TS = timesteps(VP, 7, "time_uniform")


@pytest.mark.parametrize(
    ("name", "options"),
    [("dpmpp_2m", {}), ("dpmpp_3m", {}), ("dpm_solver_2m", {}), ("dpmpp_3s", {}), ("heun", {}), ("ddim", {})],
)
def test_variance_preserving_equals_exploding(name: str, options: dict) -> None:
    """On the same half-logSNR nodes, x_vp / alpha = x_ve."""
    ve = VE(sigma_min=float(VP.nsr(1e-3)), sigma_max=float(VP.nsr(1.0)))
    sigmas = VP.nsr(TS)
    sigmas[0], sigmas[-1] = ve.T, ve.t0
    x = start_points(VP)
    x_vp = sample(MixtureModel(VP, "eps"), x, make_table(name, VP, TS, **options), prediction_type="eps")
    x_ve = sample(
        MixtureModel(ve, "eps"),
        x / VP.alpha(1.0),
        make_table(name, ve, sigmas, **options),
        prediction_type="eps",
    )
    torch.testing.assert_close(x_vp / VP.alpha(1e-3), x_ve, rtol=1e-12, atol=1e-12)


def _same_rows(a: SolverTable, b: SolverTable) -> None:
    np.testing.assert_allclose(a.rows, b.rows, rtol=1e-13, atol=1e-13)


def test_first_order_solvers_are_one() -> None:
    x = start_points(VP)
    results = [
        sample(MixtureModel(VP, "v"), x, make_table(name, VP, TS, **options), prediction_type="v")
        for name, options in [
            ("ddim", {}),
            ("ddim", {"prediction": "eps"}),
            ("euler", {}),
            ("dpmpp_sde", {"eta": 0.0}),
            ("dpmpp_3s", {"orders": [1] * 7}),
            ("dpm_solver_2s", {"orders": [1] * 7}),
        ]
    ]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-12, atol=1e-12)


def test_ddim_and_sde_agree_at_eta_0_and_1_only() -> None:
    for eta in (0.0, 1.0):
        _same_rows(make_table("ddim", VP, TS, eta=eta), make_table("dpmpp_sde", VP, TS, eta=eta))
    half, sde = make_table("ddim", VP, TS, eta=0.5), make_table("dpmpp_sde", VP, TS, eta=0.5)
    assert np.abs(half.rows - sde.rows).max() > 0.01


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("prediction", ["x0", "eps"])
def test_ddim_is_the_posterior_of_its_schedule(eta: float, prediction: str) -> None:
    table = make_table("ddim", VP, TS, eta=eta, prediction=prediction)
    for e, (t, s) in enumerate(itertools.pairwise(TS)):
        c_0, c_t, std = VP.posterior_coefficients(t, s, eta)
        c_x, c_o = VP.conversion(t, "x0", prediction)
        row = table.step(e).state
        assert row.output * c_o == pytest.approx(c_0, rel=1e-10)
        assert row.state + row.output * c_x == pytest.approx(c_t, rel=1e-10)
        assert row.noise == pytest.approx(std, rel=1e-10)


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_3m"])
def test_eta_zero_is_the_ode(name: str) -> None:
    _same_rows(make_table(name, VP, TS), make_table(f"{name}_sde", VP, TS, eta=0.0))


@pytest.mark.parametrize(
    ("name", "order", "prediction"),
    [("dpmpp_2m", 2, "x0"), ("dpmpp_3m", 3, "x0"), ("dpm_solver_2m", 2, "eps"), ("dpm_solver_3m", 3, "eps")],
)
def test_exact_variant_solves_the_exponential_moments(name: str, order: int, prediction: str) -> None:
    table = make_table(name, VP, TS, variant="exact", lower_order_final=False)
    lam = VP.lam(TS)
    for e in range(len(table)):
        nodes = lam[max(0, e - order + 1) : e + 1][::-1]
        h = lam[e + 1] - lam[e]
        weights = exact_weights((nodes - lam[e]) / h, -h if prediction == "x0" else h)
        s, t = TS[e], TS[e + 1]
        if prediction == "x0":
            lin, scale = VP.sigma(t) / VP.sigma(s), VP.alpha(t)
        else:
            lin, scale = VP.alpha(t) / VP.alpha(s), -VP.sigma(t)
        first, *rest = (scale * h * weights).tolist()
        expected = Row(state=float(lin), output=first, history=tuple(rest))
        np.testing.assert_allclose(table.step(e).state.to_array(), expected.to_array(), rtol=1e-10)


def test_fixed_inner_nodes_are_those_of_uniform_logsnr() -> None:
    ts = timesteps(VP, 6, "logSNR")
    for name in ("dpmpp_2s", "dpmpp_3s", "dpm_solver_3s"):
        orders = [3, 3] if name.endswith("3s") else [2, 2, 2]
        for variant in ("dpmsolver", "taylor"):
            free = make_table(name, VP, ts, variant=variant, orders=orders)
            fixed = make_table(name, VP, ts, variant=variant, orders=orders, inner="fixed")
            np.testing.assert_allclose(free.rows, fixed.rows, rtol=1e-9, atol=1e-9)
    uneven = make_table("dpmpp_2s", VP, TS, inner="fixed")
    lam = VP.lam(TS)
    assert VP.lam(uneven.t[1]) == pytest.approx(0.5 * (lam[0] + lam[2]), rel=1e-9)


@pytest.mark.parametrize("table", TABLES, ids=IDS)
def test_rows_are_consistent(table: SolverTable) -> None:
    """From alpha c + sigma n and a model that answers c or n, an ODE solver goes to alpha_t c + sigma_t n.

    An SDE solver keeps the factor of c, and the variance: kept n and fresh noise together give sigma_t^2.
    The run is carried as coefficients over (c, n, draw 0, draw 1, ...).
    """
    basis = np.eye(2 + len(table))
    c, n, draws = basis[0], basis[1], list(basis[2:])
    value = {"x0": c, "eps": n, "velocity": n - c}
    start = table.alpha[0] * c + table.sigma[0] * n

    def target(e: int, x: np.ndarray) -> np.ndarray:
        if table.target[e] == "x0" or not table.noise.any():
            return value[table.target[e]]
        return (x - table.alpha[e] * c) / table.sigma[e]

    for e, x in enumerate(run_table(table, start, target, draws)):
        assert x[0] == pytest.approx(table.alpha_next[e], rel=1e-12, abs=1e-12)
        if table.noise.any():
            # each step renews part of the noise, so the sum of squares is what stays right
            assert (x[1:] ** 2).sum() == pytest.approx(table.sigma_next[e] ** 2, rel=1e-11, abs=1e-13)
        else:
            assert x[1] == pytest.approx(table.sigma_next[e], rel=1e-11, abs=1e-12)


def test_consistency_notices_a_sign_error() -> None:
    table = make_table("dpmpp_3m", VP, TS)
    rows = table.rows.copy()
    rows[3, 0, 5:7] *= -1.0
    with pytest.raises(AssertionError):
        test_rows_are_consistent(dataclasses.replace(table, rows=rows))


def test_flow_shift_is_a_shift_of_lambda() -> None:
    """A shifted schedule on uniform times is the plain one on shifted times."""
    plain, shifted = FlowMatching(), FlowMatching(3.0)
    ts = timesteps(shifted, 6)
    for name in ("euler", "heun", "dpmpp_2m"):
        a = make_table(name, shifted, ts).bind("velocity")
        b = make_table(name, plain, timesteps(plain, 6, "flow", shift=3.0)).bind("velocity")
        np.testing.assert_allclose(a.rows, b.rows, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(a.conv, b.conv, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(a.t_eval, b.t_eval, rtol=1e-12, atol=1e-15)
