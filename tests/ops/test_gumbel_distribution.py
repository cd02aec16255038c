"""The law of the noise and of the draws, at fixed seeds; each test says what it would notice.

The bounds are those of |z| < 4 and p > 1e-4: a right sampler fails one of these tests with probability 6e-5,
and not at these seeds.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from fastdiff_ops import ops
from ops.categorical_cases import F32, F64, STREAMS
from torch import Tensor


def chi_square(counts: np.ndarray, probability: np.ndarray) -> float:
    """z-score of the chi-square statistic; cells that expect less than 5 are merged."""
    expected = probability * counts.sum()
    order = np.argsort(expected)
    group = np.zeros(len(order), dtype=np.int64)
    filled = np.cumsum(expected[order])
    cell, base = 0, 0.0
    for i, total in enumerate(filled):  # smallest first, closed as soon as 5 are expected
        group[i] = cell
        if total - base >= 5 and filled[-1] - total >= 5:
            cell, base = cell + 1, total
    seen = np.bincount(group, counts[order])
    wanted = np.bincount(group, expected[order])
    statistic = ((seen - wanted) ** 2 / wanted).sum()
    return float((statistic - cell) / math.sqrt(2 * max(cell, 1)))


def scores(n_rows: int, columns: int, stream: str, seed: int, **options) -> Tensor:
    """Noise from the kernels: z of rows whose logits are 0 in one column, [n_rows, columns]."""
    logits = torch.zeros(1, 1).expand(n_rows, 1)
    drawn = [
        ops.gumbel_argmax(
            logits, seed=seed, vocab_start=v, vocab_size=1 << 20, stream=stream, return_score=True, **options
        )[1]
        for v in range(columns)
    ]
    return torch.stack(drawn, 1)


@pytest.mark.parametrize("stream", STREAMS)
def test_noise_is_gumbel(stream) -> None:
    """10^6 numbers. KS sees a probability off by 0.0022; the mean 0.005, the variance 0.014 of its own."""
    g = scores(1_000_000, 1, stream, 2024)[:, 0].numpy()
    assert scipy.stats.kstest(np.exp(-np.exp(-g)), "uniform").pvalue > 1e-4
    assert abs(g.mean() - 0.5772157) < 0.0052
    assert abs(g.var() - math.pi**2 / 6) < 0.014


@pytest.mark.slow
@pytest.mark.parametrize("stream", STREAMS)
def test_noise_reaches_far(stream) -> None:
    """Of 10^8 numbers 100 exceed 13.8 = -log 1e-6: +- 40. Rows of 64 equal logits: their largest of 64."""
    seen = 0
    rows, vocab = 1 << 18, 64
    draws = 100_000_000 // (rows * vocab) + 1
    for offset in range(draws):
        _, z = ops.gumbel_argmax(
            torch.zeros(1, vocab).expand(rows, vocab), seed=9, offset=offset, stream=stream, return_score=True
        )
        seen += int((z > -math.log(-math.log1p(-1e-6))).sum())
    expected = draws * rows * -math.expm1(vocab * math.log1p(-1e-6))
    assert abs(seen - expected) < 4 * math.sqrt(expected)


def test_numbers_of_a_block_are_independent() -> None:
    """block16 builds 16 numbers from one minimum: no correlation of X, X^2 or ranks; the minimum's place."""
    n = 100_000
    g = block_noise(n)
    x = np.exp(-g.numpy())
    for values in (x, x**2, np.exp(-x)):
        correlation = np.corrcoef(values.T) - np.eye(16)
        assert np.abs(correlation).max() < 4.8 / math.sqrt(n)  # of 120 pairs
    places = np.bincount(x.argmin(1), minlength=16)
    assert abs(chi_square(places, np.full(16, 1 / 16))) < 4
    assert scipy.stats.kstest(x.min(1) * 16, "expon").pvalue > 1e-4


def block_noise(n: int) -> Tensor:
    """The 16 numbers of block 0 of n rows, from the kernels: [n, 16]."""
    logits = torch.zeros(1, 1).expand(n, 1)
    return torch.stack(
        [
            ops.gumbel_argmax(
                logits, seed=4, vocab_start=256 * i, vocab_size=5000, stream="block16", return_score=True
            )[1]
            for i in range(16)
        ],
        1,
    )


@pytest.mark.parametrize("stream", STREAMS)
def test_law_of_the_draw_small(stream) -> None:
    """V = 300, T = 0.7, 3 x 10^6 draws."""
    vocab, temperature, n = 300, 0.7, 3_000_000
    logits = 1.5 * torch.randn(vocab, generator=torch.Generator().manual_seed(1))
    tokens = ops.gumbel_argmax(logits.expand(n, -1), temperature, seed=1, stream=stream)
    temperature = float(torch.tensor(temperature))
    p = torch.softmax(logits.double() / temperature, 0).numpy()
    assert abs(chi_square(np.bincount(tokens, minlength=vocab), p)) < 4


