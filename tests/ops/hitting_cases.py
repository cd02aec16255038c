"""What the tests of hitting operators share: random streams in every form, and tests of frequencies."""

from __future__ import annotations

import math

import scipy.stats
import torch
from fastdiff_ops.ops.random import make_rng

LEVEL = 1e-4  # of each test: seeds are fixed, so a right generator fails none of them
POWER = 0.99


def random_mask(batch: int, length: int, seed: int, share: float = 0.7) -> torch.Tensor:
    return torch.rand(batch, length, generator=torch.Generator().manual_seed(seed)) < share


def streams(batch: int) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """(rng, sequence_ids) in every form, with the largest seed, offset and id among them."""
    ids = torch.tensor([(1 << 32) - 1 - 3 * b for b in range(batch)], dtype=torch.int64)
    seeds = [(1 << 64) - 1 - (b << 40) for b in range(batch)]
    return [
        (make_rng(5, 2), None),
        (make_rng((1 << 64) - 1, (1 << 32) - 1), ids),
        (make_rng(seeds, 7), None),
        (make_rng(seeds, sample_ids=ids.tolist()), None),
        (make_rng(seeds, sample_ids=ids.tolist()), ids.flip(0)),
    ]


def check_frequency(hits: torch.Tensor, p: float, *, detects: float) -> None:
    """Fail if the share of true values is not p.

    The test is two-sided at LEVEL, and large enough to find a true share of p + detects or p - detects with
    probability POWER (normal approximation): a sample too small to say anything is an error of the test.
    """
    n = hits.numel()
    bound = scipy.stats.norm.isf(LEVEL / 2)
    for other in (p - detects, p + detects):
        spread = math.sqrt(max(other * (1 - other), 0.0))
        needed = bound * math.sqrt(p * (1 - p)) + scipy.stats.norm.isf(1 - POWER) * spread
        assert detects * math.sqrt(n) >= needed, f"{n} trials do not tell {p} from {other}"
    z = (hits.double().mean().item() - p) * math.sqrt(n / (p * (1 - p)))
    assert abs(z) < bound, f"share {hits.double().mean().item()} of {n}, expected {p}: z = {z:.2f}"


def check_counts(counts: torch.Tensor, probabilities: torch.Tensor) -> None:
    """Fail unless the counts are a plausible draw: chi-square at LEVEL, expected counts of at least 5."""
    expected = probabilities.double() / probabilities.double().sum() * counts.sum().double()
    assert expected.min() >= 5
    p = scipy.stats.chisquare(counts.double().numpy(), expected.numpy()).pvalue
    assert p > LEVEL, f"p = {p:.2e}, counts {counts.tolist()}, expected {expected.tolist()}"


def count_values(values: torch.Tensor, n: int) -> torch.Tensor:
    return torch.bincount(values.reshape(-1).long(), minlength=n)
