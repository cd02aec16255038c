"""How a run starts: latents, seeds, images, masks, defaults."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fastdiff_ops.ops.random import PhiloxState, randn
from fastdiff_ops.schedules import VE, FlowMatching, timesteps
from fastdiff_ops.solvers import StepInfo, make_table, resume, sample
from solver_runs import VP, X, network, run
from torch import Tensor


def test_shape_starts_natively() -> None:
    schedule = VE()
    table = make_table("euler", schedule, [80.0, 0.0])
    latents = 80.0 * randn((2, 3), seed=4, dtype=torch.float64)
    args: dict[str, Any] = {"prediction_type": "eps", "model": lambda x, t: 0.0 * x}
    assert torch.equal(run(table, x=(2, 3), seed=4, dtype=torch.float64, **args), latents)
    assert torch.equal(run(table, x=torch.Size((2, 3)), seed=4, **args), latents.float())
    assert torch.equal(run(table, x=(2, 3), seed=4, offset=9, **args), 80.0 * randn((2, 3), seed=4, offset=9))


def test_seeds() -> None:
    a = run("dpmpp_2m_sde", seed=3)
    assert torch.equal(a, run("dpmpp_2m_sde", seed=3))
    assert not torch.equal(a, run("dpmpp_2m_sde", seed=4))
    generator = torch.Generator().manual_seed(0)
    first, second = (run("dpmpp_2m_sde", seed=generator) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, run("dpmpp_2m_sde", seed=torch.Generator().manual_seed(0)))
    torch.manual_seed(1)
    third = run("dpmpp_2m_sde", seed=None)
    torch.manual_seed(1)
    assert torch.equal(third, run("dpmpp_2m_sde", seed=None))


def test_philox_state_is_advanced_past_the_run() -> None:
    state = PhiloxState(5, offset=2)
    a = run("dpmpp_2m_sde", x=(2, 3), seed=state)
    assert state == PhiloxState(5, offset=2 + 1 + 6)
    b = run("dpmpp_2m_sde", x=(2, 3), seed=state)
    assert not torch.equal(a, b)
    assert torch.equal(b, run("dpmpp_2m_sde", x=(2, 3), seed=5, offset=9))

    def broken(x: Tensor, t: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("dpmpp_2m_sde", model=broken, seed=state)
    assert state.offset == 16


def test_philox_state_moves_on_by_the_table_alone() -> None:
    """Whatever a run draws, and however early it ends, the next one is the same."""
    expected = run("dpmpp_2m_sde", x=(2, 3), seed=5, offset=1 + 6)
    stopped: dict[str, Any] = {"callback": lambda step: step.index == 1}
    for first in ({"table": "dpmpp_2m"}, {"table": "dpmpp_2m", "x": (2, 3)}, {"table": "dpmpp_2m_sde"}):
        for ending in ({}, stopped):
            state = PhiloxState(5)
            run(**first, **ending, seed=state)
            assert state == PhiloxState(5, offset=1 + 6)
            assert torch.equal(run("dpmpp_2m_sde", x=(2, 3), seed=state), expected)


def test_resuming_a_stopped_run_leaves_the_philox_state() -> None:
    state, kept = PhiloxState(5), []

    def stop(step: StepInfo) -> bool:
        kept.append(step.state())
        return step.index == 1

    run("dpmpp_2m_sde", x=(2, 3), seed=state, callback=stop)
    after = resume(network, kept[-1])
    assert torch.equal(after, run("dpmpp_2m_sde", x=(2, 3), seed=5))
    assert state == PhiloxState(5, offset=1 + 6)


def test_deterministic_runs_leave_the_generator_alone() -> None:
    torch.manual_seed(0)
    run("dpmpp_2m", seed=None)
    after = torch.rand(())
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(()))
    generator = torch.Generator().manual_seed(0)
    run("dpmpp_2m", seed=generator)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(0).get_state())


@pytest.mark.parametrize("kind", [list, torch.tensor])
def test_seed_per_sample_is_a_run_of_its_own(kind: Any) -> None:
    seeds = [11, 5, 11]
    for x in ((3, 4, 2), randn((3, 4, 2), seed=9)):
        together = run("dpmpp_2m_sde", x=x, seed=kind(seeds))
        for b, seed in enumerate(seeds):
            alone = run("dpmpp_2m_sde", x=(1, 4, 2) if isinstance(x, tuple) else x[b : b + 1], seed=seed)
            assert torch.equal(together[b : b + 1], alone)


def test_sample_ids_name_samples() -> None:
    whole = run("dpmpp_2m_sde", x=(4, 3), seed=7)
    part = run("dpmpp_2m_sde", x=(2, 3), seed=7, sample_ids=[3, 1])
    assert torch.equal(part, whole[[3, 1]])


def test_image_to_image() -> None:
    image = randn((2, 3, 4), seed=3)
    model = network
    by_name = {"schedule": VP, "num_steps": 10, "spacing": "logSNR"}
    ts = timesteps(VP, 10, "logSNR")
    result = sample(
        model, None, "dpmpp_2m", **by_name, init_image=image, strength=0.65, prediction_type="v", seed=2
    )
    start = float(VP.alpha(ts[4])) * image + float(VP.sigma(ts[4])) * randn((2, 3, 4), seed=2)
    expected = sample(model, start, make_table("dpmpp_2m", VP, ts[4:]), prediction_type="v")
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    finished = sample(
        model, None, make_table("dpmpp_2m", VP, ts[4:]), init_image=image, prediction_type="v", seed=2
    )
    assert torch.equal(finished, result)


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2s", "dpmpp_2m_sde"])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("differentiable", [False, True])
def test_inpainting(name: str, guided: bool, differentiable: bool) -> None:
    """The known region passes through its own forward process, and the model sees it at every evaluation."""
    schedule = FlowMatching()
    table = make_table(name, schedule, timesteps(schedule, 5))
    image = randn((3, 4, 2), seed=6)
    mask = torch.tensor([1.0, 0.0])
    seen: list[Tensor] = []

    def model(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        seen.append(x[:3].clone())
        return network(x, t)

    kwargs: dict[str, Any] = {"differentiable": differentiable}
    if guided:
        kwargs |= {
            "guidance_scale": 2.0,
            "model_kwargs": {"label": X[:, 0]},
            "uncond_kwargs": {"label": X[:, 1]},
        }
    result = run(
        table,
        x=(3, 4, 2),
        model=model,
        prediction_type="velocity",
        inpaint_image=image,
        inpaint_mask=mask,
        **kwargs,
    )
    assert torch.equal(result[..., 1], image[..., 1])
    assert not torch.equal(result[..., 0], image[..., 0])
    for e, x in enumerate(seen):
        noise = randn((3, 4, 2), seed=0, offset=(1 << 25) + e)
        known = float(table.alpha[e]) * image + float(table.sigma[e]) * noise
        torch.testing.assert_close(x[..., 1], known[..., 1], rtol=1e-6, atol=1e-6)
