"""Classifier-free guidance in `sample`: one batched call or two, weights in the fused step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fastdiff_ops.ops.random import randn
from fastdiff_ops.schedules import EDM, VPLinear, timesteps
from fastdiff_ops.solvers import make_table, sample
from torch import Tensor

VP = VPLinear()
TABLE = make_table("dpmpp_2m", VP, timesteps(VP, 6, "logSNR"))
X = randn((3, 4), seed=1, dtype=torch.float64)
LABEL, NOTHING = randn((3, 4), seed=2, dtype=torch.float64), torch.zeros(1, 4, dtype=torch.float64)


def model(x: Tensor, t: Tensor, label: Tensor, gain: float = 1.0) -> Tensor:
    return gain * torch.tanh(x + label) * (1.0 + t[:, None])


def guided(scale: Any, table: Any = TABLE, x: Tensor = X, **kwargs: Any) -> Tensor:
    arguments = {
        "model_kwargs": {"label": LABEL},
        "uncond_kwargs": {"label": NOTHING},
        "prediction_type": "v",
    }
    return sample(kwargs.pop("model", model), x, table, guidance_scale=scale, **{**arguments, **kwargs})


def by_hand(w: Tensor | float, table: Any = TABLE, **kwargs: Any) -> Tensor:
    w = torch.as_tensor(w).reshape(-1, 1)
    combined = lambda x, t: (1 - w) * model(x, t, NOTHING) + w * model(x, t, LABEL)  # noqa: E731
    return sample(combined, X, table, prediction_type="v", **kwargs)


@pytest.mark.parametrize("batching", ["concat", "two_calls"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.5, torch.tensor([0.0, 1.0, 7.5])], ids=str)
@pytest.mark.parametrize("differentiable", [False, True])
def test_equals_the_formula(scale: Any, batching: str, differentiable: bool) -> None:
    actual = guided(scale, guidance_batching=batching, differentiable=differentiable)
    torch.testing.assert_close(actual.detach(), by_hand(scale), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["heun", "dpmpp_3s", "dpmpp_2m_sde"])
def test_every_kind_of_step(name: str) -> None:
    table = make_table(name, VP, timesteps(VP, 6, "logSNR"))
    torch.testing.assert_close(
        guided(2.5, table, seed=3), by_hand(2.5, table, seed=3), rtol=1e-10, atol=1e-11
    )


def test_calls_and_batches() -> None:
    seen: list[tuple[int, int, int]] = []

    def counted(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        seen.append((len(x), len(t), len(label)))
        return model(x, t, label)

    guided(2.0, model=counted)
    assert seen == [(6, 6, 6)] * 6
    seen.clear()
    guided(2.0, model=counted, guidance_batching="two_calls")
    assert seen == [(3, 3, 1), (3, 3, 3)] * 6


def test_half_precision_network_and_scaled_input() -> None:
    """The doubled, scaled network input is written by the step itself, and right."""
    schedule = EDM()
    table = make_table("dpmpp_2m", schedule, timesteps(schedule, 5, "karras"))
    for dtype in (torch.float32, torch.bfloat16):
        x = (80.0 * X).to(dtype)
        inputs: list[Tensor] = []

        def raw(net_in: Tensor, t: Tensor, label: Tensor, inputs: list[Tensor] = inputs) -> Tensor:
            inputs.append(net_in.clone())
            return model(net_in, t, label).to(net_in.dtype)

        states = guided(2.0, table, x=x, model=raw, prediction_type="edm", return_trajectory=True)[1]
        for e, net_in in enumerate(inputs):
            expected = (table.c_in[e] * states[e].double()).to(dtype)
            assert net_in.dtype == dtype
            torch.testing.assert_close(
                net_in[:3], expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6, atol=0
            )
            assert torch.equal(net_in[:3], net_in[3:])


def test_network_output_of_another_dtype() -> None:
    """Networks under autocast answer in another dtype than they are asked in."""
    x = X.float()
    for batching in ("concat", "two_calls"):
        result = guided(
            2.0,
            x=x,
            guidance_batching=batching,
            model=lambda x, t, label: model(x, t, label.to(x.dtype)).bfloat16(),
        )
        assert result.dtype == torch.float32
        assert torch.isfinite(result).all()


@pytest.mark.parametrize("returned", [lambda x: x, lambda x: x.view_as(x)])
@pytest.mark.parametrize("batching", ["concat", "two_calls"])
@pytest.mark.parametrize("schedule", [VP, EDM()], ids=["plain", "scaled"])
def test_network_that_returns_its_input(schedule: Any, batching: str, returned: Any) -> None:
    """The step writes the next network input, which then is no output any more."""
    table = make_table("dpmpp_2m", schedule, timesteps(schedule, 5, "logSNR"))
    none = {"model_kwargs": {}, "uncond_kwargs": {}, "prediction_type": "x0"}
    runs = [
        guided(2.0, table, model=model, guidance_batching=batching, **none)
        for model in (lambda x, t: returned(x), lambda x, t: x.clone())
    ]
    assert torch.equal(*runs)
    alone = [
        sample(model, X, table, prediction_type="x0")
        for model in (lambda x, t: returned(x), lambda x, t: x.clone())
    ]
    assert torch.equal(*alone)


def test_nested_and_shared_arguments() -> None:
    table = torch.arange(5.0)  # not per sample: passed through

    def nested(x: Tensor, t: Tensor, cond: dict, freqs: Tensor, flags: list) -> Tensor:
        assert freqs is table
        assert flags == [True, "a"]
        return model(x, t, cond["label"], cond["gain"])

    shared = {"freqs": table, "flags": [True, "a"]}
    actual = guided(
        2.0,
        model=nested,
        model_kwargs={"cond": {"label": LABEL, "gain": 1.0}, **shared},
        uncond_kwargs={"cond": {"label": NOTHING, "gain": 1.0}},
    )
    torch.testing.assert_close(actual, by_hand(2.0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"uncond_kwargs": {"label": NOTHING, "gain": 2.0}},
            "`uncond_kwargs` has gain, which `model_kwargs` lacks",
        ),
        (
            {"model_kwargs": {"label": LABEL, "gain": 1.0}, "uncond_kwargs": {"gain": 2.0}},
            r"`uncond_kwargs\['gain'\]` is 2.0 where `model_kwargs` has 1.0",
        ),
        ({"uncond_kwargs": {"label": torch.zeros(2, 4)}}, r"`uncond_kwargs\['label'\]` holds \(2, 4\) where"),
        ({"uncond_kwargs": {"label": torch.zeros(3, 5)}}, r"holds \(3, 5\) where"),
        ({"uncond_kwargs": {"label": None}}, "is None where"),
    ],
)
def test_what_one_batch_cannot_hold(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        guided(2.0, **kwargs)


def test_bad_scale() -> None:
    with pytest.raises(ValueError, match=r"`guidance_scale` must be a number or \[3\], got shape \(2,\)"):
        guided(torch.ones(2))
