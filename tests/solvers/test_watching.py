"""Watching a run: trajectories, callbacks, progress, checks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fastdiff_ops.schedules import VE, timesteps
from fastdiff_ops.solvers import StepInfo, make_table, sample
from problems import MixtureModel, start_points
from solver_runs import TS, VP, X, network, run
from torch import Tensor


def test_trajectory() -> None:
    for name in ("dpmpp_2m", "heun"):
        table = make_table(name, VP, TS)
        result, states = run(table, return_trajectory=True)
        assert states.shape == (table.n_steps + 1, *X.shape)
        assert torch.equal(states[0], X)
        assert torch.equal(states[-1], result)
        prefix = run(make_table(name, VP, TS[:4]), return_trajectory=True)[1]
        if name == "heun":
            assert torch.equal(states[:4], prefix)


def test_callback_sees_each_step_and_may_stop() -> None:
    table = make_table("heun", VP, TS)
    _, states = run(table, return_trajectory=True)
    infos: list[StepInfo] = []
    copies = []

    def callback(info: StepInfo) -> bool:
        infos.append(info)
        copies.append(info.x.clone())
        return info.index == 2

    result = run(table, callback=callback)
    assert [info.index for info in infos] == [0, 1, 2]
    assert all(info.n_steps == 6 for info in infos)
    assert [info.t_next for info in infos] == TS[1:4].tolist()
    assert all(torch.equal(copy, states[k + 1]) for k, copy in enumerate(copies))
    assert torch.equal(result, states[3])


@pytest.mark.parametrize("guided", [False, True])
def test_callback_can_preview_x0(guided: bool) -> None:
    schedule, model = VE(), MixtureModel(VE(), "eps")
    table = make_table("dpmpp_2m", schedule, timesteps(schedule, 5, "karras"))
    previews = []
    kwargs: dict[str, Any] = {}
    if guided:
        kwargs = {"guidance_scale": 1.5, "uncond_kwargs": {"scale": 1.0}, "model_kwargs": {"scale": 1.0}}

    def counted(x: Tensor, t: Tensor, scale: float = 1.0) -> Tensor:
        return model(x, t)

    x = start_points(schedule)
    _, states = sample(
        counted,
        x,
        table,
        prediction_type="eps",
        return_trajectory=True,
        callback=lambda step: previews.append(step.denoised()),
        **kwargs,
    )
    for k, preview in enumerate(previews):
        expected = MixtureModel(schedule, "x0")(states[k], torch.tensor([table.t[k]]))
        torch.testing.assert_close(preview, expected, rtol=1e-9, atol=1e-9)


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    run(progress=True)
    assert "6/6" in capsys.readouterr().err


@pytest.mark.parametrize("culprit", ["output", "state"])
def test_check_finite_names_the_step(culprit: str) -> None:
    calls = 0

    def model(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        out = network(x, t)
        if calls == 4:
            out[0, 0, 0, 0] = float("nan") if culprit == "output" else 3e38
        return out

    table = make_table("euler", VE(), [80.0, 40.0, 20.0, 10.0, 1.0, 0.1])
    name = "model output" if culprit == "output" else "state"
    where = r"in step 3 \(evaluation 3, t = 10 -> 1\)"
    with pytest.raises(FloatingPointError, match=rf"the {name} is not finite {where}"):
        run(table, model=model, prediction_type="eps", check_finite=True)
    calls = 0
    assert not torch.isfinite(run(table, model=model, prediction_type="eps")).all()


@pytest.mark.parametrize("differentiable", [False, True])
def test_dynamic_clipping_of_nan_names_the_step(differentiable: bool) -> None:
    calls = 0

    def model(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return network(x, t) * (float("nan") if calls == 3 else 1.0)

    def clipped(**kwargs: Any) -> None:
        nonlocal calls
        calls = 0
        run("heun", model=model, clip="dynamic", differentiable=differentiable, **kwargs)

    where = r"in step 1 \(evaluation 2, t = .* -> .*\)"
    with pytest.raises(FloatingPointError, match=f"the model output is not finite {where}"):
        clipped(check_finite=True)
    with pytest.raises(ValueError, match=f"no scale for `clip` {where}: .*sample 0 holds NaN"):
        clipped()


def test_history_is_gathered_again_only_for_who_watches() -> None:
    def stacks(**kwargs: Any) -> int:
        with torch.profiler.profile() as profile:
            run("dpmpp_3m", differentiable=True, **kwargs)
        return sum(event.count for event in profile.key_averages() if event.key == "aten::stack")

    assert stacks() == 6
    assert stacks(callback=lambda step: None) == 12
