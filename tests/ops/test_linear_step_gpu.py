"""What only a GPU can show of the step: its device, its stream, and capture into CUDA graphs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from fastdiff_ops import ops
from ops.step_cases import Case, random_case, run, run_in_place, same
from torch import Tensor

pytestmark = pytest.mark.gpu

MAKER = {"n_outs": 2, "n_hist": 3, "n_store": 1, "anchor_mode": "row", "noise": "rng", "steps": 5}


def on_gpu(seed: int, shape: tuple[int, ...] = (2, 3, 5, 7), device: str = "cuda") -> Case:
    return random_case(seed, shape, **MAKER).to(torch.device(device))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_device_is_that_of_the_tensors_not_the_current_one() -> None:
    """Kernels and noise go to where x is, and the current device stays what it was."""
    first, second = on_gpu(0, device="cuda:0"), on_gpu(0, device="cuda:1")
    with torch.cuda.device(0):
        results, in_place = run(second), run_in_place(second)
        assert torch.cuda.current_device() == 0
    assert all(result.device == torch.device("cuda:1") for result in results)
    assert same([result.cpu() for result in results], [result.cpu() for result in run(first)])
    assert same([in_place["x_next"]], [results[0]])


def test_a_side_stream_orders_the_step() -> None:
    """It comes between what is queued before and after it there, and the host waits for none of that."""
    case = on_gpu(1, (8, 3, 64, 64))
    expected = run(case)[0]
    late, x_out = torch.full_like(case.x, torch.nan), torch.full_like(case.x, torch.nan)
    anchor, history = case.options["anchor"].clone(), case.options["history"].clone()
    copied = torch.empty_like(x_out)  # allocation may synchronise
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # a step on another stream would read `late` too early
        late.copy_(case.x)
        options = {**case.options, "anchor": anchor, "history": history}
        ops.solver_step_(late, case.outs, x_out, case.coef, case.step, **options)
        copied.copy_(x_out)
    assert not stream.query(), "the step has waited for the stream"
    stream.synchronize()
    assert torch.equal(copied, expected)


def states(case: Case, captured: bool) -> list[Tensor]:
    """x, anchor and history after each step of the table, the index of the step growing on the device."""
    step, x, x_out = torch.zeros_like(case.step), case.x.clone(), torch.empty_like(case.x)
    anchor, history = case.options["anchor"].clone(), case.options["history"].clone()
    options = {**case.options, "anchor": anchor, "history": history}

    def advance() -> None:
        ops.solver_step_(x, case.outs, x_out, case.coef, step, **options)
        x.copy_(x_out)
        step.add_(1)

    if captured:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            advance()
        assert int(step) == 0, "a captured step must not run"
    found = []
    for _ in range(case.coef.shape[0]):
        graph.replay() if captured else advance()
        found += [x.clone(), anchor.clone(), history.clone()]
    return found


def test_a_replayed_graph_follows_its_step() -> None:
    """One captured step replayed gives every step of the eager loop, fresh noise too."""
    case = on_gpu(2)
    eager, replayed = states(case, captured=False), states(case, captured=True)
    assert same(eager, replayed)
    assert len({tuple(state.flatten().tolist()) for state in replayed[::3]}) == case.coef.shape[0]


@pytest.mark.parametrize("form", ["functional", "in place"])
def test_the_first_call_of_a_process_can_be_captured(form: str) -> None:
    """Nothing is loaded, allocated or synchronised by the first call that a capture forbids."""
    code = f"""
import torch
from ops.step_cases import run
from ops.test_linear_step_gpu import on_gpu
from fastdiff_ops import ops
case = on_gpu(3)
x_out = torch.empty_like(case.x)
anchor, history = case.options["anchor"].clone(), case.options["history"].clone()
torch.cuda.synchronize()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    if {form == "functional"}:
        x_out = run(case)[0]
    else:
        options = {{**case.options, "anchor": anchor, "history": history}}
        ops.solver_step_(case.x, case.outs, x_out, case.coef, case.step, **options)
graph.replay()
assert torch.equal(x_out, run(case)[0])
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
