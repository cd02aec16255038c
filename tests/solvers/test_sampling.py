"""`sample`: what its loop computes and calls."""

from __future__ import annotations

import dataclasses
from collections import Counter
from types import SimpleNamespace
from typing import Any

import fastdiff_ops.reference
import numpy as np
import pytest
import torch
from fastdiff_ops.ops.random import randn
from fastdiff_ops.schedules import EDM, VE, Discrete, timesteps
from fastdiff_ops.solvers import SolverTable, make_table, sample
from fastdiff_ops.solvers.packing import coef_dtype
from problems import MixtureModel, rms, start_points
from solver_runs import TS, VP, X, network, run
from solver_tables import IDS, TABLES, run_table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class CountOperators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("table", TABLES, ids=IDS)
def test_equals_the_rows_applied_by_hand(table: SolverTable) -> None:
    """float64, every solver and schedule, in place and functional: the table says everything."""
    bound = table.bind("x0") if table.schedule.kind != "edm" else table.bind("edm")
    x = start_points(table.schedule)

    def model(x: Tensor, t: Tensor) -> Tensor:
        return torch.cos(x) + 0.1 * t[:, None]

    draws = [randn((16, 2), seed=8, offset=1 + e, dtype=torch.float64).numpy() for e in range(len(bound))]

    def target(e: int, x: np.ndarray) -> np.ndarray:
        net = model(
            torch.from_numpy(table.c_in[e] * x), torch.full((16,), table.t_eval[e], dtype=torch.float64)
        )
        return bound.conv[e, 0] * x + bound.conv[e, 1] * net.numpy()

    expected = torch.from_numpy(run_table(bound, x.numpy(), target, draws)[-1])
    scale = float(expected.abs().max()) + 1.0
    for differentiable in (False, True):
        actual = sample(model, x, bound, seed=8, differentiable=differentiable)
        torch.testing.assert_close(actual.detach(), expected, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("name", ["ddim", "heun", "dpmpp_2m", "dpmpp_3m_sde", "dpmpp_3s"])
def test_one_operator_call_per_evaluation(name: str) -> None:
    outs = [torch.randn_like(X) for _ in range(20)]

    def evaluations(count: int) -> Counter[str]:
        values = iter(outs)
        table = make_table(name, VP, timesteps(VP, count, "logSNR"))
        with CountOperators() as mode:
            run(table, model=lambda x, t: next(values))
        assert mode.counts["fastdiff_ops.solver_step_.default"] == len(table)
        return mode.counts

    six, nine = evaluations(6), evaluations(9)
    more = {key: nine[key] - six[key] for key in nine if nine[key] != six[key]}
    # nothing else happens in the loop; buffers are rotated
    assert set(more) <= {"fastdiff_ops.solver_step_.default", "aten.detach.default"}


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "dpmpp_3s", "heun"])
def test_inputs_are_not_written(name: str) -> None:
    x = X.clone()
    run(name, x=x)
    assert torch.equal(x, X)


def test_states_use_few_buffers() -> None:
    seen: dict[str, set[int]] = {}
    for name in ("dpmpp_2m", "dpmpp_3s"):
        pointers = seen.setdefault(name, set())
        run(
            make_table(name, VP, timesteps(VP, 12, "logSNR")),
            callback=lambda s, p=pointers: p.add(s.x.data_ptr()),
        )
    assert len(seen["dpmpp_2m"]) == 2
    assert len(seen["dpmpp_3s"]) <= 3


def test_row_anchor_and_elements_run_as_the_reference_says() -> None:
    """Tables that no solver here makes: a corrected anchor, two stored values, element coefficients and
    biases."""
    rng = np.random.default_rng(3)
    n = 5
    rows = np.zeros((n, 4, 13))
    rows[:, 0, :5] = rng.normal(size=(n, 5))
    rows[:, 1, :4] = rng.normal(size=(n, 4))
    rows[:, 2:, [0, 2]] = rng.normal(size=(n, 2, 2))
    rows[1:, :2, 5:7] = rng.normal(size=(n - 1, 2, 2))
    rows[2:, :2, 7:9] = rng.normal(size=(n - 2, 2, 2))
    base = make_table("ddim", VP, timesteps(VP, n, "logSNR"))
    table = SolverTable(
        **{
            name: getattr(base, name)
            for name in ("name", "schedule", "options", "t", "t_next", "t_eval", "c_in")
        },
        target=("x0",) * n,
        rows=rows,
        anchor=("row",) * n,
        n_hist=4,
        n_store=2,
        jump=base.jump,
    )
    x = start_points(VP)

    def target(e: int, x: np.ndarray) -> np.ndarray:
        return np.sin(x)

    draws = [randn((16, 2), seed=8, offset=1 + e, dtype=torch.float64).numpy() for e in range(n)]
    expected = torch.from_numpy(run_table(table, x.numpy(), target, draws)[-1])
    for differentiable in (False, True):
        actual = sample(
            lambda x, t: torch.sin(x), x, table, prediction_type="x0", seed=8, differentiable=differentiable
        )
        torch.testing.assert_close(actual.detach(), expected, rtol=1e-12, atol=1e-10)

    elem = rng.normal(size=(n, 2, 2))  # the weight of x and the bias of row X, per element of a sample
    with_elements = dataclasses.replace(base, elem=elem, elem_map=(8, 64))
    actual = sample(lambda x, t: torch.sin(x), x, with_elements, prediction_type="x0")
    state = x
    for e in range(n):
        row = base.step(e).state
        state = (
            torch.from_numpy(elem[e, 0]) * state
            + row.output * torch.sin(state)
            + torch.from_numpy(elem[e, 1])
        )
    torch.testing.assert_close(actual, state, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["dpmpp_3m", "heun", "dpmpp_2m_sde"])
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    exact = run(name, x=X.double())
    seen: set[torch.dtype] = set()

    def model(x: Tensor, t: Tensor) -> Tensor:
        seen.update((x.dtype, t.dtype))
        return network(x, t)

    result = run(name, x=X.to(dtype), model=model)
    assert result.dtype == dtype
    assert seen == {dtype, torch.float64 if dtype == torch.float64 else torch.float32}
    tolerance = {torch.float16: 2e-2, torch.bfloat16: 0.15, torch.float32: 2e-5, torch.float64: 1e-13}[dtype]
    assert rms(result, exact) < tolerance