@pytest.mark.parametrize("stream", STREAMS)
def test_law_of_the_draw_large(stream) -> None:
    vocab, n = 6000, 400_000
    logits = 2 * torch.randn(vocab, generator=torch.Generator().manual_seed(2))
    tokens = ops.gumbel_argmax(logits.expand(n, -1), seed=2, stream=stream)
    p = torch.softmax(logits.double(), 0).numpy()
    assert abs(chi_square(np.bincount(tokens, minlength=vocab), p)) < 4


def test_float32_noise_would_be_noticed() -> None:
    """The entropy of tokens from 4 x 10^5 draws at V = 50257, Zipf(1): the mean of -log p within 4 standard
    errors of the entropy. MDLM's formula with bfloat16 noise is off by many."""
    vocab, n = 50257, 400_000
    logits = -torch.arange(1, vocab + 1).float().log()
    logp = torch.log_softmax(logits.double(), 0)
    tokens = ops.gumbel_argmax(logits.expand(n, -1), seed=3)
    surprise = -logp[tokens]
    entropy = float(-(logp.exp() * logp).sum())
    assert abs(float(surprise.mean()) - entropy) < 4 * float(surprise.std()) / math.sqrt(n)
    rare = float(logp[20_000:].exp().sum())
    seen = int((tokens >= 20_000).sum())
    assert abs(seen - n * rare) < 4 * math.sqrt(n * rare * (1 - rare))


@pytest.mark.parametrize("dtype", [torch.bfloat16, F32])
def test_uniform_logits_are_uniform(dtype) -> None:
    """Mean index / V of 50258 equal logits is 0.5 +- 0.009 (MDLM's formula in bfloat16: 0.005)."""
    vocab, n = 50258, 20_000
    tokens = ops.gumbel_argmax(torch.zeros(1, vocab, dtype=dtype).expand(n, -1), seed=4)
    assert abs(float(tokens.double().mean()) / vocab - 0.5) < 4 / math.sqrt(12 * n)


def test_llada_formula() -> None:
    """exp(l) / (-log u)^T in float64, with our -log u: the same token in 10^4 rows of each temperature."""
    rows, vocab = 10_000, 64
    logits = 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(5), dtype=F64)
    race = torch.exp(-ops.gumbel_noise(torch.arange(rows), vocab, seed=6))
    for temperature in (0.25, 0.5, 1.0, 2.0):
        eager = (logits.exp() / race**temperature).argmax(1)
        assert torch.equal(ops.gumbel_argmax(logits, temperature, seed=6), eager)
        low = ops.gumbel_argmax(logits.float(), temperature, seed=6)
        assert torch.equal(low, (logits.float().double().exp() / race**temperature).argmax(1))


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("vocab", [5, 4])
def test_draws_without_replacement(vocab, stream) -> None:
    """Plackett-Luce: all ordered choices of 3 of the tokens, 10^6 of them, chi-square."""
    n, k = 1_000_000, 3
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5, -2.5])[:vocab]
    tokens, z = ops.gumbel_topk(logits.expand(n, -1), k, 0.8, seed=7, stream=stream)
    assert (z[:, 1:] <= z[:, :-1]).all()
    p = torch.softmax(logits.double() / float(torch.tensor(0.8)), 0).tolist()
    code = ((tokens[:, 0] * vocab + tokens[:, 1]) * vocab + tokens[:, 2]).numpy()
    counts = np.bincount(code, minlength=vocab**3)
    law = np.zeros(vocab**3)
    for a, b, c in itertools.permutations(range(vocab), k):
        law[(a * vocab + b) * vocab + c] = p[a] * p[b] / (1 - p[a]) * p[c] / (1 - p[a] - p[b])
    assert counts[law == 0].sum() == 0
    assert abs(chi_square(counts[law > 0], law[law > 0])) < 4


def test_chi_square_has_power() -> None:
    """The tests above notice a temperature off by 0.7 %: the same draws against the law at 0.705."""
    logits = 1.5 * torch.randn(300, generator=torch.Generator().manual_seed(1))
    tokens = ops.gumbel_argmax(logits.expand(3_000_000, -1), 0.7, seed=1)
    p = torch.softmax(logits.double() / 0.705, 0).numpy()
    assert chi_square(np.bincount(tokens, minlength=300), p) > 8
