"""select_transfer: its four rules against the reference and against their definitions."""

from __future__ import annotations

import itertools
import math

import hypothesis
import pytest
import torch
from fastdiff_ops.ops.transfer import select_transfer
from fastdiff_ops.reference import hitting as reference
from hypothesis import strategies as st
from ops.hitting_cases import random_mask

ops = torch.ops.fastdiff_ops
COUNT, THRESHOLD, FACTOR, ENTROPY = range(4)
LENGTHS = (1, 2, 5, 31, 32, 33, 64, 65, 100, 257)
SPECIAL = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 0.5, -1.0, 5e-324, math.nan)


def scores(length: int, seed: int, kind: str, dtype=torch.float64) -> torch.Tensor:
    """Three sequences: confidences, many ties, or values that are hard to compare."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(3, length, generator=generator, dtype=dtype)
    if kind == "ties":
        return (u * 4).floor() / 4
    if kind == "special":
        return torch.tensor(SPECIAL, dtype=dtype)[(u * len(SPECIAL)).long()]
    if kind == "residual":  # over many magnitudes, 0 and infinity among them
        r = torch.exp(60 * u - 50)
        return (
            r.masked_fill(u < 0.1, 0)
            .masked_fill(u > 0.97, math.inf)
            .masked_fill((u * 1000) % 7 < 1, math.nan)
        )
    return u**0.1


def limits(rule: int) -> list[torch.Tensor]:
    if rule == COUNT:
        return [torch.tensor(k) for k in ([0], [1], [3], [1000], [0, 2, 7])]
    numbers = {
        THRESHOLD: ([0.0], [0.5], [0.9], [1.0], [1.5], [-1.0], [0.25, 0.75, 1.0]),
        FACTOR: ([0.0], [1e-10], [1.0], [3.0], [math.inf], [0.5, 2.0, 20.0]),
        ENTROPY: ([0.0], [0.1], [2.0], [math.inf], [0.5, 1.0, 20.0]),
    }
    return [torch.tensor(n, dtype=torch.float64) for n in numbers[rule]]


def by_definition(score, candidate, limit, entropy, rule, residual) -> list[bool]:
    """One sequence in Python's own floats, the rules as they are written."""

    def rank(position: int) -> tuple[bool, float, int]:
        value = float(score[position])
        value = -value if residual else value
        return (math.isnan(value), 0.0 if math.isnan(value) else -value, position)

    def short(position: int) -> float:
        value = float(score[position])
        if not residual:
            return 1 - value
        return 1 / (1 + (1 / value if value else math.inf))

    order = sorted((p for p in range(len(score)) if candidate[p]), key=rank)
    n = len(order)
    if rule == COUNT:
        taken = order[: int(limit)]
    elif rule == THRESHOLD:
        limit = limit if residual else limit.to(score.dtype).double()
        meets = [p for p in order if (short(p) <= 1 - limit if residual else float(score[p]) >= limit)]
        taken = [*meets, *order[:1]]
    elif rule == FACTOR:
        fitting = [k for k in range(1, n + 1) if (k + 1) * short(order[k - 1]) < float(limit)]
        taken = order[: max([1, *fitting])]
    else:
        k = 1
        while k < n:
            total, largest = 0.0, -math.inf
            for p in order[: k + 1]:
                total, largest = total + float(entropy[p]), max(largest, float(entropy[p]))
            if not total - largest <= float(limit):
                break
            k += 1
        taken = order[:k]
    return [p in taken for p in range(len(score))]


# ---- kernels against the reference, and that against the definition


@pytest.mark.emulated
@pytest.mark.parametrize("rule", range(4))
@pytest.mark.parametrize("length", LENGTHS)
def test_kernels_equal_reference(backend, length, rule) -> None:
    cases = itertools.product(
        ("confidence", "ties", "special", "residual"), (torch.float32, torch.float64), (0.6, 1.1, 0.0)
    )
    entropy = -torch.log(scores(length, 9, "confidence")) if rule == ENTROPY else None
    for (kind, dtype, share), limit in itertools.product(cases, limits(rule)):
        score, candidate = scores(length, length, kind, dtype), random_mask(3, length, length, share)
        right = reference.select_transfer(score, candidate, limit, entropy, rule, kind == "residual")
        arguments = [None if v is None else v.to(backend.device) for v in (score, candidate, limit, entropy)]
        got = ops.select_transfer(*arguments, rule, kind == "residual")
        assert torch.equal(got.cpu(), right), (kind, dtype, limit)


