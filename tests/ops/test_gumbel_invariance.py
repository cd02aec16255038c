"""What must not matter for a draw: batch, order, other rows, threads, SIMD level, vocabulary shards."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from fastdiff_ops import ops
from fastdiff_ops.ops import make_rng
from ops.categorical_cases import BF16, DTYPES, F16, F32, F64, STREAMS, assert_same, in_new_process
from torch import Tensor


def rows_of(n: int, vocab: int, dtype: torch.dtype = F32, seed: int = 0) -> Tensor:
    return (3 * torch.randn(n, vocab, generator=torch.Generator().manual_seed(seed))).to(dtype)


@pytest.mark.emulated
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_is_what_it_is_alone(backend, dtype, stream) -> None:
    """Alone, permuted, with other rows dropped, chosen by index, with a seed and an id of its own."""
    device = backend.device
    logits = rows_of(7, 5000, dtype).to(device)
    temperature = torch.tensor([1.0, 0.0, 0.5, 2.0, 1.0, 0.1, 1.0], device=device)
    options = {"stream": stream, "return_score": True}
    tokens, z = ops.gumbel_argmax(logits, temperature, seed=11, offset=5, **options)
    order = torch.tensor([6, 2, 2, 0, 5], device=device)
    want = (tokens[order], z[order])
    heat = temperature[order]
    assert_same(ops.gumbel_argmax(logits[order], heat, seed=11, offset=5, row_ids=order, **options), want)
    got = ops.gumbel_argmax(logits, heat, seed=11, offset=5, row_ids=order, rows=order, **options)
    assert_same(got, want)
    state = make_rng([11] * 5, 5, sample_ids=order.cpu(), device=device)
    assert_same(ops.gumbel_argmax(logits, heat, rng=state, rows=order, **options), want)
    for r in range(7):
        names = torch.tensor([r], device=device)
        alone = ops.gumbel_argmax(logits[r], temperature[r], seed=11, offset=5, row_ids=names, **options)
        assert_same(alone, (tokens[r], z[r]))
    one_seed_each = ops.gumbel_argmax(logits[:1].expand(3, -1), seed=[4, 9, 4], **options)
    for r, seed in enumerate((4, 9, 4)):
        alone = ops.gumbel_argmax(logits[:1], seed=seed, **options)
        assert_same(tuple(x[r : r + 1] for x in one_seed_each), alone)


@pytest.mark.emulated
def test_everything_that_names_a_draw_matters(backend) -> None:
    """Seeds, all 32 bits of offsets, all 64 bits of rows, streams: other names, other noise."""
    logits = torch.zeros(1, 4, device=backend.device)
    scores = []
    for seed in (0, 1, 1 << 32, 1 << 63):
        for offset in (0, 1, 2**32 - 1):
            for row in (0, 1, 1 << 32, -(2**63)):
                names = torch.tensor([row], device=backend.device)
                for stream in STREAMS:
                    _, z = ops.gumbel_argmax(
                        logits, seed=seed, offset=offset, row_ids=names, stream=stream, return_score=True
                    )
                    scores.append(z.item())
    assert len(set(scores)) == len(scores)


@pytest.mark.parametrize("shape", [(1, 200_001), (3, 70_000), (900, 300), (4, 4)])
def test_threads_agree(shape) -> None:
    logits = rows_of(*shape)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            drawn = ops.sample_with_scores(logits, 0.9, score_temperature=0.7, seed=1)
            results.append((*drawn, *ops.gumbel_topk(logits, 4, seed=1)))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert_same(result, results[0])


SIMD = """
import hashlib, torch
from fastdiff_ops import ops
from ops.categorical_cases import DTYPES, FAMILIES, STREAMS, family
digest, measured = hashlib.sha256(), []
for vocab in (5, 300, 9001):
    for stream in STREAMS:
        for dtype in DTYPES:
            rows = [family(name, vocab, dtype, 0.0, torch.zeros(vocab)) for name in FAMILIES]
            big = torch.stack(rows * 2)
            logits = torch.cat([torch.zeros_like(big[:, :1]), big], 1)[:, 1:]
            heat = torch.tensor([0.0, 1.0, 0.3]).repeat(len(big))[: len(big)]
            drawn = ops.sample_with_scores(logits, heat, score_temperature=0.8, seed=5, stream=stream)
            exact = [*drawn[:2], *ops.gumbel_topk(logits, 3, heat, seed=6, stream=stream)]
            measured.append(torch.stack(drawn[2:]))
            tokens, places = torch.full((len(big), 3), -7), torch.arange(len(big)).int()[:, None] % 3
            exact += [ops.first_hitting_step_(tokens, logits, places, heat, seed=7, stream=stream), tokens]
            for x in exact:
                digest.update((x + 0).numpy().tobytes())
