"""remask_ and remask: equal to the reference, of the right frequency, and in place."""

from __future__ import annotations

import math

import hypothesis
import pytest
import torch
from fastdiff_ops.ops.hitting import first_hitting_times, remask, remask_
from fastdiff_ops.ops.random import PhiloxState, make_rng
from fastdiff_ops.reference import hitting as reference
from hypothesis import strategies as st
from ops.hitting_cases import check_frequency, random_mask, streams

ops = torch.ops.fastdiff_ops
MASK = 50
# what a float64 probability can be: none, tiny, around the sign bit of p 2^64, nearly one, certain
PROBABILITIES = (0.0, 5e-324, 2.0**-64, 1e-19, 2.0**-53, 0.3, math.nextafter(0.5, 0), 0.5, 0.9, 1 - 2.0**-53,
                 1.0, 1.5, math.inf, -0.0, -1.0, -math.inf)  # fmt: skip


def random_tokens(batch: int, length: int, seed: int) -> torch.Tensor:
    return torch.randint(0, MASK + 1, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.emulated
@pytest.mark.parametrize("length", [1, 31, 64, 65, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernels_equal_reference(backend, length, dtype) -> None:
    generator = torch.Generator().manual_seed(length)
    full = torch.rand(4, length, generator=generator, dtype=dtype)
    for rng, ids in streams(4):
        for prob in (full, full[:, :1], full.t().contiguous().t()):
            for eligible in (None, random_mask(4, length, seed=1)):
                tokens = random_tokens(4, length, seed=2)
                right = tokens.clone()
                wanted = reference.remask_(right, prob, eligible, MASK, rng, ids)
                mine = tokens.to(backend.device)
                arguments = [None if v is None else v.to(backend.device) for v in (prob, eligible, rng, ids)]
                masked = ops.remask_(mine, *arguments[:2], MASK, *arguments[2:])
                assert torch.equal(masked.cpu(), wanted) and torch.equal(mine.cpu(), right)


@pytest.mark.emulated
def test_extreme_probabilities(backend) -> None:
    prob = torch.tensor(PROBABILITIES, dtype=torch.float64)[:, None]
    tokens = torch.zeros(len(prob), 500, dtype=torch.int64)
    right = reference.remask_(tokens.clone(), prob, None, MASK, make_rng(3), None)
    masked = remask_(tokens.to(backend.device), prob.to(backend.device), MASK, seed=3).cpu()
    assert torch.equal(masked, right)
    for p, row in zip(PROBABILITIES, masked, strict=True):
        if p <= 0 or p >= 1:
            assert row.all() if p >= 1 else not row.any()


@pytest.mark.emulated
def test_coin_turns_at_one_float64(backend) -> None:
    """A position of bits n is masked from the smallest float64 p with p 2^64 >= n + 1 on."""
    numbers = [n % 2**64 for n in reference.position_bits(7, (2, 100), make_rng(3), None).flatten().tolist()]
    above = []
    for n in numbers:
        p = math.ldexp(float(n + 1), -64)
        while p * 2**64 < n + 1:
            p = math.nextafter(p, 2)
        while math.nextafter(p, 0) * 2**64 >= n + 1:
            p = math.nextafter(p, 0)
        above.append(p)
    prob = torch.tensor(above, dtype=torch.float64).reshape(2, 100)
    below = torch.nextafter(prob, torch.zeros(()).double())
    tokens = torch.zeros(2, 100, dtype=torch.int64).to(backend.device)
    assert remask(tokens, prob.to(backend.device), MASK, seed=3)[1].all()
    assert not remask(tokens, below.to(backend.device), MASK, seed=3)[1].any()


@pytest.mark.emulated
def test_what_is_written(backend) -> None:
    tokens = random_tokens(5, 40, seed=1).to(backend.device)
    before, eligible = tokens.clone(), random_mask(5, 40, seed=2).to(backend.device)
    masked = remask_(tokens, 1.0, MASK, eligible=eligible, seed=1)
    assert torch.equal(masked, eligible & (before != MASK)), "what was masked already is not reported"
    assert torch.equal(tokens, before.masked_fill(masked, MASK))


@pytest.mark.emulated
def test_slices_are_changed_in_place(backend) -> None:
    whole = random_tokens(30, 6, seed=1).to(backend.device)
    before = whole.clone()
    view = whole.t()[::2, 5:25]
    masked = remask_(view, 0.5, MASK, seed=2)
    copy, again = remask(before.t()[::2, 5:25], 0.5, MASK, seed=2)
    assert torch.equal(masked, again) and torch.equal(view, copy) and masked.any()
    before.t()[::2, 5:25] = copy
    assert torch.equal(whole, before), "nothing else is touched"


@pytest.mark.emulated
@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_empty(backend, shape) -> None:
    tokens = torch.zeros(shape, dtype=torch.int64, device=backend.device)
    assert remask_(tokens, 0.5, MASK, seed=1).shape == shape


@pytest.mark.emulated
def test_a_sequence_is_the_same_in_every_batch(backend) -> None:
    tokens = random_tokens(7, 70, seed=3).to(backend.device)
    whole, masked = remask(tokens, 0.4, MASK, seed=8, offset=3)
    for rows in ([2], [6, 0, 3]):
        ids = torch.tensor(rows, device=backend.device)
        part = remask(tokens[rows], 0.4, MASK, seed=PhiloxState(8, 1), offset=2, sequence_ids=ids)
        assert torch.equal(part[0], whole[rows]) and torch.equal(part[1], masked[rows])


@pytest.mark.parametrize("p", [1e-3, 0.02, 0.3, 0.75, 0.999])
def test_frequency(p) -> None:
    tokens = torch.zeros(1000, 1000, dtype=torch.int64)
    masked = remask_(tokens, p, MASK, seed=21)
    check_frequency(masked, p, detects=0.007 * math.sqrt(p * (1 - p)))


def test_draws_and_streams_are_independent() -> None:
    """Another offset, position or sequence is another coin; so is the stream of hitting times."""
    tokens = torch.zeros(300, 1000, dtype=torch.int64)
    first = remask(tokens, 0.3, MASK, seed=22)[1]
    second = remask(tokens, 0.3, MASK, seed=22, offset=1)[1]
    everywhere = torch.ones_like(first)
    u = torch.empty(300, 1000, dtype=torch.float64)
    hits = first_hitting_times(everywhere, seed=22)
    u.scatter_(1, hits.order.long(), hits.times)
    for other in (second, first.roll(1, 0), first.roll(1, 1), u < 0.3):
        check_frequency(first & other, 0.09, detects=0.004)


def test_threads_do_not_matter() -> None:
    tokens = torch.zeros(64, 1000, dtype=torch.int64)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(remask(tokens, 0.5, MASK, seed=2)[1])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


@hypothesis.given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**64 - 1), st.integers(1, 70))
@hypothesis.settings(max_examples=60, deadline=None)
def test_larger_probabilities_mask_more(p, q, seed, length) -> None:
    tokens = torch.zeros(1, length, dtype=torch.int64)
    few, many = (remask(tokens, prob, MASK, seed=seed)[1] for prob in sorted((p, q)))
    assert (many | ~few).all(), "one coin, two thresholds"


@pytest.mark.parametrize("shape", [(2, 3), (2, 1)])
def test_nan_on_a_cpu(shape) -> None:
    prob = torch.full(shape, 0.5)
    prob[1, 0] = math.nan
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="`prob` must not be NaN, got one in sequence 1"):
        remask_(tokens, prob, MASK, seed=1)
    assert (tokens == 0).all(), "nothing was changed"