@pytest.mark.parametrize("rule", range(4))
@pytest.mark.parametrize("kind", ["confidence", "ties", "special", "residual"])
def test_reference_is_the_definition(rule, kind) -> None:
    length = 12
    candidate = random_mask(3, length, seed=1)
    entropy = -torch.log(scores(length, 9, "confidence")) if rule == ENTROPY else None
    for seed, limit, dtype in itertools.product(range(20), limits(rule), (torch.float32, torch.float64)):
        score = scores(length, seed, kind, dtype)
        got = reference.select_transfer(score, candidate, limit, entropy, rule, kind == "residual")
        for b in range(3):
            own = None if entropy is None else entropy[b]
            bound = limit.expand(3)[b]
            right = by_definition(score[b], candidate[b], bound, own, rule, kind == "residual")
            assert got[b].tolist() == right, (seed, limit)


@pytest.mark.emulated
@pytest.mark.parametrize("rule", range(4))
def test_longer_than_shared_memory(backend, rule) -> None:
    score, candidate = scores(8193, 1, "confidence"), random_mask(3, 8193, seed=1)
    entropy = -torch.log(scores(8193, 2, "confidence")) if rule == ENTROPY else None
    limit = torch.tensor([700]) if rule == COUNT else torch.tensor([0.9, 30.0, 5.0], dtype=torch.float64)
    right = reference.select_transfer(score, candidate, limit, entropy, rule, False)
    arguments = [None if v is None else v.to(backend.device) for v in (score, candidate, limit, entropy)]
    got = ops.select_transfer(*arguments, rule, False)
    assert torch.equal(got.cpu(), right) and 3 < got.sum() < candidate.sum()


@pytest.mark.emulated
@pytest.mark.parametrize("rule", range(4))
def test_layouts_and_empty(backend, rule) -> None:
    device, limit = backend.device, limits(rule)[1].to(backend.device)
    score = scores(40, 1, "confidence").t().contiguous().to(device).t()[::2, 3:]
    candidate = random_mask(40, 3, seed=1).to(device).t()[::2, 3:]
    entropy = (1 - score).expand(2, 37) if rule == ENTROPY else None
    right = reference.select_transfer(score, candidate, limit, entropy, rule, False)
    assert torch.equal(ops.select_transfer(score, candidate, limit, entropy, rule, False), right)
    for shape in ((0, 0), (0, 4), (3, 0)):
        empty = torch.zeros(shape, device=device)
        got = ops.select_transfer(empty, empty.bool(), limit, empty if rule == ENTROPY else None, rule, False)
        assert got.shape == shape and got.dtype == torch.bool


# ---- the rules through the wrapper


def row(*values, dtype=torch.float64) -> torch.Tensor:
    return torch.tensor([values], dtype=dtype)


ALL = torch.ones(1, 4, dtype=torch.bool)


def test_count() -> None:
    score = row(0.5, 0.9, 0.9, 0.1)
    assert select_transfer(score, ALL, count=1).tolist() == [[False, True, False, False]]
    assert select_transfer(score, ALL, count=3).tolist() == [[True, True, True, False]]
    assert not select_transfer(score, ALL, count=0).any()
    assert select_transfer(score, ALL, count=9).all()
    counts = torch.tensor([2, 0, 4], dtype=torch.int32)
    many = select_transfer(score.expand(3, 4), ALL.expand(3, 4), count=counts)
    assert many.sum(1).tolist() == counts.tolist()


def test_threshold() -> None:
    score = row(0.5, 0.9, 0.95, 0.1)
    assert select_transfer(score, ALL, threshold=0.9).tolist() == [[False, True, True, False]]
    assert select_transfer(score, ALL, threshold=0.96).tolist() == [[False, False, True, False]]
    assert select_transfer(score, ALL, threshold=0).all()
    assert select_transfer(score.float(), ALL, threshold=0.9)[0, 1], "0.9 is 0.9, in float32 as well"
    tensor = torch.tensor([0.5], dtype=torch.float32)
    assert select_transfer(score, ALL, threshold=tensor).sum() == 3


def test_factor_is_not_off_by_one() -> None:
    """(n + 1) (1 - c_n) = 0.2, 0.45, 0.8, 5: the last one alone fails for a factor between."""
    score = row(0.9, 0.85, 0.8, 0.0)
    for factor, n in ((0.2, 1), (0.21, 1), (0.46, 2), (0.81, 3), (4.9, 3), (5.1, 4), (math.inf, 4), (0, 1)):
        assert select_transfer(score, ALL, factor=factor).sum() == n, factor