exact, measured = digest.hexdigest(), torch.stack(measured)
"""


@pytest.mark.parametrize("level", ["scalar", "avx2", "avx512"])
def test_simd_levels_agree(level, tmp_path) -> None:
    """Tokens and scores to the last bit, what is measured beside them to 1e-6."""
    here: dict[str, Any] = {}
    exec(SIMD, here)
    save = f"torch.save((exact, measured), {str(tmp_path / 'level')!r})"
    in_new_process(SIMD + save, FASTDIFF_OPS_SIMD=level)
    exact, measured = torch.load(tmp_path / "level")
    assert exact == here["exact"]
    torch.testing.assert_close(measured, here["measured"], rtol=2e-6, atol=1e-6)


def merged(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Largest score, smaller token if equal; a shard without a token says -1."""
    tokens, scores = (torch.stack(x) for x in zip(*parts, strict=True))
    best = scores.max(0).values
    among = torch.where((scores == best) & (tokens >= 0), tokens, 1 << 60).min(0).values
    return torch.where(best == -torch.inf, -1, among), best


@pytest.mark.emulated
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("cuts", [[], [4096], [1, 4097], [100, 333], [5, 300, 4095, 4500]])
def test_vocabulary_shards(backend, cuts, stream) -> None:
    """1, 2, 3 and 5 uneven shards, cut anywhere inside blocks; with ties, bias and forbidden tokens."""
    vocab, device = 5003, backend.device
    generator = torch.Generator().manual_seed(1)
    cases = [rows_of(4, vocab, dtype, 3) for dtype in (F32, BF16)]
    cases += [rows_of(4, vocab, F64).round(), torch.full((4, vocab), -torch.inf, dtype=F16)]
    temperature = torch.tensor([1.0, 0.0, 0.3, 1.0], device=device)
    bias = torch.randn(vocab, generator=generator).to(device)
    forbidden = torch.tensor([0, 4096, 4999], device=device)
    bounds = [0, *cuts, vocab]
    for logits in cases:
        logits = logits.to(device)
        options = {"seed": 8, "stream": stream, "forbidden": forbidden, "return_score": True}
        whole = ops.gumbel_argmax(logits, temperature, bias=bias, **options)
        parts = [
            ops.gumbel_argmax(
                logits[:, a:b], temperature, bias=bias[a:b], vocab_start=a, vocab_size=vocab, **options
            )
            for a, b in pairwise(bounds)
        ]
        assert_same(merged(parts), whole)
        del options["return_score"]
        tokens, scores = ops.gumbel_topk(logits, 3, temperature, bias=bias, **options)
        best = [
            ops.gumbel_topk(
                logits[:, a:b], min(3, b - a), temperature, bias=bias[a:b], vocab_start=a, vocab_size=vocab,
                **options,
            )
            for a, b in pairwise(bounds)
        ]  # fmt: skip
        z, order = torch.cat([s for _, s in best], 1).sort(dim=1, descending=True, stable=True)
        joined = torch.cat([t for t, _ in best], 1).gather(1, order)
        assert_same((joined[:, :3], z[:, :3]), (tokens, scores))


def test_auto_stream_depends_on_the_whole_vocabulary() -> None:
    logits = torch.zeros(1, 4096)
    for vocab, stream in ((4096, "block16"), (4095, "element")):
        auto = ops.gumbel_argmax(logits[:, :9], seed=1, vocab_size=vocab, return_score=True)
        named = ops.gumbel_argmax(logits[:, :9], seed=1, vocab_size=vocab, stream=stream, return_score=True)
        assert_same(auto, named)
    assert not torch.equal(
        ops.gumbel_noise(torch.arange(2), 9, seed=1, stream="element"),
        ops.gumbel_noise(torch.arange(2), 9, seed=1, stream="block16"),
    )


def test_the_last_token_of_the_largest_vocabulary() -> None:
    start = 2**28 - 3
    for stream in STREAMS:
        tokens, z = ops.gumbel_argmax(
            torch.zeros(50, 3), seed=1, vocab_start=start, vocab_size=2**28, stream=stream, return_score=True
        )
        full = ops.gumbel_argmax(
            torch.zeros(50, 3), seed=1, vocab_start=start, vocab_size=2**28, stream=stream, method="full",
            return_score=True,
        )  # fmt: skip
        assert_same((tokens, z), full)
        assert set((tokens - start).tolist()) == {0, 1, 2}
