"""first_hitting_times and reveal_steps: equal to the reference, to one another, and of the right law."""

from __future__ import annotations

import itertools
import math

import hypothesis
import pytest
import scipy.stats
import torch
from fastdiff_ops.ops.hitting import first_hitting_times, reveal_steps
from fastdiff_ops.ops.random import PhiloxState, make_rng
from fastdiff_ops.reference import hitting as reference
from fastdiff_ops.reference.random import philox4x32
from hypothesis import strategies as st
from ops.hitting_cases import check_counts, check_frequency, count_values, random_mask, streams

ops = torch.ops.fastdiff_ops
SEED = 0x123456789ABCDEF0
# None masked, one; warps, blocks, SIMD chunks and what they leave over; powers of two, which sorting pads to
LENGTHS = (0, 1, 2, 3, 31, 32, 33, 63, 64, 65, 100, 128, 129, 257, 1000)


class Squared:
    """A schedule: m(t) = 0.9 t^2."""

    def mask_prob(self, t: torch.Tensor) -> torch.Tensor:
        return 0.9 * t**2

    def inverse(self, mask_prob: torch.Tensor) -> torch.Tensor:
        assert mask_prob.dtype == torch.float64
        return torch.sqrt(mask_prob / 0.9)


def grid(n: int) -> torch.Tensor:
    return torch.linspace(1, 0, n + 1, dtype=torch.float64)


def to(device, *values):
    return [None if v is None else v.to(device) for v in values]


def uniforms(sequences: int, length: int, seed: int, **options) -> torch.Tensor:
    """Sorted U of many fully masked sequences."""
    return first_hitting_times(torch.ones(sequences, length, dtype=torch.bool), seed=seed, **options).times


# ---- which number stands where


def test_layout_against_plain_integers() -> None:
    """Counter (6 << 28, position, id, offset), key (seed low, seed high); U from 53 bits, sticky."""

    def words(tag: int, position: int, sequence: int, offset: int) -> int:
        counter = [torch.tensor(w) for w in (tag << 28, position, sequence, offset)]
        high, low, _, _ = philox4x32(counter, [torch.tensor(SEED & 0xFFFFFFFF), torch.tensor(SEED >> 32)])
        return int(high) << 32 | int(low)

    mask = torch.ones(1, 40, dtype=torch.bool)
    hits = first_hitting_times(mask, seed=SEED, offset=9, sequence_ids=[17])
    bits = [words(6, position, 17, 9) for position in range(40)]
    assert hits.order[0].tolist() == sorted(range(40), key=lambda position: -bits[position])
    for position, time in zip(hits.order[0].tolist(), hits.times[0].tolist(), strict=True):
        n = bits[position]
        zeros = 64 - n.bit_length()
        assert time == math.ldexp((n << zeros) % (1 << 64) >> 11 | 1, -53 - zeros)
        assert abs(time - n / 2**64) <= 2.0**-52 * time


def test_uniform_of_bits() -> None:
    bits = [0, 1, 2, 3, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]
    signed = torch.tensor([n - 2**64 if n >= 2**63 else n for n in bits])
    u = reference.as_uniform(signed)
    assert u[0] == 2.0**-65 and u[1] == math.ldexp(2**52 + 1, -116) and u[-1] == 1 - 2.0**-53
    assert (u.diff() > 0).all() and (u > 0).all() and (u < 1).all()


# ---- kernels against the reference


@pytest.mark.emulated
@pytest.mark.parametrize("length", LENGTHS)
def test_kernels_equal_reference(backend, length) -> None:
    masks = [random_mask(4, length, seed=length, share=share) for share in (0.5, 1.1, 0.0)]
    levels = torch.tensor([0.97, 0.6, 0.6, 0.35, 0.1, 1e-3], dtype=torch.float64)
    for mask, (rng, ids) in itertools.product(masks, streams(4)):
        got = ops.first_hitting_times(*to(backend.device, mask, rng, ids))
        for mine, right in zip(got, reference.first_hitting_times(mask, rng, ids), strict=True):
            assert mine.dtype == right.dtype and torch.equal(mine.cpu(), right)
        got = ops.reveal_steps(*to(backend.device, mask, levels, rng, ids))
        assert torch.equal(got.cpu(), reference.reveal_steps(mask, levels, rng, ids))


@pytest.mark.emulated
def test_longer_than_shared_memory(backend) -> None:
    mask = random_mask(2, 8193, seed=1)
    got = first_hitting_times(mask.to(backend.device), seed=4)
    right = reference.first_hitting_times(mask, make_rng(4), None)
    for mine, wanted in zip(got, right, strict=True):
        assert torch.equal(mine.cpu(), wanted)


def test_long_sequences() -> None:
    for length in (65_536, 200_003):
        mask = random_mask(1, length, seed=2, share=0.9)
        got = first_hitting_times(mask, seed=4)
        for mine, right in zip(got, reference.first_hitting_times(mask, make_rng(4), None), strict=True):
            assert torch.equal(mine, right)


