"""What only a GPU can show of the draws: real splits of rows, its stream, and capture into CUDA graphs."""

from __future__ import annotations

import pytest
import torch
from fastdiff_ops import ops
from torch import Tensor

pytestmark = pytest.mark.gpu

OPTIONS = {"return_score": True}


def rows_on_gpu(n_rows: int, vocab: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    generator = torch.Generator().manual_seed(n_rows)
    return (3 * torch.randn(n_rows, vocab, generator=generator)).to("cuda", dtype)


@pytest.mark.parametrize("stream", ["element", "block16"])
@pytest.mark.parametrize("vocab", [50257, 126464, 300001])
@pytest.mark.parametrize("n_rows", [1, 3, 100, 700])
def test_any_number_of_blocks_to_a_row(n_rows, vocab, stream) -> None:
    """One token a row, whoever searches it: as the CPU has it, again and again."""
    logits = rows_on_gpu(n_rows, vocab)
    names = torch.arange(n_rows, device="cuda") * 7
    options = {"seed": 4, "stream": stream, **OPTIONS}
    first = ops.gumbel_argmax(logits, 0.9, row_ids=names, **options)
    some = torch.arange(0, n_rows, max(1, n_rows // 5))
    want = ops.gumbel_argmax(logits[some.cuda()].cpu(), 0.9, row_ids=names[some.cuda()].cpu(), **options)
    for _ in range(3):
        again = ops.gumbel_argmax(logits, 0.9, row_ids=names, **options)
        for x, y, z in zip(first, again, want, strict=True):
            assert torch.equal(x, y) and torch.equal(x.cpu()[some], z)


def test_scores_do_not_depend_on_the_split() -> None:
    logits = rows_on_gpu(2000, 9000)
    whole = ops.sample_with_scores(logits, 1.0, seed=1)
    alone = ops.sample_with_scores(logits[:1], 1.0, seed=1)
    assert all(torch.equal(x[:1], y) for x, y in zip(whole, alone, strict=True))


def test_a_captured_draw_replays_with_the_offset_of_the_day() -> None:
    """Few rows, so that blocks share them: the graph holds their tickets, which start at zero each time."""
    logits = rows_on_gpu(2, 126464)
    state = ops.make_rng(9, device=torch.device("cuda"))
    want = [ops.gumbel_argmax(logits, rng=state + torch.tensor([0, k], device="cuda")) for k in range(4)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        ops.gumbel_argmax(logits, rng=state)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        tokens = ops.gumbel_argmax(logits, rng=state)
        state[1] += 1
    for k in range(4):
        graph.replay()
        assert torch.equal(tokens, want[k])


def test_the_host_waits_for_nothing() -> None:
    logits = rows_on_gpu(4, 126464)
    tokens = torch.full((4, 8), -1, device="cuda")
    positions = torch.arange(4, dtype=torch.int32, device="cuda")
    state = ops.make_rng(1, device=torch.device("cuda"))
    ops.first_hitting_step_(tokens.clone(), logits, positions, rng=state)  # loads the kernels
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        ops.first_hitting_step_(tokens, logits, positions, rng=state)
        ops.gumbel_topk(logits, 5, rng=state)
        ops.sample_with_scores(logits, rng=state)
    assert not stream.query(), "a draw has waited for the stream"
    stream.synchronize()
    assert ((tokens >= 0).sum(1) == 1).all()
