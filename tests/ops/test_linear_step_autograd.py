"""Gradients of the step, and the promises its schema makes to torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fastdiff_ops import ops
from ops.step_cases import F32, F64, Case, random_case, raw, run, table
from torch import Tensor

STEP = torch.ops.fastdiff_ops.solver_step.default
STEP_ = torch.ops.fastdiff_ops.solver_step_.default
TENSORS = ("anchor", "history", "noise", "weights", "elem")


def variants() -> dict[str, Case]:
    """Return one case for each shape that a call can take."""
    cases = {
        "plain": random_case(0, (2, 3), n_hist=0, n_store=0, noise=""),
        "everything": random_case(
            1,
            (2, 2, 3),
            n_outs=3,
            n_hist=4,
            n_store=2,
            anchor_mode="row",
            elements=(2, 10, 64),
            elem_shape=(2, 1),
        ),
        "per sample": random_case(2, (2, 4), per_sample=True, clip_mode="dynamic", noise="rngs"),
        "static clip, rng": random_case(3, (3, 2), clip_mode="static", noise="rng", n_store=2),
        "mixed dtypes": random_case(
            4, (2, 5), dtypes=(torch.float16, torch.bfloat16, F32, F32), n_outs=2, anchor_mode="keep"
        ),
        "one axis": random_case(5, (4,), noise="rng"),
    }
    last = random_case(6, (2, 3, 4, 5), noise="rng", anchor_mode="row")
    last.x = last.x.contiguous(memory_format=torch.channels_last)
    transposed = random_case(7, (2, 3, 4), anchor_mode="row")
    transposed.x = transposed.x.mT.contiguous().mT
    return {**cases, "channels last": last, "transposed": transposed}


VARIANTS = variants()


@pytest.mark.parametrize("name", VARIANTS)
def test_opcheck(name):
    case = VARIANTS[name]
    leaf = lambda t: t.detach().clone().requires_grad_()  # noqa: E731
    given = {n: leaf(case.options[n]) for n in TENSORS if case.options.get(n) is not None}
    case = case.changed(x=leaf(case.x), outs=[leaf(o) for o in case.outs], coef=leaf(case.coef), **given)
    torch.library.opcheck(STEP, raw(case))


def test_opcheck_without_gradients():
    torch.library.opcheck(STEP, raw(VARIANTS["everything"]))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("copies", [0, 2])
def test_opcheck_in_place(name, copies):
    case = VARIANTS[name]
    if name == "transposed":  # a written tensor must be dense
        case = case.changed(x=case.x.contiguous())
    x, outs, anchor, history, coef, step, *rest = raw(case)
    if x.dim() == 4:
        anchor = anchor.contiguous(memory_format=torch.channels_last)
        history = history.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    model_in = torch.empty_like(torch.cat([outs[0]] * copies)) if copies else None
    if model_in is not None and x.dim() == 4:
        model_in = model_in.contiguous(memory_format=torch.channels_last)
    arguments = (x, outs, torch.empty_like(x), anchor, history, model_in, coef, step, *rest)
    torch.library.opcheck(STEP_, arguments)


def differentiable(case: Case) -> tuple[list[str], list[Tensor]]:
    """Return the names and values of everything that a gradient goes to."""
    inputs = {"x": case.x, "coef": case.coef}
    inputs |= {f"outs[{k}]": out for k, out in enumerate(case.outs)}
    inputs |= {name: case.options[name] for name in TENSORS if case.options.get(name) is not None}
    return list(inputs), [t.detach().clone().requires_grad_(t.dtype == F64) for t in inputs.values()]


def rebuilt(case: Case, names: list[str], values: tuple[Tensor, ...]) -> Case:
    given = dict(zip(names, values, strict=True))
    free = torch.ones(64, dtype=torch.bool, device=case.x.device)
    columns = free[8:60].view(4, 13)
    columns[:, 5 + case.options["history"].shape[0] :] = False
    columns[:, 4] &= case.options["anchor_mode"] == "row"
    given["coef"] = torch.where(free, given["coef"], case.coef)
    outs = [given.pop(f"outs[{k}]") for k in range(len(case.outs))]
    return case.changed(outs=outs, **given)


def checked(case: Case) -> tuple[Any, list[Tensor]]:
    names, values = differentiable(case)

    def function(*inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(t for t in run(rebuilt(case, names, inputs)) if t.numel())

    return function, values


GRADIENT_CASES = {
    "one output": {"n_hist": 2, "n_store": 1, "noise": "tensor"},
    "two outputs, row A, two stores": {"n_outs": 2, "n_hist": 2, "n_store": 2, "anchor_mode": "row"},
    "per sample": {"per_sample": True, "n_outs": 2, "n_hist": 3},
    "elements": {"elements": (1, 2, 4, 10, 13, 64, 66), "elem_shape": (3,), "elem_steps": 2},
    "element scalars": {"elements": (3, 6, 7, 36), "elem_shape": (), "n_outs": 2},
    "rng": {"noise": "rng", "anchor_mode": "row"},
    "rng per sample": {"noise": "rngs"},
}


@pytest.mark.parametrize("clip_mode", ["none", "static", "dynamic"])
@pytest.mark.parametrize("name", GRADIENT_CASES)
def test_gradcheck(backend, name, clip_mode):
    options = {"anchor_mode": "keep"} | GRADIENT_CASES[name]
    case = random_case(len(name), (2, 3), dtypes=(F64,) * 4, clip_mode=clip_mode, steps=2, **options)
    if "elem" in case.options:
        case.options["elem"] = case.options["elem"].double()
    if "weights" in case.options:
        case.options["weights"][case.options["weights"] == 0] = 0.5
    function, values = checked(case.to(backend.device))
    torch.autograd.gradcheck(function, values)


@pytest.mark.emulated
def test_gradcheck_small(backend):
    """Forward on emulated CUDA kernels; fast mode probes random directions."""
    options = {"n_outs": 2, "n_store": 2, "anchor_mode": "row", "elements": (10, 64), "elem_shape": (3,)}
    case = random_case(1, (2, 3), dtypes=(F64,) * 4, clip_mode="static", steps=1, **options)
    function, values = checked(case.to(backend.device))
    torch.autograd.gradcheck(function, values, fast_mode=True)


@pytest.mark.parametrize("clip_mode", ["none", "static", "dynamic"])
@pytest.mark.parametrize("name", ["two outputs, row A, two stores", "elements", "rng per sample"])
def test_gradgradcheck(name, clip_mode):
    options = {"anchor_mode": "keep"} | GRADIENT_CASES[name]
    options |= {"elem_shape": (), "elem_steps": 1}
    case = random_case(len(name), (2, 2), dtypes=(F64,) * 4, clip_mode=clip_mode, steps=1, **options)
    if "elem" in case.options:
        case.options["elem"] = case.options["elem"].double()
    function, values = checked(case)
    torch.autograd.gradgradcheck(function, values, fast_mode=True)


def test_gradient_of_a_row_is_the_transposed_row(backend):
    """X = a x + b m, S0 = c m, m = u = p x + q o: the gradient in closed form, half precision too."""
    coef = table({"X": ops.Row(state=0.5, output=2.0), "S0": ops.Row(output=-1.5)}, conv=(0.25, 4.0))
    coef, step = coef.to(backend.device), torch.tensor(0, device=backend.device)
    for dtype in (F32, torch.float16, torch.bfloat16):
        x, out = (torch.ones(2, 3, dtype=dtype, device=backend.device, requires_grad=True) for _ in range(2))
        x_next, _, stored, _ = ops.solver_step(x, [out], coef, step, n_store=1)
        (x_next + 2 * stored).sum().backward()
        assert x.grad.dtype == out.grad.dtype == dtype
        assert (x.grad == 0.5 + 2 * 0.25 - 3 * 0.25).all()
        assert (out.grad == 2 * 4 - 3 * 4).all()


def test_clipped_elements_have_no_gradient(backend):
    coef = table({"X": ops.Row(output=1.0)}, clip_bound=1.0).to(backend.device)
    step = torch.tensor(0, device=backend.device)
    out = torch.tensor([[-3.0, -0.5, 0.5, 3.0]], device=backend.device, requires_grad=True)
    x = torch.zeros_like(out)
    ops.solver_step(x, [out], coef, step, clip_mode="static")[0].sum().backward()
    assert out.grad.tolist() == [[0, 1, 1, 0]]
    out.grad = None
    scale = torch.full((1,), 2.0, device=backend.device)
    ops.solver_step(x, [out], coef, step, clip_mode="dynamic", clip_scale=scale)[0].sum().backward()
    assert out.grad.tolist() == [[0, 0.5, 0.5, 0]]


def test_gradient_goes_to_the_row_of_this_step_only(backend):
    case = random_case(3, (2, 4), dtypes=(F64,) * 4, per_sample=True, steps=3).to(backend.device)
    coef = case.coef.clone().requires_grad_()
    weights = case.options["weights"].clone().requires_grad_()
    case = case.changed(coef=coef, weights=weights)
    run(case)[0].sum().backward()
    used = torch.arange(3, device=backend.device) == case.step
    assert bool((coef.grad[~used] == 0).all()) and bool((coef.grad[used] != 0).any())
    assert coef.grad.shape == coef.shape and weights.grad.shape == weights.shape


def test_in_place_refuses_gradients(backend):
    case = random_case(0, (2, 3)).to(backend.device)
    x_out = torch.empty_like(case.x)
    for name in ("x", "outs", "coef", "anchor", "history", "noise"):
        tensors = {"x": case.x, "outs": case.outs[0], "coef": case.coef, **case.options}
        changed = {name: tensors[name].clone().requires_grad_()}
        bad = case.changed(**({"outs": [changed["outs"]]} if name == "outs" else changed))
        with pytest.raises(RuntimeError, match="use solver_step"):
            ops.solver_step_(bad.x, bad.outs, x_out, bad.coef, bad.step, **bad.options)
        with torch.no_grad():
            bad.options["history"] = bad.options["history"].detach()
            ops.solver_step_(bad.x, bad.outs, x_out, bad.coef, bad.step, **bad.options)


def test_gradient_of_a_trajectory_reaches_the_start():
    """Ten steps of a linear model: d x_10 / d x_0 by autograd equals the product of the steps' factors."""
    random = torch.Generator().manual_seed(0)
    factors = torch.rand(10, 2, generator=random, dtype=F64)
    rows = [{"X": ops.Row(state=float(a), output=float(b))} for a, b in factors]
    coef = table(*rows)
    x = torch.ones(1, 1, dtype=F64, requires_grad=True)
    start = x
    for e in range(10):
        x = ops.solver_step(x, [0.3 * x], coef, torch.tensor(e))[0]
    x.sum().backward()
    torch.testing.assert_close(start.grad.flatten()[0], (factors[:, 0] + 0.3 * factors[:, 1]).prod())
