"""Strategies of `decode` against their papers' loops, limits, and what decoding must not depend on."""

from __future__ import annotations

import pytest
import torch
from fastdiff_ops import ops
from fastdiff_ops.masked import add_gumbel_noise_argmax, as_model, decode, first_hitting_sample
from masked.loops import (
    at_least,
    constant,
    eager_decode,
    random_network,
    top,
    within_entropy,
    within_factor,
)

V, MASK = 12, 12
ALL = ["confidence", "margin", "entropy", "random", "threshold", "factor", "entropy_bound"]


def prompts() -> torch.Tensor:
    """Three sequences: a prompt, holes, and a suffix; 16, 10 and 13 masks."""
    tokens = torch.full((3, 20), MASK)
    tokens[0, :4] = torch.tensor([3, 1, 4, 1])
    tokens[1, [0, 1, 2, 5, 8, 9, 12, 13, 14, 19]] = 5
    tokens[2, :2], tokens[2, 15:] = 7, 2
    return tokens


def committed(trace: torch.Tensor) -> list[list[int]]:
    """Positions of a sequence by step."""
    return [(trace == s).nonzero()[:, 0].tolist() for s in range(int(trace.max()) + 1)]


def share(steps: int, blocks: int = 1):
    """LLaDA's number of transfers, for steps that divide evenly among the blocks."""
    per_block = steps // blocks

    def k(step: int, n: int) -> int:
        return n // per_block + (step < n % per_block)

    return top(k)


# ---- the papers' loops


@pytest.mark.parametrize(("steps", "block_length"), [(16, None), (5, None), (8, 4), (4, 8), (16, 4)])
def test_llada_low_confidence(steps, block_length) -> None:
    model, tokens = random_network(V), prompts()[:1]
    blocks = 1 if block_length is None else 16 // block_length
    expected, order = eager_decode(model, tokens[0], MASK, share(steps, blocks), block_length=block_length)
    result, stats = decode(
        model, tokens, mask_id=MASK, num_steps=steps, block_length=block_length, return_stats=True
    )
    assert torch.equal(result[0], expected)
    assert committed(stats.trace[0]) == order
    assert stats.nfe == len(order) and stats.reveals[:, 0].tolist() == [len(step) for step in order]


