"""Solver tables as values: golden rows, printing, JSON, validation, binding."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from fastdiff_ops.ops import Row
from fastdiff_ops.schedules import EDM, VE, FlowMatching, VPLinear, timesteps
from fastdiff_ops.solvers import Call, SolverTable, make_table, solver
from solver_tables import IDS, TABLES

VP = VPLinear()
LOG_SNR = timesteps(VP, 5, "logSNR")


# VP linear, logSNR, N = 5, evaluation 2
@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("dpmpp_2m", Row(state=0.4556769122, output=1.151313934, history=(-0.3837713114,))),
        ("dpmpp_3m", Row(state=0.4556769122, output=1.706089485, history=(-1.377640348, 0.4390934857))),
        (
            "dpmpp_2m_sde",
            Row(state=0.06703704417, output=1.320689825, noise=0.4312754778, history=(-0.4402299417,)),
        ),
    ],
)
def test_golden_rows(name: str, row: Row) -> None:
    step = make_table(name, VP, LOG_SNR).step(2)
    assert (step.t, step.t_next) == pytest.approx((0.493439534, 0.140636414), abs=5e-10)
    np.testing.assert_allclose(step.state.to_array(), row.to_array(), rtol=1e-9)
    assert step.store == (Row(output=1.0),)
    assert step.anchor == "same"


@pytest.mark.parametrize("table", TABLES, ids=IDS)
def test_json_round_trip_is_exact(table: SolverTable) -> None:
    for candidate in (table, table.bind("v")):
        back = SolverTable.from_json(candidate.to_json())
        assert back == candidate
        assert back.rows.tobytes() == candidate.rows.tobytes()
        assert back.t_eval.tobytes() == candidate.t_eval.tobytes()
        assert (back.conv is None) == (candidate.conv is None)
    bound = table.bind("v")
    assert torch.equal(SolverTable.from_json(bound.to_json()).coefficients(), bound.coefficients())


def test_json_keeps_element_coefficients() -> None:
    table = make_table("ddim", VP, LOG_SNR)
    elem = np.random.default_rng(0).normal(size=(5, 2, 3, 1, 1))
    with_elements = dataclasses.replace(table, elem=elem, elem_map=(10, 64))
    assert SolverTable.from_json(with_elements.to_json()) == with_elements
    assert with_elements != table


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-3], "no JSON"),
        (lambda text: "[]", "format"),
        (lambda text: text.replace('"version": 1', '"version": 99'), "version 99"),
        (
            lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "rows"}),
            "no complete table",
        ),
        (lambda text: json.dumps({**json.loads(text), "surprise": 1}), "no complete table"),
        (lambda text: "[" * 100_000, "no JSON"),
        (lambda text: text.replace('"values": ["', '"values": ["0x1p99999", "', 1), "no complete table"),
        (lambda text: json.dumps({**json.loads(text), "t": {}}), "no complete table"),
        (lambda text: json.dumps({**json.loads(text), "n_hist": 2.5}), "no complete table"),
    ],
)
def test_bad_json(damage, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SolverTable.from_json(damage(make_table("ddim", VP, LOG_SNR).to_json()))


def test_equality_is_by_value() -> None:
    a, b = make_table("dpmpp_2m", VP, LOG_SNR), make_table("dpmpp_2m", VP, LOG_SNR)
    assert a == b
    assert a != a.bind("eps")
    assert a != make_table("dpmpp_2m", VP, LOG_SNR, variant="heun")
    assert a != "a table"
    with pytest.raises(TypeError, match="unhashable"):
        hash(a)


def test_arrays_are_read_only_copies() -> None:
    table = make_table("dpmpp_2m", VP, LOG_SNR)
    with pytest.raises(ValueError, match="read-only"):
        table.rows[0, 0, 0] = 1.0


def test_coefficients_are_the_callers_own() -> None:
    table = make_table("dpmpp_2m", VP, LOG_SNR).bind("v")
    for clip in (None, "static", "dynamic"):
        before = table.coefficients(clip=clip)
        table.coefficients(clip=clip).zero_()
        assert torch.equal(table.coefficients(clip=clip), before)


def test_options_are_a_read_only_copy() -> None:
    given: dict = {"orders": [2, 2, 1], "nested": [[1]]}
    table = dataclasses.replace(make_table("dpmpp_2s", VP, LOG_SNR), options=given)
    given["orders"].append(7)
    given["nested"][0].append(7)
    given["more"] = 1
    assert table.options == {"orders": (2, 2, 1), "nested": ((1,),)}
    with pytest.raises(TypeError):
        table.options["orders"] = (1,)  # type: ignore[index]
    assert SolverTable.from_json(table.to_json()) == table


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda table: pickle.loads(pickle.dumps(table))]
)
def test_copies_and_pickles_are_tables_like_any_other(duplicate) -> None:
    bound = make_table("dpmpp_2s", VP, LOG_SNR, orders=[2, 2, 1]).bind("v")
    back = duplicate(bound)
    assert back == bound
    assert torch.equal(back.coefficients(), bound.coefficients())
    with pytest.raises(ValueError, match="read-only"):
        back.rows[0, 0, 0] = 1.0


def test_text_names_the_terms() -> None:
    assert str(make_table("dpmpp_3m_sde", VP, LOG_SNR).bind("eps")).splitlines() == [
        "dpmpp_3m_sde(variant='exact', lower_order_final=True, eta=1.0) "
        "on VPLinear(beta_min=0.1, beta_max=20.0), eps model, 5 evaluations",
        "  t 1      -> 0.7856  x_next = 0.147 x + 0.04366 m + 0.9881 noise;  store0 = m",
        "  t 0.7856 -> 0.4934  x_next = 0.1409 x + 0.5006 m + 0.9465 noise - 0.2164 h[1];  store0 = m",
        "  t 0.4934 -> 0.1406  x_next = 0.06704 x + 2.161 m + 0.4313 noise - 1.891 h[1] + 0.6102 h[2];"
        "  store0 = m",
        "  t 0.1406 -> 0.0181  x_next = 0.02399 x + 1.719 m + 0.07032 noise - 0.7429 h[1]",
        "  t 0.0181 -> 0.001   x_next = 0.0217 x + 0.9783 m + 0.01037 noise",
        "where x the state at the evaluation, m the model output as x0, noise standard normal, "
        "h[k] what was stored k values ago",
    ]
    heun = str(make_table("heun", VE(), [80.0, 1.0, 0.0])).splitlines()
    assert heun[0].endswith("unbound, 3 evaluations")
    assert "store0 = m;  keep anchor" in heun[1]
    assert "x_next = anchor - 39.5 m - 39.5 h[1]" in heun[2]


def test_plot() -> None:
    pytest.importorskip("matplotlib")
    figure = make_table("dpmpp_2m", VP, LOG_SNR).plot()
    weights, times = figure.axes
    assert [text.get_text() for text in weights.get_legend().get_texts()] == ["state", "output", "history[0]"]
    np.testing.assert_array_equal(times.lines[0].get_ydata(), LOG_SNR[:-1])


def test_step_index() -> None:
    table = make_table("ddim", VP, LOG_SNR)
    assert table.step(-1) == table.step(4)
    with pytest.raises(IndexError, match="one of the 5 evaluations, got 5"):
        table.step(5)


# ---- binding


@pytest.mark.parametrize("prediction_type", ["eps", "x0", "v", "score", "velocity"])
@pytest.mark.parametrize("name", ["ddim", "euler", "heun", "dpmpp_2m", "dpm_solver_2s"])
def test_conversion_recovers_the_target(name: str, prediction_type: str) -> None:
    table = make_table(name, VP, LOG_SNR).bind(prediction_type)
    x0, eps = 0.3, -1.7
    x = table.alpha * x0 + table.sigma * eps
    _, rows = table.schedule.path_coefficients(table.t, prediction_type)
    output = rows[:, 0] * x0 + rows[:, 1] * eps
    assert table.conv is not None
    target = table.conv[:, 0] * x + table.conv[:, 1] * output
    expected = [{"x0": x0, "eps": eps}[name] for name in table.target]
    np.testing.assert_allclose(target, expected, rtol=1e-9)


def test_bind_errors() -> None:
    table = make_table("ddim", VP, LOG_SNR)
    with pytest.raises(ValueError, match=r"`prediction_type` must be one of eps, x0, v, .*got 'epsilon'"):
        table.bind("epsilon")
    bound = table.bind("eps")
    assert bound.bind("eps") is bound
    with pytest.raises(ValueError, match="`prediction_type` is 'v', the table is bound to 'eps'"):
        bound.bind("v")
    with pytest.raises(ValueError, match="not bound"):
        table.coefficients()
    with pytest.raises(ValueError, match="`prediction_type` 'edm' does not suit this table"):
        table.bind("edm")
    flow = make_table("ddim", FlowMatching(), [1.0, 0.5, 0.0])
    for prediction_type in ("eps", "score"):
        with pytest.raises(ValueError, match="divides by zero"):
            flow.bind(prediction_type)
    with pytest.raises(ValueError, match="divides by zero"):  # the second stage stands at sigma = 0
        make_table("heun", FlowMatching(), [1.0, 0.5, 0.0], correct_final=True).bind("x0")


def test_edm_scales_the_next_input() -> None:
    schedule = EDM(sigma_data=0.7)
    table = make_table("dpmpp_2m", schedule, timesteps(schedule, 4, "karras", final_sigma="zero")).bind("edm")
    np.testing.assert_allclose(table.t_eval, 0.25 * np.log(table.t), rtol=1e-15)
    np.testing.assert_allclose(table.c_in, 1.0 / np.hypot(table.t, 0.7), rtol=1e-15)
    coef = table.coefficients()
    np.testing.assert_array_equal(coef[:-1, 0, 60], table.c_in[1:])


def test_clipping_goes_through_x0() -> None:
    table = make_table("euler", VP, LOG_SNR).bind("v")  # target eps
    x, o = 0.4, 0.9
    for e, (direct, clipped) in enumerate(
        zip(table.coefficients()[:, 0], table.coefficients(clip="static", clip_value=9.0)[:, 0], strict=True)
    ):
        eps = direct[1] * x + direct[2] * o
        x0 = clipped[1] * x + clipped[2] * o
        assert float(table.alpha[e] * x0 + table.sigma[e] * eps) == pytest.approx(x, rel=1e-12)
        assert float(clipped[3] * x + clipped[4] * x0) == pytest.approx(float(eps), rel=1e-9)
        assert clipped[5] == 9.0
    with pytest.raises(ValueError, match="`clip` must be None, 'static' or 'dynamic', got 'hard'"):
        table.coefficients(clip="hard")
    with pytest.raises(ValueError, match="`clip_value` must be positive, got 0"):
        table.coefficients(clip="static", clip_value=0)
    at_data = make_table("heun", FlowMatching(), [1.0, 0.0], correct_final=True).bind("velocity")
    with pytest.raises(ValueError, match="`clip` needs a conversion by way of x0"):
        at_data.coefficients(clip="static")


def test_jump_is_the_weight_of_x0_in_raw_outputs() -> None:
    table = make_table("dpmpp_2m", VP, LOG_SNR)
    for prediction_type in ("eps", "x0", "v"):
        bound = table.bind(prediction_type)
        coef = bound.coefficients()[:, 0]
        np.testing.assert_allclose(coef[:, 7], table.alpha_next * bound.conv[:, 1], rtol=1e-15)


# ---- validation


def _edited(table: SolverTable, **weights: float) -> np.ndarray:
    rows = table.rows.copy()
    for where, value in weights.items():
        e, row, column = (int(part) for part in where.strip("_").split("_"))
        rows[e, row, column] = value
    return rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda t: {"rows": t.rows[:, :2]}, r"`rows` must have shape \(5, 4, 13\), got \(5, 2, 13\)"),
        (lambda t: {"rows": _edited(t, _3_0_0=np.nan)}, "`rows` must be finite, but evaluation 3 is not"),
        (lambda t: {"t_next": t.t_next[:3]}, r"`t_next` must have shape \(5,\), got \(3,\)"),
        (lambda t: {"t": np.zeros(0)}, "at least one evaluation"),
        (lambda t: {"schedule": "VPLinear()"}, "`schedule` must be a NoiseSchedule, got str"),
        (lambda t: {"target": ("x0", "x0")}, "`target` must hold 5 of x0, eps, velocity"),
        (lambda t: {"target": ("noise",) * 5}, "`target` must hold 5"),
        (lambda t: {"anchor": ("kept",) * 5}, "`anchor` must hold 5 of same, keep, row"),
        (lambda t: {"n_store": 3}, "`n_store` must be 0, 1 or 2, got 3"),
        (lambda t: {"n_hist": 9}, "`n_hist` must be a multiple of `n_store` = 1 <= 8, got 9"),
        (lambda t: {"conv": np.zeros((5, 2))}, "use `bind`"),
        (lambda t: {"prediction_type": "eps"}, "use `bind`"),
        (
            lambda t: {"elem": np.zeros((1, 2, 3)), "elem_map": (8,)},
            r"`elem` must have shape \[1 or 5, 1, ...\]",
        ),
        (lambda t: {"elem": np.zeros((2, 1, 3)), "elem_map": (8,)}, r"`elem` must have .*, got \(2, 1, 3\)"),
        (lambda t: {"elem": np.full((1, 1), np.inf), "elem_map": (8,)}, "`elem` must be finite"),
        (lambda t: {"elem": np.zeros((1, 1))}, "`elem` and `elem_map` go together"),
        (lambda t: {"elem_map": (8,)}, "`elem` and `elem_map` go together"),
        (lambda t: {"elem": np.zeros((1, 1)), "elem_map": (5,)}, r"`elem_map` must hold .*, got \(5,\)"),
        (lambda t: {"elem": np.zeros((1, 2)), "elem_map": (8, 8)}, r"`elem_map` must hold different"),
        (lambda t: {"elem": np.zeros((1, 1)), "elem_map": (8.0,)}, "`elem_map` must be a tuple of ints"),
        (lambda t: {"name": 3}, "`name` must be a str, got int"),
        (lambda t: {"prediction_type": "v2", "conv": np.zeros((5, 2))}, "`prediction_type` must be one of"),
        (lambda t: {"n_hist": 1.0}, "`n_hist` must be an int, got float"),
        (lambda t: {"n_store": True}, "`n_store` must be an int, got bool"),
        (lambda t: {"anchor": (*t.anchor[:-1], "keep")}, "`anchor` of the last evaluation must be"),
        (lambda t: {"rows": _edited(t, _2_0_4=1.0)}, "evaluation 2 read `corrected`, but `anchor` is 'same'"),
        (
            lambda t: {"rows": _edited(t, _2_1_4=1.0), "anchor": ("same", "same", "row", "same", "same")},
            "evaluation 2 have a row A that reads `corrected`",
        ),
        (lambda t: {"options": {"variant": object()}}, "`variant` must be a number, .*, got object"),
        (lambda t: {"rows": _edited(t, _2_1_0=1.0)}, "have a row A, but `anchor` is 'same'"),
        (lambda t: {"rows": _edited(t, _2_3_2=1.0)}, "store more than `n_store` = 1"),
        (lambda t: {"rows": _edited(t, _0_0_5=1.0)}, "evaluation 0 read history age 0, which holds nothing"),
        (lambda t: {"rows": _edited(t, _2_0_6=1.0)}, "evaluation 2 read history age 1, which holds nothing"),
        (lambda t: {"rows": _edited(t, _1_2_2=0.0)}, "evaluation 2 read history age 0, which holds nothing"),
    ],
)
def test_invalid_tables(changes, message: str) -> None:
    table = make_table("dpmpp_2m", VP, LOG_SNR)
    with pytest.raises((ValueError, TypeError), match=message):
        dataclasses.replace(table, **changes(table))


def test_options_of_numpy_are_plain_values() -> None:
    given = {"eta": np.float32(0.5), "variant": np.str_("heun"), "lower_order_final": np.bool_(False)}
    table = make_table("dpmpp_2m_sde", VP, LOG_SNR, **given)
    assert [type(value) for value in table.options.values()] == [str, bool, float]
    assert SolverTable.from_json(table.to_json()) == table
    table = make_table("dpmpp_3s", VP, LOG_SNR, orders=np.array([3, 2]))
    assert table.options["orders"] == (3, 2)
    assert SolverTable.from_json(table.to_json()) == table


def test_unread_values_are_not_stored() -> None:
    table = make_table("dpmpp_2m", VP, LOG_SNR)
    assert [step.store[0] is None for step in map(table.step, range(5))] == [False, False, False, True, True]
    single = make_table("dpmpp_2m", VP, LOG_SNR[[0, -1]])
    assert (single.n_hist, single.n_store) == (0, 0)


def test_midpoint_rule_reads_no_history() -> None:
    table = make_table("dpmpp_2s", VP, timesteps(VP, 6, "logSNR"))
    assert table.n_hist == 0
    assert make_table("dpmpp_2s", VP, timesteps(VP, 6, "time_uniform")).n_hist == 1


# ---- building


@pytest.mark.parametrize(
    ("ts", "message"),
    [
        ([1.0], "at least 2 times"),
        ([[1.0, 0.5]], "one dimension"),
        ([1.0, np.nan, 0.1], "NaN"),
        ([0.1, 0.5, 1.0], "noise to data"),
        ([1.0, 0.5, 0.5, 0.1], "noise to data"),
        ([1.2, 0.5, 0.1], "must lie in"),
        ([1.0, 0.5, 5e-4], "must lie in"),
        ([1.0, 0.5, -0.1], "must lie in"),
    ],
)
def test_bad_times(ts, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_table("ddim", VP, ts)


def test_bad_names_and_options() -> None:
    with pytest.raises(ValueError, match=r"unknown solver 'dpm'; known are .*ddim, .*dpm_solver_2m"):
        make_table("dpm", VP, LOG_SNR)
    with pytest.raises(
        TypeError, match="'dpmpp_2m' has no option order; its options: variant, lower_order_final"
    ):
        make_table("dpmpp_2m", VP, LOG_SNR, order=3)
    with pytest.raises(TypeError, match="'euler' has no option eta; its options: none"):
        make_table("euler", VP, LOG_SNR, eta=1.0)
    for name in ("dpm_solver_2m", "dpm_solver_3m"):
        with pytest.raises(TypeError, match=f"'{name}' has no option eta; .*: variant, lower_order_final$"):
            make_table(name, VP, LOG_SNR, eta=0.0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dpmpp_2m", {"variant": "best"}, "`variant` must be one of midpoint, reference"),
        ("dpmpp_2m", {"lower_order_final": "never"}, "`lower_order_final` must be True, False or 'auto'"),
        ("dpmpp_2m_sde", {"eta": 1.5}, r"`eta` must lie in \[0, 1\], got 1.5"),
        ("dpmpp_sde", {"eta": -0.1}, "`eta` must lie"),
        ("dpmpp_sde", {"eta": float("nan")}, "`eta` must lie"),
        ("ddim", {"eta": 2.0}, "`eta` must lie"),
        ("ddim", {"prediction": "v"}, "`prediction` must be one of x0, eps"),
        ("dpmpp_3s", {"variant": "midpoint"}, "`variant` must be one of dpmsolver, taylor"),
        ("dpmpp_3s", {"inner": "random"}, "`inner` must be one of spacing, fixed"),
        ("dpmpp_3s", {"orders": [3, 3]}, "`orders` must be numbers from 1 to 3 that add up to 5"),
        ("dpmpp_2s", {"orders": [3, 2]}, "`orders` must be numbers from 1 to 2"),
    ],
)
def test_bad_option_values(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_table(name, VP, LOG_SNR, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ddim", {"eta": None}, "`eta` must be a number, got NoneType"),
        ("dpmpp_sde", {"eta": "1"}, "`eta` must be a number, got str"),
        ("dpmpp_sde", {"eta": True}, "`eta` must be a number, got bool"),
        ("dpmpp_sde", {"eta": torch.tensor(1.0)}, "`eta` must be a number, .*got Tensor"),
        ("dpmpp_2m", {"variant": ["x"]}, "`variant` must be a str, got tuple"),
        ("dpmpp_2s", {"variant": ["x"]}, "`variant` must be a str, got tuple"),
        ("dpmpp_2s", {"inner": 1}, "`inner` must be a str, got int"),
        ("ddim", {"prediction": None}, "`prediction` must be a str, got NoneType"),
        ("dpmpp_3s", {"orders": 3}, "`orders` must be a sequence of ints, got 3"),
        ("dpmpp_3s", {"orders": [2.0, 3]}, "`orders` must be a sequence of ints"),
        ("dpmpp_3s", {"orders": iter([2, 3])}, "`orders` must be a number, .*got list_iterator"),
    ],
)
def test_options_of_the_wrong_type(name: str, options: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make_table(name, VP, LOG_SNR, **options)


def test_wrong_types_of_name_and_schedule() -> None:
    with pytest.raises(TypeError, match="`name` must be a str, got list"):
        make_table(["ddim"], VP, LOG_SNR)
    with pytest.raises(TypeError, match="`schedule` must be a NoiseSchedule, got str"):
        make_table("ddim", "vp_linear", LOG_SNR)


def test_noise_prediction_cannot_start_at_alpha_zero() -> None:
    for name in ("dpm_solver_2m", "dpm_solver_3s"):
        with pytest.raises(ValueError, match="cannot start at t = 1, where alpha is 0"):
            make_table(name, FlowMatching(), timesteps(FlowMatching(), 6))


def test_infinite_steps_are_first_order() -> None:
    """A step to sigma = 0 gives alpha_t x0; a step from alpha = 0 and its node serve no higher order."""
    ts = timesteps(FlowMatching(), 6)
    for name in ("dpmpp_3m", "dpmpp_3m_sde"):
        table = make_table(name, FlowMatching(), ts, lower_order_final=False)
        steps = [table.step(e).state for e in range(6)]
        assert [len(row.history) for row in steps] == [0, 0, 1, 2, 2, 0]
        assert steps[-1] == Row(output=1.0)
    first = make_table("dpmpp_3m_sde", FlowMatching(), ts).step(0).state
    alpha, sigma = 1 / 6, 5 / 6  # pure noise carries no x: fresh noise, and the prediction
    np.testing.assert_allclose(first.to_array()[:4], [0.0, 0.0, alpha, sigma], rtol=1e-12)
    singlestep = make_table("dpmpp_3s", FlowMatching(), ts)
    assert singlestep.anchor == ("same", "keep", "same", "keep", "same", "same")


def test_lower_order_final() -> None:
    def orders(n: int, **options) -> list[int]:
        table = make_table("dpmpp_3m", VP, timesteps(VP, n, "logSNR"), **options)
        return [len(table.step(e).state.history) + 1 for e in range(n)]

    assert orders(6) == [1, 2, 3, 3, 2, 1]
    assert orders(6, lower_order_final=False) == [1, 2, 3, 3, 3, 3]
    assert orders(14, lower_order_final="auto")[-2:] == [2, 1]
    assert orders(15, lower_order_final="auto")[-2:] == [3, 3]
    assert orders(1) == [1]
    assert orders(2, lower_order_final=False) == [1, 2]


@pytest.mark.parametrize(
    ("n", "orders", "with_zero"),
    [(9, [3, 3, 2, 1], [3, 3, 2, 1]), (10, [3, 3, 3, 1], [3, 3, 3, 1]), (11, [3, 3, 3, 2], [3, 3, 3, 1, 1])],
)
def test_singlestep_budgets(n: int, orders: list[int], with_zero: list[int]) -> None:
    def sizes(table: SolverTable) -> list[int]:
        ends = [e for e, mode in enumerate(table.anchor) if mode == "same"]
        return list(np.diff([-1, *ends]))

    table = make_table("dpmpp_3s", VE(), timesteps(VE(), n, "karras"))
    assert len(table) == n
    assert sizes(table) == orders
    assert sizes(make_table("dpmpp_3s", VE(), timesteps(VE(), n, "karras", final_sigma="zero"))) == with_zero
    assert sizes(
        make_table("dpmpp_3s", VP, timesteps(VP, n, "logSNR"), orders=[2] * (n // 2) + [1] * (n % 2))
    ) == ([2] * (n // 2) + [1] * (n % 2))


def test_a_solver_is_written_without_the_compiled_library() -> None:
    code = """
