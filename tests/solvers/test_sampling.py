"""`sample`: what it calls, what it accepts, what it returns."""

from __future__ import annotations

from collections import Counter
from typing import Any

import fastdiff_ops.reference
import numpy as np
import pytest
import torch
from fastdiff_ops.ops.random import PhiloxState, randn
from fastdiff_ops.schedules import EDM, VE, Discrete, FlowMatching, VPLinear, timesteps
from fastdiff_ops.solvers import SolverTable, StepInfo, make_table, sample
from problems import MixtureModel, rms, start_points
from solver_tables import IDS, TABLES, run_table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

VP = VPLinear()
TS = timesteps(VP, 6, "logSNR")
X = randn((3, 4, 5, 5), seed=1)


def network(x: Tensor, t: Tensor) -> Tensor:
    """Something smooth that depends on everything."""
    return torch.tanh(x) * (1.0 + t.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1)))


def run(table: SolverTable | str = "dpmpp_2m", x: Any = X, model: Any = network, **kwargs: Any) -> Tensor:
    if isinstance(table, str):
        table = make_table(table, VP, TS)
    return sample(model, x, table, **{"prediction_type": "v", "seed": 0, **kwargs})


class CountOperators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


# ---- the loop


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

    import dataclasses

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


# ---- starting points and seeds


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


def test_deterministic_runs_leave_the_generator_alone() -> None:
    torch.manual_seed(0)
    run("dpmpp_2m", seed=None)
    after = torch.rand(())
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(()))


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
def test_inpainting(name: str, guided: bool) -> None:
    """The known region passes through its own forward process, and the model sees it at every evaluation."""
    schedule = FlowMatching()
    table = make_table(name, schedule, timesteps(schedule, 5))
    image = randn((3, 4, 2), seed=6)
    mask = torch.tensor([1.0, 0.0])
    seen: list[Tensor] = []

    def model(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        seen.append(x[:3].clone())
        return network(x, t)

    kwargs: dict[str, Any] = {}
    if guided:
        kwargs = {
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


# ---- clipping


@pytest.mark.parametrize("name", ["dpmpp_2m", "heun", "ddim"])
@pytest.mark.parametrize("clip", ["static", "dynamic"])
def test_clipping(name: str, clip: str) -> None:
    """Against the formula: x0 from the output, clipped, then what the solver works with."""
    table = make_table(name, VP, TS).bind("v")
    limits = {"clip_value": 0.3, "clip_quantile": 0.9, "clip_cap": 0.8}
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


# ---- watching a run


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


# ---- gradients


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


# ---- bad input


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"x": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "`x` must be float16.*got torch.int64"),
        ({"x": torch.zeros(2, 3, dtype=torch.complex64)}, TypeError, "`x` must be float16"),
        ({"x": torch.tensor(1.0)}, ValueError, "`x` must have a batch axis"),
        ({"x": None}, ValueError, "give either `x` .* or `init_image`"),
        ({"init_image": X}, ValueError, "give either `x` .* or `init_image`"),
        ({"x": X, "dtype": torch.float64}, ValueError, "`dtype` and `device` are for a shape"),
        ({"x": (2, 3), "dtype": torch.int32}, TypeError, "`x` must be float16"),
        ({"strength": 0.5}, ValueError, "`strength` needs `init_image`"),
        ({"x": None, "init_image": X, "strength": 0.5}, ValueError, "`strength` goes with a solver's name"),
        ({"num_steps": 5}, ValueError, "`num_steps` goes with a solver's name"),
        ({"prediction_type": None}, ValueError, "`prediction_type` must be given"),
        ({"prediction_type": "epsilon"}, ValueError, "`prediction_type` must be one of eps, x0"),
        ({"clip": "hard"}, ValueError, "`clip` must be None, 'static' or 'dynamic'"),
        ({"clip": "static", "clip_value": -1.0}, ValueError, "`clip_value` must be positive"),
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
    ],
)
def test_bad_input(kwargs: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run("dpmpp_2m_sde", **kwargs)


@pytest.mark.parametrize(
    ("table", "kwargs", "error", "message"),
    [
        ("dpm", {}, ValueError, "unknown solver 'dpm'; known are ddim"),
        ("ddim", {"schedule": None}, ValueError, "needs `schedule` and `num_steps`"),
        ("ddim", {"num_steps": None}, ValueError, "needs `schedule` and `num_steps`"),
        ("ddim", {"num_steps": 0}, ValueError, "`n` must be at least 1"),
        ("ddim", {"spacing": "cubic"}, ValueError, "`spacing` must be one of"),
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
