"""DEIS, iPNDM, momentum, UniPC and DC-Solver: golden errors and rows, identities, orders, bad input."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from fastdiff_ops.ops import Row
from fastdiff_ops.schedules import VE, FlowMatching, NoiseSchedule, VPLinear, timesteps
from fastdiff_ops.solvers import SolverTable, make_table, sample
from fastdiff_ops.solvers.momentum import stability_limit
from problems import PROBLEMS, MixtureModel, exact_solution, rms, start_points

VP = VPLinear()
solution = functools.cache(exact_solution)

OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "deis tAB1": ("deis_tab1", {}),
    "deis tAB2": ("deis_tab2", {}),
    "deis tAB3": ("deis_tab3", {}),
    "deis rhoAB1": ("deis_rhoab1", {}),
    "deis rhoAB2": ("deis_rhoab2", {}),
    "deis rhoAB3": ("deis_rhoab3", {}),
    "deis log-rhoAB1": ("deis_logrhoab1", {}),
    "deis log-rhoAB2": ("deis_logrhoab2", {}),
    "ipndm4": ("ipndm", {}),
    "ghvb 1.8": ("ghvb", {"order": 1.8}),
    "ghvb 2.0": ("ghvb", {"order": 2.0}),
    "ghvb 2.8": ("ghvb", {"order": 2.8}),
    "ghvb 3.8": ("ghvb", {"order": 3.8}),
    "ghvb 4.0": ("ghvb", {"order": 4.0}),
    "plms4+hb(0.8)": ("plms_hb", {"order": 4, "beta": 0.8}),
    "plms2+hb(0.8)": ("plms_hb", {"order": 2, "beta": 0.8}),
    "unip2 bh1": ("unip", {"order": 2, "variant": "bh1"}),
    "unipc2 bh1": ("unipc", {"order": 2, "variant": "bh1"}),
    "unip2 bh2": ("unip", {"order": 2}),
    "unipc2 bh2": ("unipc", {"order": 2}),
    "unip3 bh1": ("unip", {"order": 3, "variant": "bh1"}),
    "unipc3 bh1": ("unipc", {"order": 3, "variant": "bh1"}),
    "unip3 bh2": ("unip", {"order": 3}),
    "unipc3 bh2": ("unipc", {"order": 3}),
    "unipc3 bh2 dc=1.1": ("dc_unipc", {"order": 3}),
}

# RMS error at N = 5, 10, 20, 40
GOLDEN: dict[tuple[str, str], tuple[float, ...]] = {
    ("A", "deis tAB1"): (1.8294e-01, 7.3172e-02, 2.2366e-02, 6.5599e-03),
    ("A", "deis tAB2"): (2.7219e-01, 8.8521e-02, 1.0730e-02, 1.6455e-03),
    ("A", "deis tAB3"): (3.5419e-01, 1.2398e-01, 1.5323e-02, 3.8769e-04),
    ("A", "deis rhoAB1"): (1.6854e-01, 7.4868e-02, 2.3765e-02, 6.8011e-03),
    ("A", "deis rhoAB2"): (1.6707e-01, 8.1035e-02, 1.2610e-02, 1.8024e-03),
    ("A", "deis rhoAB3"): (1.6794e-01, 9.2719e-02, 1.5178e-02, 7.1327e-04),
    ("A", "deis log-rhoAB1"): (2.9327e-01, 1.1283e-01, 8.4617e-03, 7.8859e-03),
    ("A", "deis log-rhoAB2"): (6.3860e-01, 4.1734e-01, 1.0335e-01, 8.2599e-03),
    ("A", "ipndm4"): (3.6815e-01, 1.2002e-01, 1.4050e-02, 7.9774e-04),
    ("A", "unip2 bh1"): (1.8909e-01, 9.2824e-02, 5.3361e-02, 7.5125e-03),
    ("A", "unipc2 bh1"): (1.8446e-01, 9.7220e-02, 4.8863e-02, 5.9040e-03),
    ("A", "unip2 bh2"): (2.0160e-01, 8.3830e-02, 4.7033e-02, 1.0101e-02),
    ("A", "unipc2 bh2"): (1.9376e-01, 8.8095e-02, 4.5742e-02, 8.9537e-03),
    ("A", "unip3 bh1"): (1.8864e-01, 9.9314e-02, 5.8209e-02, 6.9620e-03),
    ("A", "unipc3 bh1"): (1.8455e-01, 9.9856e-02, 5.0991e-02, 5.9129e-03),
    ("A", "unip3 bh2"): (1.9915e-01, 8.9911e-02, 5.6106e-02, 7.8025e-03),
    ("A", "unipc3 bh2"): (1.9336e-01, 9.1054e-02, 4.9441e-02, 8.1363e-03),
    ("A", "unipc3 bh2 dc=1.1"): (1.7355e-01, 9.1053e-02, 4.2201e-02, 4.8828e-03),
    ("A", "ghvb 1.8"): (1.7247e-01, 7.3258e-02, 2.6342e-02, 8.3221e-03),
    ("A", "ghvb 2.0"): (1.8838e-01, 7.2675e-02, 2.2836e-02, 6.9105e-03),
    ("A", "ghvb 2.8"): (2.6535e-01, 8.2645e-02, 1.2074e-02, 2.3520e-03),
    ("A", "ghvb 3.8"): (3.5329e-01, 1.1230e-01, 1.2286e-02, 8.7857e-04),
    ("A", "ghvb 4.0"): (3.6815e-01, 1.2002e-01, 1.4050e-02, 7.9774e-04),
    ("A", "plms4+hb(0.8)"): (2.5223e-01, 9.2715e-02, 2.6748e-02, 1.2678e-02),
    ("A", "plms2+hb(0.8)"): (1.7331e-01, 7.8816e-02, 3.7986e-02, 1.7649e-02),
    ("B", "deis tAB1"): (1.5286e-01, 6.3884e-02, 2.2452e-02, 7.1435e-03),
    ("B", "deis tAB2"): (1.0736e-01, 4.2681e-02, 1.2173e-02, 2.7894e-03),
    ("B", "deis tAB3"): (1.0156e-01, 3.7336e-02, 8.2251e-03, 1.3060e-03),
    ("B", "deis rhoAB1"): (2.2262e-01, 9.0889e-02, 3.1853e-02, 1.0136e-02),
    ("B", "deis rhoAB2"): (2.1758e-01, 7.9753e-02, 2.2740e-02, 5.2991e-03),
    ("B", "deis rhoAB3"): (2.1703e-01, 7.6142e-02, 1.9207e-02, 3.5289e-03),
    ("B", "deis log-rhoAB1"): (1.0881e-01, 4.7797e-02, 1.7354e-02, 5.7479e-03),
    ("B", "deis log-rhoAB2"): (9.3209e-02, 3.0582e-02, 1.0259e-02, 2.4580e-03),
    ("B", "ipndm4"): (2.0449e-01, 2.7873e-02, 7.3969e-03, 1.1888e-03),
    ("B", "unip2 bh1"): (4.8810e-01, 2.1022e-01, 3.4166e-02, 6.9149e-03),
    ("B", "unipc2 bh1"): (4.6782e-01, 1.1524e-01, 9.5789e-03, 1.8269e-03),
    ("B", "unip2 bh2"): (1.1148e-01, 6.2498e-02, 1.5263e-02, 4.3044e-03),
    ("B", "unipc2 bh2"): (1.2766e-01, 4.7484e-02, 9.3991e-03, 2.2326e-03),
    ("B", "unip3 bh1"): (4.9061e-01, 5.3018e-02, 1.1743e-02, 1.9983e-03),
    ("B", "unipc3 bh1"): (4.6886e-01, 5.2233e-02, 9.0444e-03, 8.2990e-04),
    ("B", "unip3 bh2"): (1.7410e-01, 5.5533e-02, 1.1750e-02, 1.9966e-03),
    ("B", "unipc3 bh2"): (1.7854e-01, 5.0463e-02, 9.0051e-03, 8.2940e-04),
    ("B", "unipc3 bh2 dc=1.1"): (3.1002e-01, 7.3123e-02, 6.9791e-03, 3.6431e-03),
    ("B", "ghvb 1.8"): (9.3876e-02, 4.4015e-02, 1.6802e-02, 5.9216e-03),
    ("B", "ghvb 2.0"): (8.8060e-02, 3.7789e-02, 1.4465e-02, 4.9503e-03),
    ("B", "ghvb 2.8"): (1.4233e-01, 2.8921e-02, 9.3668e-03, 2.3170e-03),
    ("B", "ghvb 3.8"): (1.9743e-01, 2.8266e-02, 7.6575e-03, 1.2606e-03),
    ("B", "ghvb 4.0"): (2.0449e-01, 2.7873e-02, 7.3969e-03, 1.1888e-03),
    ("B", "plms4+hb(0.8)"): (1.0480e-01, 4.5592e-02, 2.7883e-02, 1.4729e-02),
    ("B", "plms2+hb(0.8)"): (1.5976e-01, 8.3731e-02, 4.0006e-02, 1.9058e-02),
    ("C", "deis tAB1"): (2.8906e-01, 9.5370e-02, 3.3105e-02, 1.0374e-02),
    ("C", "deis tAB2"): (2.7993e-01, 8.0843e-02, 2.2730e-02, 5.3311e-03),
    ("C", "deis tAB3"): (2.7766e-01, 7.5173e-02, 1.8505e-02, 3.5649e-03),
    ("C", "deis rhoAB1"): (2.8906e-01, 9.5370e-02, 3.3105e-02, 1.0374e-02),
    ("C", "deis rhoAB2"): (2.7993e-01, 8.0843e-02, 2.2730e-02, 5.3311e-03),
    ("C", "deis rhoAB3"): (2.7766e-01, 7.5173e-02, 1.8505e-02, 3.5649e-03),
    ("C", "deis log-rhoAB1"): (1.8289e-01, 4.5223e-02, 1.6514e-02, 5.5448e-03),
    ("C", "deis log-rhoAB2"): (1.9205e-01, 2.9852e-02, 1.0419e-02, 2.8403e-03),
    ("C", "ipndm4"): (2.8247e-01, 3.5364e-02, 9.1860e-03, 1.6420e-03),
    ("C", "unip2 bh1"): (7.8502e-01, 4.9770e-01, 6.8132e-02, 1.1120e-02),
    ("C", "unipc2 bh1"): (7.9210e-01, 3.9982e-01, 2.3801e-02, 3.1179e-03),
    ("C", "unip2 bh2"): (2.1364e-01, 1.3319e-01, 2.7065e-02, 6.0764e-03),
    ("C", "unipc2 bh2"): (2.2369e-01, 1.2434e-01, 1.3039e-02, 3.0463e-03),
    ("C", "unip3 bh1"): (7.9478e-01, 2.3750e-01, 3.9864e-02, 3.6600e-03),
    ("C", "unipc3 bh1"): (8.0009e-01, 2.2051e-01, 2.1148e-02, 1.5067e-03),
    ("C", "unip3 bh2"): (2.4553e-01, 1.8512e-01, 3.9912e-02, 3.6590e-03),
    ("C", "unipc3 bh2"): (2.5329e-01, 1.6541e-01, 2.2714e-02, 1.5045e-03),
    ("C", "unipc3 bh2 dc=1.1"): (3.8766e-01, 2.3363e-01, 1.7878e-02, 3.7371e-03),
    ("C", "ghvb 1.8"): (1.8472e-01, 4.9267e-02, 1.8403e-02, 6.3353e-03),
    ("C", "ghvb 2.0"): (1.7344e-01, 4.1979e-02, 1.5839e-02, 5.4037e-03),
    ("C", "ghvb 2.8"): (1.9922e-01, 3.1729e-02, 1.0276e-02, 2.9970e-03),
    ("C", "ghvb 3.8"): (2.7079e-01, 3.3922e-02, 9.3011e-03, 1.8032e-03),
    ("C", "ghvb 4.0"): (2.8247e-01, 3.5364e-02, 9.1860e-03, 1.6420e-03),
    ("C", "plms4+hb(0.8)"): (1.8295e-01, 4.7909e-02, 3.1334e-02, 1.6086e-02),
    ("C", "plms2+hb(0.8)"): (2.4231e-01, 9.0722e-02, 4.2803e-02, 2.0197e-02),
}


def options_of(label: str, n: int) -> tuple[str, dict[str, Any]]:
    name, options = OPTIONS[label]
    if name == "dc_unipc":
        options = {**options, "ratios": [1.0, 1.0] + [1.1] * (n - 2)}
    return name, options


def error(schedule: NoiseSchedule, table: SolverTable, dtype: torch.dtype = torch.float64) -> float:
    model = MixtureModel(schedule, "eps")
    result = sample(model, start_points(schedule).to(dtype), table, prediction_type="eps")
    assert model.calls == len(table)
    return rms(result, solution(schedule))


@pytest.mark.parametrize(("problem", "label"), GOLDEN, ids=str)
def test_golden_errors(problem: str, label: str) -> None:
    schedule, spacing = PROBLEMS[problem]
    for n, expected in zip((5, 10, 20, 40), GOLDEN[problem, label], strict=True):
        name, options = options_of(label, n)
        table = make_table(name, schedule, timesteps(schedule, n, spacing), **options)
        assert len(table) == n
        assert error(schedule, table) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "label", ["deis tAB2", "ghvb 1.8", "plms4+hb(0.8)", "unipc3 bh2", "unipc3 bh2 dc=1.1"]
)
def test_float32_storage_keeps_the_errors(label: str) -> None:
    name, options = options_of(label, 10)
    table = make_table(name, VP, timesteps(VP, 10, "logSNR"), **options)
    assert error(VP, table, torch.float32) == pytest.approx(GOLDEN["B", label][1], rel=1e-2)


# ---- golden rows: the step from t = .493439534 to .140636414, half-logSNR -1.19190107 to .724637597

SHORT = timesteps(VP, 5, "logSNR")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        (
            "ghvb",
            {"order": 1.8},
            Row(state=3.09741354, output=-3.538886186, history=(1.011110339,)),
        ),
        (
            "deis_tab2",
            {},
            Row(state=3.09741354, output=-4.744290018, history=(3.709532618, -1.493018447)),
        ),
    ],
)
def test_golden_rows(name: str, options: dict[str, Any], expected: Row) -> None:
    row = make_table(name, VP, SHORT, **options).step(2).state
    np.testing.assert_allclose(row.to_array(), expected.to_array(), rtol=2e-9)


def test_golden_rows_of_unipc() -> None:
    step = make_table("unipc", VP, SHORT, order=3).step(2)
    corrected = Row(anchor=0.9578156294, output=0.1417613373, history=(0.1255269996, -0.01948719163))
    assert isinstance(step.anchor, Row)
    np.testing.assert_allclose(step.anchor.to_array(), corrected.to_array(), rtol=2e-9)
    expanded = step.state.to_array() + step.state.corrected * step.anchor.to_array()
    expanded[4] = 0.0
    whole = Row(anchor=0.4364544685, output=1.770686854, history=(-1.320440593, 0.4302136224))
    np.testing.assert_allclose(expanded, whole.to_array(), rtol=2e-9)


def test_golden_stored_velocity() -> None:
    assert make_table("ghvb", VP, SHORT, order=1.8).step(2).store == (
        Row(output=pytest.approx(0.8), history=(pytest.approx(0.2),)),
    )


# ---- identities


def result(name: str, schedule: NoiseSchedule = VP, ts: Any = None, **options: Any) -> torch.Tensor:
    ts = timesteps(schedule, 7, "time_uniform") if ts is None else ts
    table = make_table(name, schedule, ts, **options)
    return sample(MixtureModel(schedule, "eps"), start_points(schedule), table, prediction_type="eps")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ghvb", {"order": 1}), ("ddim", {})),
        (("unip", {"order": 1}), ("ddim", {})),
        (("unip", {"order": 1, "prediction": "eps"}), ("ddim", {})),
        (("ipndm", {"order": 1}), ("ddim", {})),
        (("unip", {"order": 2}), ("dpmpp_2m", {})),
        (("unip", {"order": 3, "variant": "vary"}), ("dpmpp_3m", {})),
        (("unip", {"order": 3, "variant": "vary", "prediction": "eps"}), ("dpm_solver_3m", {})),
        (
            ("deis_logrhoab2", {}),
            ("dpm_solver_3m", {"lower_order_final": False}),
        ),
        (("ghvb", {"order": 4.0}), ("ipndm", {})),
        (("plms_hb", {"beta": 1.0}), ("ipndm", {})),
        (("plms_nesterov", {"beta": 1.0}), ("ipndm", {})),
        (("dpmpp_2m_hb", {"beta": 1.0}), ("dpmpp_2m", {})),
        (("dc_unipc", {"ratios": [1.0] * 7}), ("unipc", {"order": 3})),
        (
            ("dc_unipc", {"ratios": [1.0] * 7, "order": 2, "corrector": False}),
            ("dpmpp_2m", {}),
        ),
    ],
)
def test_solvers_that_are_one(one: tuple[str, dict[str, Any]], other: tuple[str, dict[str, Any]]) -> None:
    torch.testing.assert_close(result(one[0], **one[1]), result(other[0], **other[1]), rtol=1e-12, atol=1e-12)


def test_ratios_of_one_give_the_same_bits() -> None:
    ts = timesteps(VP, 7, "time_uniform")
    dc = make_table("dc_unipc", VP, ts, ratios=[1.0] * 7, order=3)
    assert np.array_equal(dc.rows, make_table("unipc", VP, ts, order=3).rows)


def test_a_fractional_order_is_plms_where_it_is_whole() -> None:
    for n in (1, 2, 3, 4):
        ghvb = make_table("ghvb", VP, timesteps(VP, 7, "time_uniform"), order=float(n))
        plms = make_table("ipndm", VP, timesteps(VP, 7, "time_uniform"), order=n)
        np.testing.assert_allclose(ghvb.rows[:, 0], plms.rows[:, 0], rtol=1e-13, atol=1e-13)


def test_on_exploding_schedules_t_is_rho() -> None:
    ts = timesteps(VE(), 7, "karras")
    for degree in (1, 2, 3):
        a, b = (make_table(f"deis_{kind}ab{degree}", VE(), ts).rows for kind in ("t", "rho"))
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options"),
    [("unipc", {"order": 3}), ("deis_rhoab2", {}), ("ghvb", {"order": 1.8}), ("deis_rhork3", {})],
)
def test_variance_preserving_equals_exploding(name: str, options: dict[str, Any]) -> None:
    """On the same half-logSNR nodes, x_vp / alpha = x_ve."""
    ve = VE(sigma_min=float(VP.nsr(1e-3)), sigma_max=float(VP.nsr(1.0)))
    ts = timesteps(VP, 7, "time_uniform")
    sigmas = VP.nsr(ts)
    sigmas[0], sigmas[-1] = ve.T, ve.t0
    x = start_points(VP)
    model_vp, model_ve = MixtureModel(VP, "eps"), MixtureModel(ve, "eps")
    x_vp = sample(model_vp, x, make_table(name, VP, ts, **options), prediction_type="eps")
    x_ve = sample(model_ve, x / VP.alpha(1.0), make_table(name, ve, sigmas, **options), prediction_type="eps")
    torch.testing.assert_close(x_vp / VP.alpha(1e-3), x_ve, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("abscissa", ["t", "rho", "logrho"])
def test_weights_of_deis_add_up_to_ddim(abscissa: str) -> None:
    ts = timesteps(VP, 9, "time_uniform")
    ddim = make_table("ddim", VP, ts, prediction="eps").rows[:, 0, 2]
    rows = make_table(f"deis_{abscissa}ab2", VP, ts).rows[:, 0]
    np.testing.assert_allclose(rows[:, 2] + rows[:, 5:].sum(1), ddim, rtol=1e-12)


# ---- orders


def slope(name: str, **options: Any) -> float:
    """Observed order between N = 80 and N = 160."""
    errors = [error(VP, make_table(name, VP, timesteps(VP, n, "logSNR"), **options)) for n in (80, 160)]
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize(
    ("name", "options", "lowest", "highest"),
    [
        ("unipc", {"order": 2}, 2.9, 3.3),
        ("unip", {"order": 2}, 1.8, 2.3),
        ("unip", {"order": 3, "lower_order_final": False}, 2.8, 3.6),
        ("deis_logrhoab2", {}, 2.7, 3.6),
        ("deis_rhork2", {}, 1.8, 2.4),
        ("deis_rhork3", {}, 2.6, 3.6),
        ("ghvb", {"order": 1.5}, 0.9, 2.2),
        ("plms_hb", {}, 0.8, 1.3),
        ("ipndm", {}, 1.8, 4.5),
    ],
)
def test_orders(name: str, options: dict[str, Any], lowest: float, highest: float) -> None:
    assert lowest <= slope(name, **options) <= highest


# ---- stability


@pytest.mark.parametrize(
    ("method", "n", "beta", "expected"),
    [
        *[("plms", n, 1.0, limit) for n, limit in ((1, 2.0), (2, 1.0), (3, 6 / 11), (4, 0.3))],
        *[("plms_hb", n, 0.8, 1.5 * limit) for n, limit in ((1, 2.0), (2, 1.0), (3, 6 / 11), (4, 0.3))],
        ("plms_hb", 2, 0.5, 3.0),
        ("ghvb", 1, 0.8, 3.0),
        ("ghvb", 2, 0.8, 1.2),
        ("ghvb", 2, 0.5, 1.5),
        *[("ghvb", 3, beta, 2 * (2 - beta) / (4 - beta / 3)) for beta in (0.2, 0.5, 0.8)],  # a root at -1
        *[("ghvb", 4, beta, 3 * (2 - beta) / (11 - beta)) for beta in (0.2, 0.5, 0.8)],
    ],
)
def test_stability_limits(method: str, n: int, beta: float, expected: float) -> None:
    assert stability_limit(method, n, beta) == pytest.approx(expected, abs=1e-6)


def amplitude(name: str, **options: Any) -> float:
    """|x| after 200 steps of x' = -x with steps of 1.1: a model on VE whose noise is x itself."""
    sigmas = 300.0 - 1.1 * np.arange(201)
    schedule = VE(sigma_min=1.0, sigma_max=300.0)
    table = make_table(name, schedule, sigmas, **options)
    x = torch.ones(1, 1, dtype=torch.float64)
    return float(sample(lambda x, t: -x * -1.0, x, table, prediction_type="eps").abs().max())