import sys
sys.modules["fastdiff_ops._load"] = None  # whatever needs the library fails to import
from fastdiff_ops.schedules import FlowMatching
from fastdiff_ops.solvers import STORE_OUTPUT, Call, Grid, Node, Row, make_table, solver

@solver("mine")
def mine(grid: Grid):
    for s, t in grid.steps():
        assert isinstance(s, Node)
        yield Call(s, t, "velocity", Row(state=1.0, output=t.sigma - s.sigma), STORE_OUTPUT)

table = make_table("mine", FlowMatching(), [1.0, 0.5, 0.0])
assert (table.rows == make_table("euler", FlowMatching(), [1.0, 0.5, 0.0]).rows).all()
try:
    from fastdiff_ops.solvers import sample
except ImportError:
    print("done")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout == "done\n", ran.stderr


def test_names_of_solvers_are_taken_once() -> None:
    table = make_table("ddim", VP, LOG_SNR)
    with pytest.raises(ValueError, match="`name` 'ddim' is taken by the solver ddim"):

        @solver("ddim")
        def another(grid):
            yield from ()

    assert make_table("ddim", VP, LOG_SNR) == table


def test_a_solver_is_one_short_function() -> None:
    @solver("test_backward_noise", strength=0.5)
    def noisy_ddim(grid, *, strength: float):
        for s, t in grid.steps():
            yield Call(s, t, "eps", Row(state=t.alpha / s.alpha, output=strength * t.sigma))

    try:
        table = make_table("test_backward_noise", VP, LOG_SNR, strength=0.25)
        assert table.options == {"strength": 0.25}
        assert table.step(4).state.output == 0.25 * VP.sigma(1e-3)
    finally:
        from fastdiff_ops.solvers.registry import _SOLVERS

        del _SOLVERS["test_backward_noise"]
