"""torch.compile without recompilation, torch.export, AOTInductor, and the route to the reference."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from fastdiff_ops import ops, reference
from ops.step_cases import F16, F32, F64, Case, check_case, random_case, raw, run, same
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def network(x: Tensor) -> Tensor:
    return torch.tanh(x) * 0.5 + torch.sin(3 * x)


def loop(x: Tensor, coef: Tensor, rng: Tensor, ring: Tensor) -> tuple[Tensor, Tensor]:
    """Run every step of a table in place: a sampler in six lines."""
    step = torch.zeros((), dtype=torch.int64, device=x.device)
    buffers = [x.clone(), torch.empty_like(x)]
    for _ in range(coef.shape[0]):
        ops.solver_step_(
            buffers[0], [network(buffers[0])], buffers[1], coef, step, history=ring, rng=rng, n_store=1
        )
        buffers.reverse()
        step = step + 1
    return buffers[0], ring


def functional(x: Tensor, coef: Tensor, step: Tensor, rng: Tensor, history: Tensor) -> list[Tensor]:
    return ops.solver_step(
        x, [network(x)], coef, step, anchor=x, history=history, rng=rng, n_store=1, anchor_mode="row"
    )


def arguments(seed: int, shape: tuple[int, ...] = (2, 3, 8)) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    case = random_case(seed, shape, steps=5, noise="rng")
    case.coef[..., [9, 22, 35, 48]] = 0  # no anchor in this loop
    return case.x, case.coef, case.options["rng"], case.options["history"]


def test_a_whole_loop_is_one_graph_that_never_recompiles():
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loop, fullgraph=True, backend=counter)
    for seed in range(4):
        x, coef, rng, ring = arguments(seed)
        expected = loop(x, coef, rng, ring.clone())
        assert same(compiled(x, coef, rng, ring.clone()), expected)
    assert counter.frame_count == 1


def test_one_step_serves_every_step_index_coefficient_and_seed():
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(functional, fullgraph=True, backend=counter)
    for seed in range(3):
        x, coef, rng, ring = arguments(seed)
        for e in range(5):
            step = torch.tensor(e)
            assert same(compiled(x, coef, step, rng + e, ring), functional(x, coef, step, rng + e, ring))
    assert counter.frame_count == 1


def test_dynamic_shapes_are_one_graph():
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(functional, fullgraph=True, dynamic=True, backend=counter)
    for shape in ((6, 3, 8), (4, 7, 10), (9, 11, 12)):  # no size equal to another: torch would tie them
        x, coef, rng, ring = arguments(0, shape)
        step = torch.tensor(1)
        assert same(compiled(x, coef, step, rng, ring), functional(x, coef, step, rng, ring))
    assert counter.frame_count == 1


def test_gradients_through_compiled_steps():
    """The gradient too, with element coefficients absent: forward and backward graphs of torch.compile."""
    x, coef, rng, ring = arguments(1)
    grads = []
    for call in (functional, torch.compile(functional, fullgraph=True, backend="aot_eager")):
        leaves = [t.clone().requires_grad_() for t in (x, coef, ring)]
        results = call(leaves[0], leaves[1], torch.tensor(2), rng, leaves[2])
        sum(r.sum() for r in results).backward()
        grads.append([leaf.grad for leaf in leaves])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


class Step(torch.nn.Module):
    """What an application would ship: the model and one solver step."""

    def forward(self, x: Tensor, coef: Tensor, step: Tensor, rng: Tensor, history: Tensor) -> list[Tensor]:
        return functional(x, coef, step, rng, history)


def test_export():
    x, coef, rng, ring = arguments(2)
    program = torch.export.export(Step(), (x, coef, torch.tensor(0), rng, ring))
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("fastdiff_ops.solver_step.default") == 1
    for e in range(5):
        inputs = (x, coef, torch.tensor(e), rng, ring)
        assert same(program.module()(*inputs), functional(*inputs))


@pytest.mark.slow
def test_inductor_and_its_ahead_of_time_package(tmp_path):
    """Same numbers from inductor, now and ahead of time; the network may round a little differently."""
    x, coef, rng, ring = arguments(3)
    inputs = (x, coef, torch.tensor(3), rng, ring)
    expected = functional(*inputs)
    compiled = torch.compile(functional, fullgraph=True)(*inputs)
    program = torch.export.export(Step(), inputs)
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "step.pt2"))
    package = torch._inductor.aoti_load_package(path)
    for e in (3, 0):
        inputs = (x, coef, torch.tensor(e), rng, ring)
        for got, wanted in zip(package(*inputs), functional(*inputs), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    for got, wanted in zip(compiled, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("routed", [True, False])
def test_the_environment_routes_to_the_reference(routed):
    """Both forms reach the reference with FASTDIFF_OPS_REFERENCE=1, and never without."""
    code = """
import torch
import fastdiff_ops.reference.linear_step as reference
from ops.step_cases import check_case, random_case, run_in_place
calls = []
evaluate = reference.evaluate
reference.evaluate = lambda *inputs: calls.append(1) or evaluate(*inputs)
for seed in range(5):
    case = random_case(seed, n_outs=2, anchor_mode="row", n_store=2, clip_mode="static", elements=(10, 64))
    check_case(case)
    run_in_place(case, copies=2)
compiled = torch.compile(lambda x: torch.ops.fastdiff_ops.solver_step(
    x, [x], None, None, case.coef[:, :, :] * 0, case.step, None, None, None, None, None, None, 0, 0, 0
)[0], backend="aot_eager")
compiled(case.x)
print(len(calls))
"""
    environment = os.environ | {
        "FASTDIFF_OPS_REFERENCE": str(int(routed)),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (int(done.stdout) >= 11) if routed else done.stdout.strip() == "0"


@pytest.mark.parametrize("dtype", [F16, F32, F64], ids=str)
def test_the_reference_agrees_with_the_kernels(dtype):
    for seed in range(12):
        case: Case = random_case(
            seed,
            dtypes=(dtype,) * 4,
            n_outs=1 + seed % 4,
            n_hist=1 + seed % 8,
            n_store=seed % 3,
            clip_mode=("none", "static", "dynamic")[seed % 3],
            anchor_mode=("same", "row")[seed % 2],
            per_sample=seed % 4 == 0,
            elements=(1, 10, 64) if seed % 5 == 0 else (),
            elem_shape=(3, 1, 1),
        )
        if dtype == F64:  # float32 sums of the reference are rounded in another order
            check_case(case, reference.solver_step(*raw(case)))
        for got, wanted in zip(reference.solver_step(*raw(case)), run(case), strict=True):
            torch.testing.assert_close(got, wanted, rtol=2e-3 if dtype == F16 else 1e-5, atol=1e-5)


def test_the_reference_draws_the_same_noise():
    for kind in ("rng", "rngs"):
        case = random_case(1, noise=kind)
        for got, wanted in zip(reference.solver_step(*raw(case)), run(case), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