def test_llada_with_guidance_and_its_ways_with_the_end_of_text() -> None:
    model, tokens, scale = random_network(V), prompts()[:1], 1.5
    options = {"cfg_scale": scale, "forbidden": [0], "return_stats": True}
    plain, plain_stats = decode(model, tokens, mask_id=MASK, **options)
    common = int(plain[0, committed(plain_stats.trace[0])[0]])  # what would be committed first

    def logits_of(x: torch.Tensor) -> torch.Tensor:
        blind = torch.where(tokens[0] == MASK, x, MASK)
        logits, uncond = model(torch.stack([x, blind]))
        logits = uncond + (scale + 1) * (logits - uncond)
        return logits.index_fill(-1, torch.tensor([0]), -torch.inf)  # suppress_tokens

    def score(probabilities: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        confidence = probabilities.gather(1, x0[:, None])[:, 0]
        last = -1.0 - torch.arange(len(x0))  # behind all others; the smaller position first
        return torch.where(x0 == common, last, confidence)

    expected, order = eager_decode(model, tokens[0], MASK, share(16), score=score, logits_of=logits_of)
    result, stats = decode(model, tokens, mask_id=MASK, low_confidence_tokens=[common], **options)
    assert torch.equal(result[0], expected) and committed(stats.trace[0]) == order
    assert not torch.equal(plain_stats.trace, stats.trace)


@pytest.mark.parametrize("tau", [0.7, 0.9, 0.99])
@pytest.mark.parametrize("block_length", [None, 5])
def test_fast_dllm_threshold(tau, block_length) -> None:
    model, tokens = random_network(V, scale=24.0), prompts()[:1]
    expected, order = eager_decode(model, tokens[0], MASK, at_least(tau), block_length=block_length)
    result, stats = decode(
        model,
        tokens,
        mask_id=MASK,
        strategy="threshold",
        threshold=tau,
        block_length=block_length,
        return_stats=True,
    )
    assert torch.equal(result[0], expected) and committed(stats.trace[0]) == order
    assert 1 < len(order) < 16


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_fast_dllm_factor(factor) -> None:
    model, tokens = random_network(V, scale=8.0), prompts()[:1]
    expected, order = eager_decode(model, tokens[0], MASK, within_factor(factor), block_length=8)
    options = {"strategy": "factor", "factor": factor, "block_length": 8}
    result, stats = decode(model, tokens, mask_id=MASK, return_stats=True, **options)
    assert torch.equal(result[0], expected) and committed(stats.trace[0]) == order
    assert 1 < len(order) < 16


@pytest.mark.parametrize("bound", [0.1, 0.7, 3.0])
def test_entropy_bound(bound) -> None:
    model, tokens = random_network(V, scale=8.0), prompts()[:1]
    expected, order = eager_decode(model, tokens[0], MASK, within_entropy(bound))
    options = {"strategy": "entropy_bound", "entropy_bound": bound}
    result, stats = decode(model, tokens, mask_id=MASK, return_stats=True, **options)
    assert torch.equal(result[0], expected) and committed(stats.trace[0]) == order
    assert len(order) < 16


@pytest.mark.parametrize("strategy", ["margin", "entropy"])
def test_dream_scores(strategy) -> None:
    def score(probabilities: torch.Tensor, _x0: torch.Tensor) -> torch.Tensor:
        if strategy == "entropy":
            return -torch.special.entr(probabilities).sum(-1)
        best = probabilities.topk(2).values
        return best[:, 0] - best[:, 1]

    model, tokens = random_network(V), prompts()[:1]
    expected, order = eager_decode(model, tokens[0], MASK, share(8), score=score)
    result, stats = decode(model, tokens, mask_id=MASK, strategy=strategy, num_steps=8, return_stats=True)
    assert torch.equal(result[0], expected) and committed(stats.trace[0]) == order


@pytest.mark.parametrize("strategy", ALL)
def test_dream_shifts_its_logits(strategy) -> None:
    model, tokens = random_network(V), prompts()
    outputs = []

    def shifted(input_ids: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids)
        outputs.append(torch.cat([logits[:, 1:], logits[:, :1]], 1))  # row l is in output l - 1
        return outputs[-1]

    plain = decode(model, tokens, mask_id=MASK, strategy=strategy, seed=1)
    assert torch.equal(
        decode(as_model(shifted, kind="dream"), tokens, mask_id=MASK, strategy=strategy, seed=1), plain
    )
    assert not torch.equal(
        decode(as_model(shifted, kind="hf"), tokens, mask_id=MASK, strategy=strategy, seed=1), plain
    )


def test_llada_gumbel_formula() -> None:
    """argmax exp(l) / (-log u)^T with the same noise is the same token, 1e4 rows."""
    rows, vocab, temperature = 10_000, 50, 0.7
    logits = 4 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exponential = torch.exp(-ops.gumbel_noise(torch.arange(rows), vocab, seed=3))
    eager = (logits.exp() / exponential**temperature).argmax(-1)
    for dtype in (torch.float64, torch.float32):
        drawn = add_gumbel_noise_argmax(logits.to(dtype), temperature, seed=3)
        z = torch.log(logits.exp()) - temperature * exponential.log()
        best = z.topk(2).values
        different = (drawn != eager) & (best[:, 0] - best[:, 1] > (1e-12 if dtype == torch.float64 else 1e-5))
        assert not different.any()
    assert torch.equal(add_gumbel_noise_argmax(logits, 0.0), logits.argmax(-1))
    torch.manual_seed(1)
    first, second = (add_gumbel_noise_argmax(logits.view(100, 100, vocab), 1.0) for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(add_gumbel_noise_argmax(logits.view(100, 100, vocab), 1.0), first)
    assert first.shape == (100, 100) and (first != second).float().mean() > 0.3


def test_certainties_are_ranked_beyond_what_a_probability_can_say() -> None:
    """In bfloat16, float32 and even float64 all confidences here are 1; the odds still differ."""
    logits = torch.zeros(6, 4)
    logits[:, 1] = torch.tensor([60.0, 62, 64, 66, 68, 70])
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        assert (logits.to(dtype).softmax(-1)[:, 1] == 1).all()
        stats = decode(constant(logits.to(dtype)), torch.full((1, 6), 4), mask_id=4, return_stats=True)[1]
        assert stats.trace[0].tolist() == [5, 4, 3, 2, 1, 0]


# ---- limits


def test_limits_of_the_adaptive_strategies() -> None:
    model, tokens = random_network(V), prompts()[:1]

    def reveals(strategy, **options):
        stats = decode(model, tokens, mask_id=MASK, strategy=strategy, return_stats=True, **options)[1]
        return stats.reveals.flatten().tolist()

    assert reveals("threshold", threshold=0.0) == [16]
    assert reveals("threshold", threshold=1.1) == [1] * 16
    assert reveals("factor", factor=1e9) == [16]
    assert reveals("factor", factor=0.0) == [1] * 16
    assert reveals("entropy_bound", entropy_bound=1e9) == [16]
    assert reveals("entropy_bound", entropy_bound=0.0) == [1] * 16
    one_by_one = decode(model, tokens, mask_id=MASK)
    assert torch.equal(decode(model, tokens, mask_id=MASK, strategy="threshold", threshold=1.1), one_by_one)
    at_once = decode(model, tokens, mask_id=MASK, strategy="threshold", threshold=0.0)
    assert torch.equal(at_once[tokens == MASK], model(tokens).argmax(-1)[tokens == MASK])


def test_an_entropy_bound_of_0_commits_what_is_certain_and_one_more() -> None:
    logits = torch.randn(8, V, generator=torch.Generator().manual_seed(0))
    for place in (1, 4, 6):
        logits[place] = -torch.inf
        logits[place, place] = 0.0
    stats = decode(
        constant(logits),
        torch.full((1, 8), MASK),
        mask_id=MASK,
        strategy="entropy_bound",
        entropy_bound=0.0,
        return_stats=True,
    )[1]
    assert stats.reveals.flatten().tolist() == [4, 1, 1, 1, 1]
    assert (stats.trace[0, [1, 4, 6]] == 0).all()


@pytest.mark.parametrize("strategy", ALL)
def test_draw_options_that_change_nothing(strategy) -> None:
    def run(**options):
        tokens = prompts()
        return decode(random_network(V), tokens, mask_id=MASK, strategy=strategy, seed=4, **options)

    plain = run(temperature=0.8)
    for options in ({"cfg_scale": 0.0}, {"top_p": 1.0}, {"min_p": 0.0}, {"top_k": V}):
        assert torch.equal(run(temperature=0.8, **options), plain)
    assert not torch.equal(run(temperature=0.8, cfg_scale=2.0), plain)
    assert torch.equal(run(temperature=0.8, top_k=1), run())
    assert not torch.equal(plain, run())


@pytest.mark.parametrize("options", [{"num_steps": 4}, {"num_steps": 7, "block_length": 4}, {}])
def test_random_is_parallel_first_hitting(options) -> None:
    runs = [
        sample(random_network(V), prompts(), mask_id=MASK, temperature=1.0, seed=9, **options)
        for sample in (lambda *a, **k: decode(*a, strategy="random", **k), first_hitting_sample)
    ]
    assert torch.equal(*runs)


def test_nothing_to_do() -> None:
    tokens = torch.zeros(2, 5, dtype=torch.int64)
    for strategy in ALL:
        result, stats = decode(
            constant(torch.zeros(5, V)), tokens, mask_id=MASK, strategy=strategy, return_stats=True
        )
        assert torch.equal(result, tokens) and stats.nfe == 0
