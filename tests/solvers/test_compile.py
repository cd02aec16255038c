"""torch.compile of a whole sampling loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo
from fastdiff_ops.ops.random import randn
from fastdiff_ops.schedules import EDM, FlowMatching, NoiseSchedule, VPLinear, timesteps
from fastdiff_ops.solvers import make_table, sample
from torch._dynamo.testing import CompileCounter

X = randn((4, 3), seed=1)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.SiLU(), torch.nn.Linear(8, 3))


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


CASES: list[tuple[str, NoiseSchedule, str, dict[str, Any]]] = [
    ("dpmpp_3m", VPLinear(), "v", {}),
    ("dpmpp_2m_sde", VPLinear(), "eps", {"seed": 3}),
    ("dpmpp_2m_sde", VPLinear(), "eps", {"seed": torch.tensor([3, 4, 5, 6])}),
    ("dpmpp_3s", VPLinear(), "x0", {"clip": "static"}),
    ("heun", FlowMatching(), "velocity", {}),
    ("ddim", EDM(), "edm", {}),
]


@pytest.mark.parametrize(("name", "schedule", "kind", "kwargs"), CASES, ids=lambda value: str(value)[:20])
def test_whole_loop_is_one_graph(name: str, schedule: NoiseSchedule, kind: str, kwargs: dict) -> None:
    net = network()
    table = make_table(name, schedule, timesteps(schedule, 6)).bind(kind)

    def loop(x: torch.Tensor) -> torch.Tensor:
        return sample(lambda x, t: net(x) * (1.0 + t[:, None]), x, table, **kwargs)

    counter = CompileCounter()
    compiled = torch.compile(loop, fullgraph=True, backend=counter)
    with torch.no_grad():
        for k in range(3):
            x = X + k
            torch.testing.assert_close(compiled(x), loop(x), rtol=1e-5, atol=1e-5)
    assert counter.frame_count == 1
    assert counter.op_count >= 6


def test_seeds_and_guidance_do_not_recompile() -> None:
    net = network()
    table = make_table("dpmpp_2m_sde", VPLinear(), timesteps(VPLinear(), 4)).bind("eps")

    def loop(x: torch.Tensor, seed: torch.Tensor, scale: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return sample(
            lambda x, t, label: net(x + label),
            x,
            table,
            seed=seed,
            guidance_scale=scale,
            model_kwargs={"label": label},
            uncond_kwargs={"label": torch.zeros_like(label)},
        )

    counter = CompileCounter()
    compiled = torch.compile(loop, fullgraph=True, backend=counter)
    with torch.no_grad():
        for k in range(3):
            args = (X, torch.arange(4) + 10 * k, torch.full((4,), 1.5 + k), X.flip(0) + k)
            torch.testing.assert_close(compiled(*args), loop(*args), rtol=1e-5, atol=1e-5)
    assert counter.frame_count == 1


@pytest.mark.slow
def test_inductor() -> None:
    net = network()
    table = make_table("dpmpp_2m", VPLinear(), timesteps(VPLinear(), 5)).bind("eps")

    def loop(x: torch.Tensor) -> torch.Tensor:
        return sample(lambda x, t: net(x) * (1.0 + t[:, None]), x, table)

    with torch.no_grad():
        torch.testing.assert_close(torch.compile(loop, fullgraph=True)(X), loop(X), rtol=1e-5, atol=1e-5)