@pytest.mark.emulated
@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (3, 0)])
def test_empty(backend, shape) -> None:
    mask = torch.zeros(shape, dtype=torch.bool, device=backend.device)
    hits = first_hitting_times(mask, seed=1, schedule=Squared())
    assert hits.order.shape == hits.times.shape == shape and hits.count.tolist() == [0] * shape[0]
    assert reveal_steps(mask, grid(3).to(backend.device), seed=1).shape == shape


@pytest.mark.emulated
def test_layout_of_the_mask_does_not_matter(backend) -> None:
    wide = random_mask(40, 12, seed=5).to(backend.device)
    mask = wide.t()[::2, 3:]
    for mine, right in zip(
        first_hitting_times(mask, seed=1), first_hitting_times(mask.contiguous(), seed=1), strict=True
    ):
        assert torch.equal(mine, right)
    steps = reveal_steps(mask, grid(5).to(backend.device), seed=1)
    assert torch.equal(steps, reveal_steps(mask.contiguous(), grid(5).to(backend.device), seed=1))


# ---- what must not matter


@pytest.mark.emulated
def test_a_sequence_is_the_same_in_every_batch(backend) -> None:
    device = backend.device
    mask = random_mask(7, 70, seed=3).to(device)
    whole = first_hitting_times(mask, seed=8, offset=3)
    steps = reveal_steps(mask, grid(9).to(device), seed=8, offset=3)
    for rows in ([2], [6, 0, 3], list(range(7))[::-1]):
        options = {"seed": PhiloxState(8, 1), "offset": 2, "sequence_ids": rows}
        part = first_hitting_times(mask[rows], **options)
        for mine, right in zip(part, whole, strict=True):
            assert torch.equal(mine, right[rows])
        assert torch.equal(reveal_steps(mask[rows], grid(9).to(device), **options), steps[rows])
    alone = [first_hitting_times(mask[b : b + 1], seed=100 + b).order[0] for b in range(7)]
    seeds = first_hitting_times(mask, seed=[100 + b for b in range(7)]).order
    assert torch.equal(seeds, torch.stack(alone)), "with a seed each, every sequence is what it is alone"


@hypothesis.given(
    st.integers(1, 80), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_properties(length, seed, offset, sequence) -> None:
    mask = random_mask(1, length, seed=length)
    options = {"seed": seed, "offset": offset, "sequence_ids": [sequence]}
    order, times, count = first_hitting_times(mask, **options)
    n = int(count)
    assert sorted(order[0, :n].tolist()) == mask[0].nonzero()[:, 0].tolist()
    assert (order[0, n:] == -1).all() and (times[0, n:] == 0).all()
    assert (times[0, :n].diff() <= 0).all() and (times[0, :n] > 0).all() and (times[0, :n] < 1).all()
    full = first_hitting_times(torch.ones_like(mask), **options).order[0]
    assert [p for p in full.tolist() if mask[0, p]] == order[0, :n].tolist(), "masks do not move the keys"


def test_threads_do_not_matter() -> None:
    mask = random_mask(64, 1000, seed=1)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append([*first_hitting_times(mask, seed=2), reveal_steps(mask, grid(7), seed=2)])
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *results))


# ---- times


@pytest.mark.emulated
def test_times_of_a_schedule(backend) -> None:
    mask = random_mask(3, 50, seed=1).to(backend.device)
    plain, timed = first_hitting_times(mask, seed=6), first_hitting_times(mask, seed=6, schedule=Squared())
    assert torch.equal(plain.order, timed.order)
    torch.testing.assert_close(timed.times, plain.times.sqrt(), rtol=1e-15, atol=0)
    assert (timed.times[plain.order < 0] == 0).all()


@pytest.mark.emulated
def test_steps_are_where_the_times_are(backend) -> None:
    """Ancestral sampling on a grid is coupled with first hitting: the step that holds the hit."""
    device, points = backend.device, torch.linspace(1, 0.2, 38, dtype=torch.float64, device=backend.device)
    mask, schedule = random_mask(6, 300, seed=2).to(device), Squared()
    hits = first_hitting_times(mask, seed=3, schedule=schedule)
    steps = reveal_steps(mask, schedule.mask_prob(points), seed=3)
    assert torch.equal(steps < 0, ~mask)
    for b in range(len(mask)):
        n = int(hits.count[b])
        order, times = hits.order[b, :n].long(), hits.times[b, :n]
        mine = steps[b, order].long()
        assert (mine.diff() >= 0).all(), "in the order of the hits"
        inside = mine < 37
        assert not inside.all() and inside.any(), "some are revealed, some stay"
        assert (times[inside] < points[mine[inside]] + 1e-12).all()
        assert (times[inside] >= points[mine[inside] + 1] - 1e-12).all()
        assert (times[~inside] < points[-1]).all()


