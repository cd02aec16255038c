"""`sample` on every backend: the same run, wherever the tensors live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Backend
from fastdiff_ops.ops.random import randn
from fastdiff_ops.schedules import EDM, NoiseSchedule, VPLinear, timesteps
from fastdiff_ops.solvers import make_table, resume, sample, solver_names
from torch import Tensor

SHAPE = (2, 3, 4, 4)
LABEL = randn(SHAPE, seed=4)
CASES: list[tuple[str, NoiseSchedule, str, dict[str, Any]]] = [
    ("dpmpp_3m", VPLinear(), "v", {}),
    ("dpmpp_3m_sde", VPLinear(), "eps", {"seed": 3}),
    ("dpmpp_2m_sde", VPLinear(), "eps", {"seed": [3, 4], "sample_ids": [7, 1]}),
    ("dpmpp_3s", VPLinear(), "x0", {"clip": "static"}),
    ("dpmpp_2m", VPLinear(), "x0", {"clip": "dynamic", "clip_quantile": 0.9}),
    ("heun", EDM(), "edm", {}),
    (
        "ddim",
        VPLinear(),
        "v",
        {"guidance_scale": 2.0, "model_kwargs": {"label": 1}, "uncond_kwargs": {"label": 0}},
    ),
    ("ddim", VPLinear(), "v", {"inpaint_image": LABEL, "inpaint_mask": (LABEL > 0).float(), "seed": 5}),
]


def to(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("name", "schedule", "kind", "kwargs"), CASES, ids=lambda value: str(value)[:20])
def test_same_run(
    backend: Backend, name: str, schedule: NoiseSchedule, kind: str, kwargs: dict, dtype: torch.dtype
) -> None:
    table = make_table(name, schedule, timesteps(schedule, 5, "logSNR")).bind(kind)
    kwargs = {"seed": 0, "guidance_batching": "two_calls", **kwargs}

    def on(device: torch.device) -> Tensor:
        outs = iter([randn(SHAPE, seed=99, offset=e, dtype=dtype).to(device) for e in range(2 * len(table))])

        def model(x: Tensor, t: Tensor, label: int = 1) -> Tensor:
            assert x.device.type == t.device.type == device.type
            return next(outs)

        arguments = {key: to(value, device) for key, value in kwargs.items()}
        return sample(model, SHAPE, table, dtype=dtype, device=device, **arguments)

    expected, actual = on(torch.device("cpu")), on(backend.device)
    assert actual.device.type == backend.device.type
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 1e-2}[dtype]
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual.cpu(), expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.emulated
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("name", solver_names())
def test_one_launch_per_evaluation(
    name: str, guided: bool, backend: Backend, count_launches: Callable[[Callable[[], object]], int]
) -> None:
    """Noise, history, guidance and the scaled network input of the next evaluation are part of the step."""
    if backend.name != "emulated":
        pytest.skip("launches are counted by the emulation")
    schedule = EDM()
    table = make_table(name, schedule, timesteps(schedule, 6, "karras", final_sigma="zero")).bind("edm")
    x = randn(SHAPE, seed=1)
    kwargs: dict[str, Any] = {"guidance_scale": 2.0, "uncond_kwargs": {}} if guided else {}
    launches = count_launches(lambda: sample(lambda x, t: torch.tanh(x), x, table, seed=2, **kwargs))
    assert launches == len(table)


def test_state_moves_between_devices(backend: Backend, tmp_path: Any) -> None:
    """Saved where it ran, resumed elsewhere."""
    table = make_table("dpmpp_2m_sde", VPLinear(), timesteps(VPLinear(), 4, "logSNR")).bind("v")
    path = tmp_path / "run.safetensors"
    model = lambda x, t: 0.5 * x  # noqa: E731
    x = randn(SHAPE, seed=1, device=backend.device)
    expected = sample(
        model, x, table, seed=2, callback=lambda s: s.state().save(path) if s.index == 1 else None
    )
    torch.testing.assert_close(resume(model, path), expected.cpu(), rtol=1e-6, atol=1e-6)
