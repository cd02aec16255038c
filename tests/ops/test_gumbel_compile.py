"""Draws as citizens of torch: opcheck, whole graphs that never recompile, export."""

from __future__ import annotations

import pytest
import torch
from fastdiff_ops import ops
from fastdiff_ops.ops import make_rng
from ops.categorical_cases import assert_same, in_new_process
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def rows(n: int = 4, vocab: int = 30, seed: int = 0) -> Tensor:
    return torch.randn(n, vocab, generator=torch.Generator().manual_seed(seed))


def test_opcheck() -> None:
    library = torch.ops.fastdiff_ops
    x, one, each = rows(), torch.ones(1), torch.tensor([1.0, 0.0, 0.5, 2.0])
    ids, mask = torch.tensor([3, 1]), x > 1
    full = (ids, ids, x + 1, each[:2], x[:1], mask[:2], ids, each[:2])
    for none in ([None] * 8, list(full)):
        temperature, state = (one, make_rng(1)) if none[0] is None else (each[:2], make_rng([1, 2]))
        for scale in (None, one):
            torch.library.opcheck(
                library.gumbel_argmax.default, (x, temperature, state, *none, scale, 0, 30, 0, 0)
            )
        torch.library.opcheck(library.gumbel_topk.default, (x, temperature, state, *none, 0, 30, 1, 3))
    tokens, places = torch.zeros(4, 7, dtype=torch.int64), torch.tensor([[1, -1], [0, 3], [-1, -1], [6, 5]])
    arguments = (tokens, rows(8).view(4, 2, 30), places.int(), one, make_rng(1), *[None] * 7, 0, 0)
    torch.library.opcheck(library.first_hitting_step_.default, arguments)


def everything(x: Tensor, temperature: Tensor, state: Tensor, names: Tensor, bias: Tensor) -> list[Tensor]:
    """A decoding step: model, guidance, draw, confidence, draws without replacement."""
    logits = torch.tanh(x) * 3
    options = {"rng": state, "row_ids": names, "forbidden": 2, "bias": bias}
    tokens, z = ops.gumbel_argmax(logits, temperature, return_score=True, **options)
    drawn = ops.sample_with_scores(
        logits, temperature, uncond_logits=-logits, cfg_scale=temperature, suppressed=logits > 2, **options
    )
    top = ops.gumbel_topk(logits, 3, 0.7, threshold=-1.0, **options)
    return [tokens + 1, z, *drawn, *top]


def test_a_step_is_one_graph_that_never_recompiles() -> None:
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(everything, fullgraph=True, backend=counter)
    for seed in range(4):
        temperature = torch.full((4,), 0.5 + seed)
        state = make_rng(seed, offset=3 * seed)
        arguments = (rows(seed=seed), temperature, state, torch.arange(4) + seed, rows(1, seed=seed)[0])
        assert_same(compiled(*arguments), everything(*arguments))
    assert counter.frame_count == 1


def test_the_number_of_rows_is_dynamic() -> None:
    """The vocabulary is not: it is a number of the model, and an int of the operators."""
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(everything, fullgraph=True, dynamic=True, backend=counter)
    compiled(rows(5), torch.ones(5), make_rng(0), torch.arange(5), rows(1)[0])
    graphs = counter.frame_count
    for n in (4, 6, 11):
        arguments = (rows(n), torch.ones(n), make_rng(1), torch.arange(n), rows(1)[0])
        assert_same(compiled(*arguments), everything(*arguments))
    assert counter.frame_count == graphs


def test_rows_of_sequences_without_a_copy() -> None:
    """Leading axes and a slice of them, in a graph."""

    def step(x: Tensor, state: Tensor) -> Tensor:
        return ops.gumbel_argmax(x[:, 2:], rng=state)

    x = rows(12).view(2, 6, 30)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, make_rng(1)), ops.gumbel_argmax(x[:, 2:].clone(), seed=1))


def test_python_temperatures_are_part_of_the_graph() -> None:
    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(x: Tensor, state: Tensor, temperature: float) -> Tensor:
        return ops.gumbel_argmax(x, temperature, rng=state)

    for temperature in (0.0, 1.0, 0.3):
        want = ops.gumbel_argmax(rows(), temperature, seed=1)
        assert torch.equal(step(rows(), make_rng(1), temperature), want)


def test_a_first_hitting_loop_is_one_graph() -> None:
    """The order is known beforehand: k steps in place, and functionally, in one graph for every seed."""

    def loop(tokens: Tensor, order: Tensor, state: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        result = tokens.clone()
        drawn = []
        for i in range(order.shape[1]):
            logits = table[result.sum(1) % len(table)]
            drawn.append(ops.first_hitting_step_(result, logits, order[:, i], rng=state, forbidden=29))
        return ops.first_hitting_step(result, logits, order[:, 0], rng=state + 1), torch.stack(drawn)

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loop, fullgraph=True, backend=counter)
    for seed in range(3):
        order = torch.stack([torch.randperm(5) for _ in range(3)]).int()
        order[1, 3:] = -1
        arguments = (torch.full((3, 5), 29), order, make_rng(seed), rows(9))
        assert_same(compiled(*arguments), loop(*arguments))
    assert counter.frame_count == 1


class Head(torch.nn.Module):
    def forward(self, x: Tensor, temperature: Tensor, state: Tensor) -> Tensor:
        return ops.gumbel_argmax(x * 2, temperature, rng=state)


def test_export() -> None:
    arguments = (rows(), torch.ones(1), make_rng(1))
    program = torch.export.export(Head(), arguments)
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("fastdiff_ops.gumbel_argmax.default") == 1
    for seed in range(3):
        arguments = (rows(seed=seed), torch.tensor([0.4]), make_rng(seed))
        assert torch.equal(program.module()(*arguments), Head()(*arguments))


def test_fake_tensors_have_the_real_shapes() -> None:
    x = torch.zeros(2, 3, 10, device="meta")
    assert ops.gumbel_argmax(x, seed=1).shape == (2, 3)
    assert ops.sample_with_scores(x, seed=1).residual.shape == (2, 3)
    assert ops.gumbel_topk(x, 4, seed=1)[1].shape == (2, 3, 4)


def test_reference_can_be_asked_for() -> None:
    code = """
import torch
from fastdiff_ops import ops
x = torch.randn(3, 500, generator=torch.Generator().manual_seed(0))
tokens = torch.full((3, 4), 500)
drawn = ops.first_hitting_step_(tokens, x, torch.tensor([1, 0, -1], dtype=torch.int32), seed=1)
results = [ops.gumbel_argmax(x, seed=1), *ops.gumbel_topk(x, 3, seed=1), drawn, tokens]
print([x.tolist() for x in results])
"""
    outputs = {in_new_process(code, FASTDIFF_OPS_REFERENCE=on) for on in "01"}
    assert len(outputs) == 1
