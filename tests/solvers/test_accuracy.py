"""Errors on the Gaussian mixture, through the real `sample`: golden tables, convergence orders, evaluation
counts."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from fastdiff_ops.schedules import VE, FlowMatching, NoiseSchedule, VPLinear, timesteps
from fastdiff_ops.solvers import make_table, sample, singlestep_times
from problems import PROBLEMS, MixtureModel, exact_solution, mixture_expectations, rms, start_points

# RMS error at N = 5, 10, 20, 40; A: VP linear, time_uniform; B: VP linear, logSNR; C: VE, karras
GOLDEN: dict[tuple[str, str, str], tuple[float, ...]] = {
    ("A", "ddim", ""): (2.3038e-01, 1.0087e-01, 5.4443e-02, 2.8417e-02),
    ("A", "dpm_solver_2m", "midpoint"): (2.0341e-01, 8.4849e-02, 4.2557e-02, 1.1509e-02),
    ("A", "dpmpp_2m", "midpoint"): (2.0160e-01, 8.3830e-02, 4.7033e-02, 1.0101e-02),
    ("A", "dpmpp_2m", "heun"): (1.9776e-01, 8.5701e-02, 4.8678e-02, 9.1440e-03),
    ("A", "dpmpp_3m", "reference"): (1.9949e-01, 8.8502e-02, 5.3835e-02, 7.3589e-03),
    ("A", "dpmpp_3m", "exact"): (1.9597e-01, 9.2376e-02, 5.6658e-02, 7.3914e-03),
    ("A", "dpmpp_2s", ""): (2.1178e-01, 1.6797e-01, 2.8321e-02, 8.0078e-03),
    ("A", "dpmpp_3s", ""): (5.5258e-01, 8.7207e-02, 2.3442e-02, 7.9316e-03),
    ("A", "dpm_solver_3s", ""): (2.4846e00, 1.1211e-01, 1.2679e-01, 1.1056e-02),
    ("B", "ddim", ""): (2.6104e-01, 1.3749e-01, 6.9029e-02, 3.4397e-02),
    ("B", "dpm_solver_2m", "midpoint"): (1.0360e-01, 3.7441e-02, 1.4424e-02, 4.9438e-03),
    ("B", "dpmpp_2m", "midpoint"): (1.1148e-01, 6.2498e-02, 1.5263e-02, 4.3044e-03),
    ("B", "dpmpp_2m", "taylor"): (1.8476e-01, 9.7248e-02, 1.9927e-02, 4.8185e-03),
    ("B", "dpmpp_3m", "reference"): (1.6234e-01, 5.4501e-02, 9.5550e-03, 2.0857e-03),
    ("B", "dpmpp_3m", "exact"): (2.4587e-01, 5.4643e-02, 1.1748e-02, 1.9971e-03),
    ("B", "dpmpp_2s", ""): (1.8671e-01, 9.8247e-02, 3.1574e-02, 9.9595e-03),
    ("B", "dpmpp_3s", ""): (3.3905e-01, 3.3295e-02, 1.6385e-02, 3.7375e-03),
    ("B", "dpm_solver_3s", ""): (9.9326e-01, 1.8935e-01, 3.3669e-02, 4.1598e-03),
    ("C", "ddim", ""): (3.3110e-01, 1.4888e-01, 7.3768e-02, 3.6566e-02),
    ("C", "dpm_solver_2m", "midpoint"): (1.9440e-01, 3.5033e-02, 1.3726e-02, 4.8442e-03),
    ("C", "dpmpp_2m", "midpoint"): (2.1364e-01, 1.3319e-01, 2.7065e-02, 6.0764e-03),
    ("C", "dpmpp_2m", "heun"): (3.0967e-01, 2.1120e-01, 3.7685e-02, 7.4443e-03),
    ("C", "dpmpp_3m", "reference"): (2.3868e-01, 1.6942e-01, 2.6364e-02, 2.9083e-03),
    ("C", "dpmpp_3m", "exact"): (3.5063e-01, 1.9776e-01, 3.9891e-02, 3.6593e-03),
}

solution = functools.cache(exact_solution)


def error(
    schedule: NoiseSchedule,
    ts: np.ndarray,
    name: str,
    prediction: str = "eps",
    dtype=torch.float64,
    **options,
) -> tuple[float, int]:
    """RMS error against the exact solution, and the number of model evaluations."""
    model = MixtureModel(schedule, prediction)
    x = start_points(schedule).to(dtype)
    result = sample(model, x, make_table(name, schedule, ts, **options), prediction_type=prediction)
    assert result.dtype == dtype
    return rms(result, solution(schedule)), model.calls


def nodes(problem: str, name: str, n: int) -> np.ndarray:
    schedule, spacing = PROBLEMS[problem]
    if spacing == "logSNR" and name.endswith("s"):
        return singlestep_times(schedule, n, int(name[-2]))
    return timesteps(schedule, n, spacing)


def test_problem_matches_its_reference_values() -> None:
    x0, eps = mixture_expectations(torch.tensor([[0.3, -0.2]], dtype=torch.float64), 0.8, 0.6)
    assert x0[0].tolist() == pytest.approx([0.9860135046, -0.1136783739], abs=1e-10)
    assert eps[0].tolist() == pytest.approx([-0.8146846728, -0.1817621681], abs=1e-10)
    for schedule, first, total, squares in [
        (VPLinear(), (2.21846122, 0.00269718), 7.066212394, 41.342136016),
        (VE(), (2.21753183, 0.00255926), 7.044977794, 41.326735054),
        (FlowMatching(), (2.21878726, 0.00285238), 7.090529804, 41.359410409),
    ]:
        x = solution(schedule)
        assert x[0].tolist() == pytest.approx(first, abs=1e-8)
        assert float(x.sum()) == pytest.approx(total, abs=2e-9)
        assert float(x.square().sum()) == pytest.approx(squares, abs=2e-8)


@pytest.mark.parametrize(("problem", "name", "variant"), GOLDEN, ids=str)
def test_golden_errors(problem: str, name: str, variant: str) -> None:
    options = {"variant": variant} if variant else {}
    for n, expected in zip((5, 10, 20, 40), GOLDEN[problem, name, variant], strict=True):
        value, calls = error(PROBLEMS[problem][0], nodes(problem, name, n), name, **options)
        assert value == pytest.approx(expected, rel=1e-4)
        assert calls == n


@pytest.mark.parametrize("prediction", ["x0", "v", "score", "velocity"])
def test_prediction_type_does_not_matter(prediction: str) -> None:
    expected = GOLDEN["B", "dpmpp_2m", "midpoint"][1]
    value, _ = error(VPLinear(), timesteps(VPLinear(), 10, "logSNR"), "dpmpp_2m", prediction)
    assert value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "dpmpp_3m", "dpmpp_3s"])
def test_float32_storage_keeps_the_errors(name: str) -> None:
    variant = {"dpmpp_2m": "midpoint", "dpmpp_3m": "exact"}.get(name, "")
    for n, expected in zip((5, 10, 20, 40), GOLDEN["B", name, variant], strict=True):
        value, _ = error(VPLinear(), nodes("B", name, n), name, dtype=torch.float32)
        assert value == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(
    ("name", "shift", "options", "expected"),
    [
        ("euler", 1.0, {}, (0.130493, 0.067853, 0.034918, 0.017725)),
        ("heun", 1.0, {"correct_final": True}, (0.0155745, 0.00557195, 0.00175129, 0.000493371)),
        ("euler", 3.0, {}, (0.234593, 0.102673, 0.0548427, 0.0284781)),
        ("dpmpp_2m", 1.0, {}, (0.0788111, 0.0292558, 0.00211336, 0.00219476)),
    ],
)
def test_golden_errors_of_flow_matching(name: str, shift: float, options: dict, expected: tuple) -> None:
    for n, value in zip((5, 10, 20, 40), expected, strict=True):
        ts = timesteps(FlowMatching(), n, "flow", shift=shift)
        assert error(FlowMatching(), ts, name, "velocity", **options)[0] == pytest.approx(value, rel=1e-4)


def slope(schedule: NoiseSchedule, name: str, spacing: str, prediction: str = "eps", **options) -> float:
    """Observed order between N = 80 and N = 160."""
    errors = []
    for n in (80, 160):
        if spacing == "logSNR" and name.endswith("s"):
            ts = singlestep_times(schedule, n, int(name[-2]))
        else:
            ts = timesteps(schedule, n, spacing)
        errors.append(error(schedule, ts, name, prediction, **options)[0])
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("ddim", {}, 1.00),
        ("euler", {}, 1.00),
        ("dpmpp_2m", {}, 1.95),
        ("dpmpp_3m", {"variant": "reference"}, 2.33),
        ("dpmpp_3m", {"lower_order_final": False}, 3.32),
    ],
)
def test_orders_known_to_two_digits(name: str, options: dict, expected: float) -> None:
    assert slope(VPLinear(), name, "logSNR", **options) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("schedule", "name", "spacing", "prediction", "options", "lowest"),
    [
        (VPLinear(), "heun", "logSNR", "eps", {}, 1.9),
        (VPLinear(), "dpm_solver_2m", "logSNR", "eps", {}, 1.85),
        (VPLinear(), "dpmpp_2m", "logSNR", "eps", {"variant": "heun"}, 1.9),
        (VPLinear(), "dpm_solver_3m", "logSNR", "eps", {"lower_order_final": False}, 2.8),
        (VPLinear(), "dpmpp_2s", "logSNR", "eps", {}, 1.8),
        (VPLinear(), "dpm_solver_2s", "logSNR", "eps", {}, 1.8),
        (VPLinear(), "dpmpp_2s", "logSNR", "eps", {"variant": "taylor"}, 1.8),
        (VPLinear(), "dpmpp_3s", "logSNR", "eps", {"orders": None}, 2.6),
        (VPLinear(), "dpmpp_3s", "logSNR", "eps", {"variant": "taylor"}, 2.6),
        (VPLinear(), "dpm_solver_3s", "logSNR", "eps", {}, 2.6),
        (FlowMatching(), "heun", "time_uniform", "velocity", {}, 1.9),
        (FlowMatching(), "heun", "time_uniform", "velocity", {"correct_final": True}, 1.9),
        (VE(), "heun", "karras", "eps", {}, 1.9),
    ],
)
def test_orders(schedule, name: str, spacing: str, prediction: str, options: dict, lowest: float) -> None:
    measured = slope(schedule, name, spacing, prediction, **options)
    assert lowest <= measured


@pytest.mark.parametrize(
    ("name", "n", "final", "expected"),
    [
        ("euler", 7, None, 7),
        ("heun", 7, None, 14),
        ("heun", 7, "zero", 13),
        ("dpmpp_2s", 7, None, 7),
        ("dpmpp_3s", 7, "zero", 7),
        ("dpmpp_3m_sde", 7, "zero", 7),
    ],
)
def test_evaluation_counts(name: str, n: int, final: str | None, expected: int) -> None:
    _, calls = error(VE(), timesteps(VE(), n, "karras", final_sigma=final), name)
    assert calls == expected
