"""Interrupting and resuming a run, exactly."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from fastdiff_ops.ops.random import randn
from fastdiff_ops.schedules import VPLinear, timesteps
from fastdiff_ops.solvers import StepInfo, TrajectoryState, make_table, resume, sample
from torch import Tensor

VP = VPLinear()
X = randn((2, 3, 4, 4), seed=1)


def model(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
    out = torch.tanh(x) * (1.0 + t[:, None, None, None])
    return out if label is None else out + label


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "seeds": {"seed": [5, 6]},
    "clipped": {"clip": "dynamic", "clip_quantile": 0.9},
    "guided": {
        "guidance_scale": torch.tensor([1.5, 3.0]),
        "guidance_batching": "concat",
        "model_kwargs": {"label": X},
        "uncond_kwargs": {"label": 0 * X},
    },
    "inpainting": {"inpaint_image": 2 * X, "inpaint_mask": (X > 0).float()},
    "half": {},
}
AGAIN = ("model_kwargs", "uncond_kwargs", "inpaint_image", "inpaint_mask")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["dpmpp_3m", "dpmpp_2m_sde", "dpmpp_3s", "heun"])
def test_resumed_run_is_bit_exact(name: str, kind: str, tmp_path: Path) -> None:
    table = make_table(name, VP, timesteps(VP, 8, "time_uniform"))
    x = {"half": X.half(), "guided": X.to(memory_format=torch.channels_last)}.get(kind, X)
    arguments = {"seed": 3, **KINDS[kind]}
    kept = []

    def callback(step: StepInfo) -> None:
        step.state().save(tmp_path / f"{step.index}.safetensors")
        kept.append(step.state())

    expected, states = sample(
        model, x, table, prediction_type="v", callback=callback, return_trajectory=True, **arguments
    )
    again = {key: value for key, value in arguments.items() if key in AGAIN}
    for k, state in enumerate(kept):
        from_memory, tail = resume(model, state, return_trajectory=True, **again)
        assert torch.equal(from_memory, expected)
        assert torch.equal(tail, states[k + 1 :])
        from_file = resume(model, tmp_path / f"{k}.safetensors", **again)
        assert torch.equal(from_file, expected)
        assert from_file.stride() == expected.stride()
        assert torch.equal(resume(model, state, **again), expected)  # the state itself has not changed


def test_interrupted_run(tmp_path: Path) -> None:
    """Ctrl-C in the model: the last state on disk continues to the same result."""
    table = make_table("dpmpp_2m_sde", VP, timesteps(VP, 8, "logSNR"))
    path = tmp_path / "run.safetensors"
    calls = 0

    def interrupted(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return model(x, t)

    def save(step: StepInfo) -> None:
        step.state().save(path)

    with pytest.raises(KeyboardInterrupt):
        sample(interrupted, X, table, prediction_type="v", seed=3, callback=save)
    assert TrajectoryState.load(path).evaluation == 4
    assert torch.equal(resume(model, path), sample(model, X, table, prediction_type="v", seed=3))


def test_saving_replaces_the_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_table("ddim", VP, timesteps(VP, 3, "logSNR"))
    states: list[TrajectoryState] = []
    sample(model, X, table, prediction_type="v", callback=lambda step: states.append(step.state()))
    path = tmp_path / "run.safetensors"
    states[0].save(path)
    before = path.read_bytes()

    import safetensors.torch

    def broken(tensors: dict, name: str, metadata: dict) -> None:
        Path(name).write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch, "save_file", broken)
    with pytest.raises(KeyboardInterrupt):
        states[1].save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.safetensors"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"`path` must be a file with format .*TrajectoryState', got None"):
        TrajectoryState.load(path)


def test_resuming_a_finished_run_returns_its_result() -> None:
    table = make_table("dpmpp_2m", VP, timesteps(VP, 3, "logSNR"))
    states: list[TrajectoryState] = []
    expected = sample(model, X, table, prediction_type="v", callback=lambda step: states.append(step.state()))
    result = resume(model, states[-1])
    assert torch.equal(result, expected)
    result.zero_()
    assert torch.equal(states[-1].x, expected)


def states_of(name: str, x: Tensor = X, **kwargs: Any) -> list[TrajectoryState]:
    table = make_table(name, VP, timesteps(VP, 6, "logSNR"))
    states: list[TrajectoryState] = []
    sample(model, x, table, prediction_type="v", callback=lambda step: states.append(step.state()), **kwargs)
    return states


def test_inpainting_goes_on_as_it_began() -> None:
    mask = {"inpaint_image": X, "inpaint_mask": (X > 0).float()}
    with pytest.raises(ValueError, match="`state` is of a run without `inpaint_mask`"):
        resume(model, states_of("ddim")[1], **mask)
    with pytest.raises(ValueError, match="`state` is of a run without `inpaint_mask`"):
        resume(model, states_of("dpmpp_sde", seed=1)[1], **mask)
    with pytest.raises(ValueError, match="`state` is of a run with `inpaint_mask`"):
        resume(model, states_of("ddim", seed=1, **mask)[1])


def test_history_keeps_its_dtype() -> None:
    state = states_of("dpmpp_2m", x=X.half())[2]
    with pytest.raises(ValueError, match="`history_dtype` must be that of `state`"):
        resume(model, state, history_dtype=torch.float16)
    assert torch.equal(resume(model, state, history_dtype=torch.float32), resume(model, state))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluation": -1}, r"`evaluation` must lie in \[0, 6\], got -1"),
        ({"evaluation": 7}, r"`evaluation` must lie in \[0, 6\], got 7"),
        ({"evaluation": True}, "`evaluation` must be an int, got bool"),
        ({"table": "ddim"}, "`table` must be a SolverTable, got str"),
        ({"x": None}, "`x` must be a Tensor, got NoneType"),
        (
            {"x": X[:1]},
            r"`history` must have the shape \(2, 1, 3, 4, 4\) before evaluation 3, got \(2, 2, 3, 4, 4\)",
        ),
        ({"history": None}, r"`history` must have the shape \(2, 2, 3, 4, 4\) .*, got None"),
        ({"evaluation": 0}, "`history` must have the shape None before evaluation 0, got"),
        ({"anchor": X}, "`anchor` must have the shape None before evaluation 3, got"),
        ({"rng": None}, "`rng` must be a tensor for a run that draws noise"),
        ({"rng": torch.tensor([1.0, 2.0])}, r"`rng` must be int64 \[2\] or \[2, 3\], got torch.float32"),
        ({"rng": torch.zeros(3, 3, dtype=torch.int64)}, r"`rng` must be .* got torch.int64 \(3, 3\)"),
        ({"settings": {"clip": None}}, r"`settings` must hold .*, got \['clip'\]"),
    ],
)
def test_states_that_do_not_fit_together(change: dict, message: str) -> None:
    state = states_of("dpmpp_3m_sde", seed=1)[2]
    with pytest.raises((ValueError, TypeError), match=message):
        dataclasses.replace(state, **change)


def test_a_state_lies_between_steps() -> None:
    state = states_of("dpmpp_2s")[0]
    with pytest.raises(ValueError, match="`evaluation` must be the first of a solver step, got 3"):
        dataclasses.replace(state, evaluation=3)


@pytest.mark.parametrize("broken", ["text", "cut", "no order", "no x"])
def test_broken_files_are_refused(broken: str, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = tmp_path / "run.safetensors"
    states_of("ddim")[1].save(path)
    content = path.read_bytes()
    with safe_open(path, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    if broken == "text":
        path.write_text("no tensors")
    elif broken == "cut":
        path.write_bytes(content[:-8])
    elif broken == "no order":
        del metadata["order"]
        save_file(tensors, path, metadata)
    else:
        save_file({"y": tensors["x"]}, path, metadata)
    with pytest.raises(ValueError, match="`path` "):
        TrajectoryState.load(path)
    with pytest.raises(FileNotFoundError):
        TrajectoryState.load(tmp_path / "absent")