def test_fine_grids_have_the_order_of_hits() -> None:
    mask = torch.ones(20, 12, dtype=torch.bool)
    steps = reveal_steps(mask, grid(1 << 20), seed=3)
    assert all(len(set(row)) == 12 for row in steps.tolist()), "the seed puts no two hits into one step"
    assert torch.equal(steps.argsort(1).int(), first_hitting_times(mask, seed=3).order)


# ---- law


def test_order_statistics() -> None:
    """The k-th of L uniforms, counted from above, is Beta(L - k, k + 1): Kolmogorov-Smirnov for each rank."""
    n, length = 100_000, 6
    u = uniforms(n, length, seed=11)
    for k in range(length):
        law = scipy.stats.beta(length - k, k + 1)
        assert scipy.stats.kstest(u[:, k].numpy(), law.cdf).pvalue > 1e-4, k
    mean, se = length / (length + 1), math.sqrt(length / ((length + 1) ** 2 * (length + 2)) / n)
    assert abs(u[:, 0].mean() - mean) < 4.5 * se


def test_recursion_has_the_same_law() -> None:
    """m(next) = m u^(1/n) with n left: then (m(next) / m)^n are independent uniforms; so they are here."""
    n, length = 100_000, 5
    u = uniforms(n, length, seed=12)
    before = torch.cat([torch.ones(n, 1, dtype=torch.float64), u[:, :-1]], 1)
    steps = (u / before) ** torch.arange(length, 0, -1)
    for k in range(length):
        assert scipy.stats.kstest(steps[:, k].numpy(), "uniform").pvalue > 1e-4, k
    correlation = torch.corrcoef(steps.T) - torch.eye(length)
    assert correlation.abs().max() < 4.5 / math.sqrt(n)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(n, length, generator=generator, dtype=torch.float64)
    recursion = (drawn.log() / torch.arange(length, 0, -1)).cumsum(1).exp()
    for k in range(length):
        assert scipy.stats.ks_2samp(recursion[:, k].numpy(), u[:, k].numpy()).pvalue > 1e-4, k


@pytest.mark.parametrize("vary", ["sequence", "seed", "offset"])
def test_every_order_is_equally_likely(vary) -> None:
    """24 orders of 4 positions, over sequences, seeds or draws; 23 degrees of freedom."""
    n = 24_000
    mask = torch.ones(n, 4, dtype=torch.bool)
    if vary == "sequence":
        order = first_hitting_times(mask, seed=13).order
    elif vary == "seed":
        order = first_hitting_times(mask, seed=list(range(n))).order
    else:
        rng = torch.stack([torch.full((n,), 13), torch.arange(n), torch.zeros(n, dtype=torch.int64)], 1)
        order = first_hitting_times(mask, rng=rng).order
    place = {p: i for i, p in enumerate(itertools.permutations(range(4)))}
    numbers = torch.tensor([place[tuple(row)] for row in order.tolist()])
    check_counts(count_values(numbers, 24), torch.ones(24))


def test_order_and_times_are_independent() -> None:
    n = 60_000
    hits = first_hitting_times(torch.ones(n, 3, dtype=torch.bool), seed=14)
    early = hits.times[:, 0] > hits.times[:, 0].median()
    for share in (early, ~early):
        check_counts(count_values(hits.order[share, 0], 3), torch.ones(3))


def test_law_of_steps() -> None:
    """P(step i) = (m_i - m_(i+1)) / m_0, P(stays) = m_N / m_0, for positions and sequences alike."""
    levels = torch.tensor([0.95, 0.9, 0.5, 0.5, 0.2, 0.01], dtype=torch.float64)
    steps = reveal_steps(torch.ones(2000, 100, dtype=torch.bool), levels, seed=15)
    law = torch.cat([-levels.diff(), levels[-1:]]) / levels[0]
    counts = count_values(steps, 6)
    assert counts[2] == 0, "a step without width reveals nothing"
    keep = law > 0
    check_counts(counts[keep], law[keep])
    check_frequency(steps == 1, float(law[1]), detects=0.007)


def test_steps_are_independent_reveals() -> None:
    """Given masked at step i, revealed in it with probability 1 - m_(i+1) / m_i, neighbours independently."""
    levels = torch.tensor([1.0, 0.8, 0.3, 0.0], dtype=torch.float64)
    steps = reveal_steps(torch.ones(1000, 200, dtype=torch.bool), levels, seed=16)
    for i in range(2):
        masked = steps >= i
        check_frequency(steps[masked] == i, 1 - float(levels[i + 1] / levels[i]), detects=0.01)
    first = (steps == 0).double()
    for a, b in ((first[:, :-1], first[:, 1:]), (first[:-1], first[1:])):
        rho = torch.corrcoef(torch.stack([a.reshape(-1), b.reshape(-1)]))[0, 1]
        assert abs(rho) < 4.5 / math.sqrt(a.numel())
