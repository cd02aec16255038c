"""Every bad argument of `sample` is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fastdiff_ops.ops.random import PhiloxState
from fastdiff_ops.schedules import VE, Discrete, FlowMatching, NoiseSchedule, timesteps
from fastdiff_ops.solvers import make_table, sample
from fastdiff_ops.solvers.noise import check_draws
from solver_runs import TS, VP, X, network, run


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"x": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "`x` must be float16.*got torch.int64"),
        ({"x": torch.zeros(2, 3, dtype=torch.complex64)}, TypeError, "`x` must be float16"),
        ({"x": torch.tensor(1.0)}, ValueError, "`x` must have a batch axis"),
        ({"x": 2}, TypeError, "`x` must be a Tensor, a shape .* or None, got 2"),
        ({"x": "23"}, TypeError, "`x` must be a Tensor, a shape .* or None, got '23'"),
        ({"x": (2, 3.0)}, TypeError, r"`x` must be a Tensor, a shape .* or None, got \(2, 3.0\)"),
        ({"x": (2, -3)}, ValueError, r"`x` must be a shape .* with sizes >= 0, got \(2, -3\)"),
        ({"x": ()}, ValueError, "`x` must have a batch axis"),
        ({"x": None, "init_image": [2, 3]}, TypeError, "`init_image` must be a Tensor, got list"),
        ({"x": None}, ValueError, "give either `x` .* or `init_image`"),
        ({"init_image": X}, ValueError, "give either `x` .* or `init_image`"),
        ({"x": X, "dtype": torch.float64}, ValueError, "`dtype` and `device` are for a shape"),
        ({"x": (2, 3), "dtype": torch.int32}, TypeError, "`x` must be float16"),
        ({"strength": 0.5}, ValueError, "`strength` needs `init_image`"),
        ({"x": None, "init_image": X, "strength": 0.5}, ValueError, "`strength` goes with a solver's name"),
        ({"num_steps": 5}, ValueError, "`num_steps` goes with a solver's name"),
        ({"spacing_options": {"rho": 5.0}}, ValueError, "`spacing_options` goes with a solver's name"),
        ({"prediction_type": None}, ValueError, "`prediction_type` must be given"),
        ({"prediction_type": "epsilon"}, ValueError, "`prediction_type` must be one of eps, x0"),
        ({"clip": "hard"}, ValueError, "`clip` must be None, 'static' or 'dynamic'"),
        ({"clip": "static", "clip_value": -1.0}, ValueError, "`clip_value` must be positive"),
        ({"clip": "dynamic", "clip_value": 0.0}, ValueError, "`clip_value` must be positive"),
        ({"clip": "dynamic", "clip_quantile": 1.1}, ValueError, "`clip_quantile` must lie"),
        (
            {"clip": "dynamic", "clip_cap": 0.5},
            ValueError,
            "`clip_cap` must be at least `clip_value` = 1, got 0.5",
        ),
        ({"clip_value": 1.0}, ValueError, "`clip_value` has no effect without `clip`"),
        ({"clip_quantile": 0.995}, ValueError, "`clip_quantile` has no effect without `clip`"),
        ({"clip_cap": 2.0}, ValueError, "`clip_cap` has no effect without `clip`"),
        ({"clip": "static", "clip_quantile": 0.9}, ValueError, "`clip_quantile` goes with clip='dynamic'"),
        ({"clip": "static", "clip_cap": 2.0}, ValueError, "`clip_cap` goes with clip='dynamic'"),
        ({"guidance_scale": 2.0}, ValueError, "`guidance_scale` needs `uncond_kwargs`"),
        ({"uncond_kwargs": {}}, ValueError, "`uncond_kwargs` has no effect without `guidance_scale`"),
        ({"guidance_batching": "both"}, ValueError, "`guidance_batching` must be one of concat, two_calls"),
        ({"inpaint_image": X}, ValueError, "`inpaint_image` and `inpaint_mask` go together"),
        (
            {"inpaint_image": X, "inpaint_mask": torch.ones(7)},
            ValueError,
            r"`inpaint_mask` must be broadcastable to \(3, 4, 5, 5\), got \(7,\)",
        ),
        ({"seed": "zero"}, TypeError, "`seed`"),
        ({"seed": [1, 2]}, ValueError, "`seed`"),
        ({"sample_ids": [1, 2]}, ValueError, "`sample_ids`"),
        ({"model": lambda x, t: (x,)}, TypeError, r"`model` must return a Tensor, got tuple; .*\.sample"),
        (
            {"model": lambda x, t: torch.cat([x, x], 1)},
            ValueError,
            r"`model` must return .*\(3, 4, 5, 5\), got \(3, 8, 5, 5\); a network that also",
        ),
        ({"model": lambda x, t: x[:2]}, ValueError, r"got \(2, 4, 5, 5\)$"),
        ({"model": lambda x, t: x.to("meta")}, ValueError, "`model` must return a tensor on cpu, got meta"),
        ({"model": lambda x, t: x > 0}, TypeError, "`model` must return float16, .* got torch.bool"),
        ({"model": lambda x, t: x.long()}, TypeError, "`model` must return float16, .* got torch.int64"),
        (
            {
                "model": lambda x, t, k: x.double() if k else x,
                "guidance_scale": 2.0,
                "model_kwargs": {"k": 1},
                "uncond_kwargs": {"k": 0},
                "guidance_batching": "two_calls",
            },
            TypeError,
            "`model` must return one dtype .*, got torch.float32 and torch.float64",
        ),
        (
            {"guidance_scale": float("nan"), "uncond_kwargs": {}},
            ValueError,
            r"`guidance_scale` must be finite, got nan",
        ),
        (
            {"guidance_scale": torch.tensor([1.0, 2.0, float("inf")]), "uncond_kwargs": {}},
            ValueError,
            r"`guidance_scale` must be finite, got \[1.0, 2.0, inf\]",
        ),
        ({"guidance_scale": "2", "uncond_kwargs": {}}, TypeError, "`guidance_scale` must be a number"),
        (
            {"inpaint_image": X, "inpaint_mask": torch.full((5,), 1.5)},
            ValueError,
            "`inpaint_mask` must hold numbers from 0 to 1",
        ),
        (
            {"inpaint_image": X, "inpaint_mask": torch.full((5,), float("nan"))},
            ValueError,
            "`inpaint_mask` must hold numbers from 0 to 1",
        ),
        (
            {"inpaint_image": X.numpy(), "inpaint_mask": torch.ones(5)},
            TypeError,
            "`inpaint_image` must be a Tensor, got ndarray",
        ),
        ({"inpaint_image": X, "inpaint_mask": 1.0}, TypeError, "`inpaint_mask` must be a Tensor, got float"),
        ({"callback": "print"}, TypeError, "`callback` must be callable, got str"),
        ({"history_dtype": 32}, TypeError, "`history_dtype` must be a floating-point dtype, got 32"),
        ({"history_dtype": torch.int32}, TypeError, "`history_dtype` must be .*, got torch.int32"),
    ],
)
def test_bad_input(kwargs: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run("dpmpp_2m_sde", **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"seed": "zero"}, TypeError, "`seed`"),
        ({"seed": 1.5}, TypeError, "`seed`"),
        ({"seed": True}, TypeError, "`seed`"),
        ({"seed": [1, 2]}, ValueError, "`seed`"),
        ({"offset": -1}, ValueError, "`offset`"),
        ({"sample_ids": [1, 2]}, ValueError, "`sample_ids`"),
    ],
)
def test_seeds_are_checked_where_nothing_is_drawn(kwargs: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run("dpmpp_2m", **kwargs)


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2m_sde"])
@pytest.mark.parametrize("inpainting", [False, True])
def test_draw_numbers_suffice_or_are_refused_up_front(name: str, inpainting: bool) -> None:
    """6 evaluations: draws 0 to 6, a state moves on to 7; the known region uses 2^25 to 2^25 + 6."""
    kwargs: dict[str, Any] = {"inpaint_image": X, "inpaint_mask": (X > 0).float()} if inpainting else {}
    most = 2**32 - 1 - 7 - (2**25 if inpainting else 0)
    assert torch.isfinite(run(name, offset=most, **kwargs)).all()
    assert torch.isfinite(run(name, offset=2, seed=PhiloxState(1, most - 2), **kwargs)).all()

    def never(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise AssertionError("evaluated")

    with pytest.raises(ValueError, match=r"`offset` must leave numbers below 2\^32"):
        run(name, model=never, offset=most + 1, **kwargs)
    with pytest.raises(ValueError, match=rf"`offset` must .*, got 3 on top of {most - 2} in `seed`"):
        run(name, model=never, offset=3, seed=PhiloxState(1, most - 2), **kwargs)


def test_too_many_evaluations() -> None:
    check_draws(0, 0, 2**24 - 2, False)
    with pytest.raises(ValueError, match=r"`table` must make at most 2\^24 - 2 evaluations, got 16777215"):
        check_draws(0, 0, 2**24 - 1, False)


@pytest.mark.parametrize(
    ("table", "kwargs", "error", "message"),
    [
        ("dpm", {}, ValueError, "unknown solver 'dpm'; known are .*ddim"),
        ("ddim", {"schedule": None}, ValueError, "needs `schedule` and `num_steps`"),
        ("ddim", {"schedule": "vp"}, TypeError, "`schedule` must be a NoiseSchedule, got str"),
        ("ddim", {"num_steps": None}, ValueError, "needs `schedule` and `num_steps`"),
        ("ddim", {"num_steps": 0}, ValueError, "`n` must be at least 1"),
        ("ddim", {"spacing": "cubic"}, ValueError, "`spacing` must be one of"),
        ("ddim", {"spacing_options": {"rho": 5.0}}, ValueError, "`spacing_options` needs `spacing`"),
        (
            "ddim",
            {"spacing": "karras", "spacing_options": {"power": 5.0}},
            ValueError,
            r"`spacing` 'karras' takes the options \['rho'\], got also \['power'\]",
        ),
        (
            "ddim",
            {"spacing": "karras", "spacing_options": "dpm"},
            TypeError,
            "`spacing_options` must be a mapping, got str",
        ),
        (
            "ddim",
            {"spacing": "karras", "spacing_options": {"n": 3}},
            ValueError,
            "`spacing_options` holds n, which `sample` passes itself",
        ),
        ("ddim", {"spacing": "leading"}, ValueError, "`spacing` must be one of"),
        ("ddim", {"solver_options": {"order": 2}}, TypeError, "'ddim' has no option order"),
        ("ddim", {"x": None, "init_image": X, "strength": 0.0}, ValueError, "`strength` must lie in"),
        ("ddim", {"x": None, "init_image": X, "strength": 0.1}, ValueError, "leave at least one of 6 steps"),
        (
            7,
            {"schedule": None, "num_steps": None},
            TypeError,
            "`table` must be a SolverTable or a solver's name",
        ),
    ],
)
def test_bad_input_by_name(table: Any, kwargs: dict, error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"x": X, "schedule": VP, "num_steps": 6, "prediction_type": "v", **kwargs}
    with pytest.raises(error, match=message):
        sample(network, arguments.pop("x"), table, **arguments)


def test_table_bound_to_another_type() -> None:
    table = make_table("ddim", VP, TS).bind("eps")
    with pytest.raises(ValueError, match="`prediction_type` is 'v', the table is bound to 'eps'"):
        run(table)
    assert torch.equal(run(table, prediction_type=None), run(table, prediction_type="eps"))


def test_defaults_by_name() -> None:
    for schedule, spacing, options in [
        (VP, "logSNR", {}),
        (VE(), "karras", {"final_sigma": "zero"}),
        (FlowMatching(), "time_uniform", {}),
        (Discrete.from_table("linear", reading="diffusers"), "trailing", {"family": "dpm"}),
    ]:
        kind = "velocity" if isinstance(schedule, FlowMatching) else "x0"
        by_name = sample(network, X, "dpmpp_2m", schedule=schedule, num_steps=5, prediction_type=kind)
        table = make_table("dpmpp_2m", schedule, timesteps(schedule, 5, spacing, **options))
        assert torch.equal(by_name, run(table, prediction_type=kind))


@pytest.mark.parametrize(
    ("schedule", "spacing", "options"),
    [
        (VP, "karras", {"rho": 5.0, "final_sigma": "zero"}),
        (
            Discrete.from_table("linear", reading="diffusers"),
            "leading",
            {"family": "ddim", "steps_offset": 1},
        ),
        (Discrete.from_table("linear", reading="diffusers"), "leading", {"family": "dpm"}),
    ],
)
def test_spacing_options(schedule: NoiseSchedule, spacing: str, options: dict) -> None:
    arguments: dict[str, Any] = {"schedule": schedule, "num_steps": 5, "prediction_type": "x0"}
    by_name = sample(network, X, "dpmpp_2m", spacing=spacing, spacing_options=options, **arguments)
    table = make_table("dpmpp_2m", schedule, timesteps(schedule, 5, spacing, **options))
    assert torch.equal(by_name, run(table, prediction_type="x0"))
    assert not torch.equal(by_name, sample(network, X, "dpmpp_2m", **arguments))