def test_history_dtype() -> None:
    x = X.half()
    default = run("dpmpp_3m", x=x)
    assert torch.equal(default, run("dpmpp_3m", x=x, history_dtype=torch.float32))
    assert not torch.equal(default, run("dpmpp_3m", x=x, history_dtype=torch.float16))


@pytest.mark.parametrize("name", ["dpmpp_3m_sde", "heun", "dpmpp_3s"])
def test_memory_formats(name: str) -> None:
    expected = run(name)
    last = X.to(memory_format=torch.channels_last)
    result = run(name, x=last)
    assert torch.equal(result, expected)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(run(name, x=X.transpose(2, 3)), run(name, x=X.transpose(2, 3).contiguous()))
    assert torch.equal(run(name, x=torch.stack([X, X], -1)[..., 0]), expected)


def test_empty_batch() -> None:
    assert run(x=torch.empty(0, 4, 5, 5)).shape == (0, 4, 5, 5)


def test_model_arguments_and_times() -> None:
    schedule = Discrete.from_table("linear", reading="diffusers")
    table = make_table("ddim", schedule, timesteps(schedule, 4, "leading", family="ddim"))
    seen = []

    def model(x: Tensor, t: Tensor, scale: float, *, shift: Tensor) -> Tensor:
        seen.append((t.tolist(), scale, shift))
        return x

    shift = torch.tensor(2.0)
    run(table, model=model, model_kwargs={"scale": 3.0, "shift": shift})
    assert [t for t, *_ in seen] == [[750.0] * 3, [500.0] * 3, [250.0] * 3, [0.0] * 3]
    assert all(scale == 3.0 and given is shift for _, scale, given in seen)