def test_momentum_prevents_divergence() -> None:
    """Beyond the limit of PLMS-2, 1.0, and within that of GHVB 1.8, 1.2."""
    assert amplitude("ipndm", order=2) > 1e6
    assert amplitude("ghvb", order=1.8) < 1e-3


# ---- limits and bad input


@pytest.mark.parametrize(
    "name", ["unipc", "deis_tab3", "deis_logrhoab2", "deis_rhork3", "ghvb", "plms_hb", "ipndm"]
)
def test_the_last_step_may_end_at_the_data(name: str) -> None:
    ts = timesteps(VE(), 6, "karras", final_sigma="zero")
    table = make_table(name, VE(), ts)
    assert np.isfinite(table.rows).all()
    x = sample(MixtureModel(VE(), "eps"), start_points(VE()), table, prediction_type="eps")
    assert rms(x, solution(VE())) < 0.6


@pytest.mark.parametrize("variant", ["bh1", "bh2", "vary"])
def test_unipc_starts_at_pure_noise(variant: str) -> None:
    ts = timesteps(FlowMatching(), 12, "time_uniform")
    table = make_table("unipc", FlowMatching(), ts, order=3, variant=variant)
    assert np.isfinite(table.rows).all()
    model = MixtureModel(FlowMatching(), "velocity")
    x = sample(model, start_points(FlowMatching()), table, prediction_type="velocity")
    assert rms(x, solution(FlowMatching())) < 0.1