def test_entropy_bound() -> None:
    """The score orders the prefix: by entropy 0.1, 0.3, 0.5, 2 the gaps are 0, 0.1, 0.4, 0.9."""
    entropy = row(0.5, 0.1, 2.0, 0.3)
    for bound, n in ((0, 1), (0.09, 1), (0.11, 2), (0.41, 3), (0.91, 4)):
        assert select_transfer(-entropy, ALL, entropy=entropy, entropy_bound=bound).sum() == n, bound
    worst_first = select_transfer(entropy, ALL, entropy=entropy, entropy_bound=0.5)
    assert worst_first.tolist() == [[True, False, True, False]], "the largest entropy is free"
    sure = row(0.0, 0.0, 0.7, 0.8)
    assert select_transfer(-sure, ALL, entropy=sure, entropy_bound=0.0).sum() == 3, "zeros, and one more"


def test_residuals_do_not_saturate() -> None:
    """All these confidences are 1 in float32, three of them in float64."""
    r = row(3e-17, 1e-17, 2e-17, 1e-9)
    score = 1 / (1 + r.float())
    assert (score == 1).all()
    for k, wanted in ((1, [1]), (2, [1, 2]), (3, [0, 1, 2])):
        chosen = select_transfer(score, ALL, residual=r, count=k)
        assert chosen[0].nonzero()[:, 0].tolist() == wanted
    assert select_transfer(None, ALL, residual=r, factor=5e-17).sum() == 1
    assert select_transfer(None, ALL, residual=r, factor=7e-17).sum() == 2
    assert select_transfer(None, ALL, residual=r, threshold=1 - 1e-10).tolist() == [[True, True, True, False]]
    assert select_transfer(None, ALL, residual=row(1.0, math.inf, 0.1, 3.0), threshold=0.5).sum() == 2
    assert select_transfer(None, ALL, residual=row(1.0, math.inf, 0.1, 3.0), threshold=0).all()
    assert select_transfer(None, ALL, residual=row(1.0, math.inf, 0.1, 0.0), threshold=1.1)[0, 3]


def test_nan_ranks_last() -> None:
    score = row(math.nan, -math.inf, 0.5, math.nan)
    for k, wanted in ((1, [2]), (2, [1, 2]), (3, [0, 1, 2])):
        assert select_transfer(score, ALL, count=k)[0].nonzero()[:, 0].tolist() == wanted
    assert select_transfer(score, ALL, threshold=-1.0).tolist() == [[False, False, True, False]]
    nothing = row(*[math.nan] * 4)
    for rule in ({"threshold": 0.0}, {"factor": 5.0}, {"count": 1}):
        assert select_transfer(nothing, ALL, **rule).tolist() == [[True, False, False, False]]
    chosen = select_transfer(-row(0, 1, 2, 3), ALL, entropy=row(0, math.nan, 2, 3), entropy_bound=math.inf)
    assert chosen.sum() == 1, "NaN ends the prefix"


values = st.lists(st.floats(0, 1) | st.sampled_from([0.5, 1.0, math.nan]), min_size=1, max_size=40)


@hypothesis.given(values, st.floats(0, 1), st.floats(0, 10), st.integers(0, 50), st.randoms())
@hypothesis.settings(max_examples=100, deadline=None)
def test_properties(numbers, threshold, factor, count, random) -> None:
    score = torch.tensor([numbers], dtype=torch.float64)
    candidate = torch.tensor([[random.random() < 0.7 for _ in numbers]])
    n = int(candidate.sum())
    best = select_transfer(score, candidate, count=1)
    for rule in ({"threshold": threshold}, {"factor": factor}, {"count": count}):
        chosen = select_transfer(score, candidate, **rule)
        assert not (chosen & ~candidate).any()
        assert chosen.sum() >= min(n, 1) or rule == {"count": 0}
        if chosen.any():
            assert (chosen & best).any(), "the best is always among them"
        size = int(chosen.sum())
        assert torch.equal(chosen, select_transfer(score, candidate, count=size)), "a prefix of one order"
    assert select_transfer(score, candidate, count=count).sum() == min(n, count)


def test_threads_do_not_matter() -> None:
    score, candidate = torch.rand(64, 1000, dtype=torch.float64), random_mask(64, 1000, seed=1)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(select_transfer(score, candidate, factor=20.0))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