def test_edm_network_sees_scaled_inputs() -> None:
    """A raw network with EDM preconditioning gives the same samples as its denoiser on the plain path."""
    schedule, plain = EDM(sigma_data=0.6), VE()
    ts = timesteps(schedule, 8, "karras", final_sigma="zero")
    denoiser = MixtureModel(plain, "x0")

    def raw(scaled: Tensor, c_noise: Tensor) -> Tensor:
        sigma = torch.exp(4.0 * c_noise)
        x = scaled / schedule.c_in(sigma)[:, None]
        return (denoiser(x, sigma) - schedule.c_skip(sigma)[:, None] * x) / schedule.c_out(sigma)[:, None]

    x = start_points(plain)
    for name in ("dpmpp_2m", "heun"):
        expected = sample(denoiser, x, make_table(name, plain, ts), prediction_type="x0")
        actual = sample(raw, x, make_table(name, schedule, ts), prediction_type="edm")
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["dpmpp_2m", "heun", "ddim"])
@pytest.mark.parametrize("clip", ["static", "dynamic"])
def test_clipping(name: str, clip: str) -> None:
    """Against the formula: x0 from the output, clipped, then what the solver works with."""
    table = make_table(name, VP, TS).bind("v")
    limits = {"clip_value": 0.3}
    if clip == "dynamic":
        limits |= {"clip_quantile": 0.9, "clip_cap": 0.8}
    x = X.double()

    def target(e: int, state: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(state)
        c_x, c_o = VP.conversion(table.t[e], "v", "x0")
        x0 = float(c_x) * x + float(c_o) * network(x, torch.full((3,), table.t_eval[e], dtype=torch.float64))
        if clip == "static":
            x0 = x0.clamp(-0.3, 0.3)
        else:
            s = torch.quantile(x0.abs().flatten(1), 0.9, dim=1).clamp(0.3, 0.8)[:, None, None, None]
            x0 = torch.maximum(torch.minimum(x0, s), -s) / s
        if table.target[e] == "x0":
            return x0.numpy()
        return ((x - table.alpha[e] * x0) / table.sigma[e]).numpy()

    expected = run_table(table, x.numpy(), target, [np.zeros(())] * len(table))[-1]
    for differentiable in (False, True):
        actual = run(table, x=x, clip=clip, differentiable=differentiable, **limits)
        torch.testing.assert_close(actual.detach(), torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


def test_clipping_defaults() -> None:
    inf = float("inf")
    assert torch.equal(run(clip="static"), run(clip="static", clip_value=1.0))
    limits = {"clip_value": 1.0, "clip_quantile": 0.995, "clip_cap": inf}
    assert torch.equal(run(clip="dynamic"), run(clip="dynamic", **limits))


@pytest.mark.parametrize("name", ["dpmpp_2m", "heun", "dpmpp_2m_sde", "dpmpp_3s"])
def test_gradients(name: str) -> None:
    table = make_table(name, VP, timesteps(VP, 3, "logSNR"))
    weight = torch.tensor([0.7, -0.2], dtype=torch.float64, requires_grad=True)
    x = start_points(VP)[:2].requires_grad_()

    def end(x: Tensor, weight: Tensor) -> Tensor:
        return sample(
            lambda x, t: torch.tanh(x * weight), x, table, prediction_type="v", seed=1, differentiable=True
        )

    assert torch.autograd.gradcheck(end, (x, weight))


def test_gradients_are_recorded_only_when_asked() -> None:
    layer = torch.nn.Linear(2, 2).double()
    x = start_points(VP)
    table = make_table("dpmpp_2m", VP, TS)
    model = lambda x, t: layer(x)  # noqa: E731
    assert not sample(model, x, table, prediction_type="v").requires_grad
    assert sample(model, x, table, prediction_type="v", differentiable=True).requires_grad
    leaf = x.clone().requires_grad_()
    assert sample(model, leaf, table, prediction_type="v").requires_grad
    assert not sample(model, leaf, table, prediction_type="v", differentiable=False).requires_grad
    with torch.no_grad():
        assert not sample(model, leaf, table, prediction_type="v").requires_grad


def test_reference_gives_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator and the reference agree over whole runs, with everything on."""
    kwargs: dict[str, Any] = {"clip": "static", "seed": 3}
    expected = run("dpmpp_3m_sde", x=X.double(), **kwargs)

    def reference(*args: Any) -> None:
        fastdiff_ops.reference.solver_step_(*args)

    class Stub:
        default = staticmethod(reference)

    import fastdiff_ops.solvers.loop as loop

    original = loop.torch.ops.fastdiff_ops.solver_step_
    monkeypatch.setattr(torch.ops.fastdiff_ops, "solver_step_", Stub)
    actual = run("dpmpp_3m_sde", x=X.double(), **kwargs)
    monkeypatch.setattr(torch.ops.fastdiff_ops, "solver_step_", original)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)  # its normals agree to a few 1e-7


def test_coefficient_types() -> None:
    assert {coef_dtype(torch.device(name)) for name in ("cpu", "cuda", "xpu", "meta")} == {torch.float64}
    assert coef_dtype(torch.device("mps")) == torch.float32


@pytest.mark.parametrize("differentiable", [False, True])
def test_no_float64_reaches_a_device_without_it(
    differentiable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operators stood in for by their references, which take float32 coefficients on every device."""
    table = make_table("dpmpp_2m_sde", VP, TS)
    table = dataclasses.replace(table, elem=np.ones((1, 1, 4, 1, 1)), elem_map=(64,))
    guidance = {"guidance_scale": 2.0, "model_kwargs": {"shift": X}, "uncond_kwargs": {"shift": 0 * X}}

    def model(x: Tensor, t: Tensor, shift: Tensor) -> Tensor:
        assert t.dtype == torch.float32
        return network(x, t) + shift

    kwargs: dict[str, Any] = {**guidance, "model": model, "clip": "dynamic", "differentiable": differentiable}
    expected = run(table, **kwargs)

    def without_float64(function: Any) -> Any:
        def call(*args: Any) -> Any:
            tensors = [a for a in args if isinstance(a, Tensor)]
            assert all(a.dtype != torch.float64 for a in tensors)
            return function(*args)

        return SimpleNamespace(default=call)

    for module in ("sampling", "branches"):
        monkeypatch.setattr(f"fastdiff_ops.solvers.{module}.coef_dtype", lambda device: torch.float32)
    for name in ("solver_step", "solver_step_", "abs_quantile"):
        stub = without_float64(getattr(fastdiff_ops.reference, name))
        monkeypatch.setattr(torch.ops.fastdiff_ops, name, stub)
    torch.testing.assert_close(run(table, **kwargs), expected, rtol=1e-5, atol=1e-5)