@pytest.mark.parametrize(
    ("name", "options", "error_type", "message"),
    [
        ("unipc", {"order": 5}, ValueError, "`order`"),
        ("unipc", {"order": 2.0}, TypeError, "`order`"),
        ("unipc", {"variant": "bh3"}, ValueError, "`variant`"),
        ("unipc", {"prediction": "v"}, ValueError, "`prediction`"),
        ("unipc", {"disable_corrector": [7]}, ValueError, "`disable_corrector`"),
        ("unipc", {"disable_corrector": "all"}, TypeError, "`disable_corrector`"),
        ("dc_unipc", {"ratios": [1.0] * 6}, ValueError, "`ratios`"),
        ("dc_unipc", {"ratios": [1.0] * 6 + [math.nan]}, ValueError, "`ratios`"),
        ("dc_unipc", {"ratios": [1.1] * 7}, ValueError, "`ratios`"),
        ("dc_unipc", {"ratios": 1.1}, TypeError, "`ratios`"),
        ("dc_unipc", {"ratios": [1.0] * 7, "dc_order": 5}, ValueError, "`order`"),
        ("ghvb", {"order": 5.5}, ValueError, "`order`"),
        ("ghvb", {"order": 0.01}, ValueError, "`order`"),
        ("ghvb", {"order": "2"}, TypeError, "`order`"),
        ("plms_hb", {"beta": 0.0}, ValueError, "`beta`"),
        ("plms_hb", {"beta": 1.5}, ValueError, "`beta`"),
        ("plms_nesterov", {"order": 5}, ValueError, "`order`"),
        ("ipndm", {"order": 0}, ValueError, "`order`"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], error_type: type[Exception], message: str) -> None:
    with pytest.raises(error_type, match=message):
        make_table(name, VP, timesteps(VP, 7, "time_uniform"), **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("euler", 1), "`method`"), (("plms", 5), "`order`"), (("ghvb", 2, 0.0), "`beta`")],
)
def test_bad_arguments_of_the_limit(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stability_limit(*arguments)


def test_some_steps_without_corrector() -> None:
    ts = timesteps(VP, 7, "time_uniform")
    all_off = make_table("unipc", VP, ts, order=2, disable_corrector=list(range(7)))
    torch.testing.assert_close(
        sample(MixtureModel(VP, "eps"), start_points(VP), all_off, prediction_type="eps"),
        result("unip", order=2),
        rtol=1e-12,
        atol=1e-12,
    )
    some = make_table("unipc", VP, ts, order=2, disable_corrector=[0, 3])
    assert [isinstance(some.step(i).anchor, Row) and some.step(i).anchor.anchor != 0 for i in range(7)] == [
        False, False, True, True, False, True, True,
    ]  # fmt: skip
