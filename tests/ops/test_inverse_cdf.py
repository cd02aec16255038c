"""inverse_cdf: one token everywhere, the right law, and no token of probability zero."""

from __future__ import annotations

import math

import pytest
import torch
from fastdiff_ops.ops import inverse_cdf, make_rng
from fastdiff_ops.reference.inverse_cdf import inverse_cdf as reference
from ops.categorical_cases import DTYPES, F32, F64, assert_same, in_new_process
from ops.test_gumbel_distribution import chi_square
from torch import Tensor

SIZES = (1, 2, 63, 64, 65, 700)


def weights(n_rows: int, vocab: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Uneven numbers, a third of them zero."""
    p = torch.rand(n_rows, vocab, generator=torch.Generator().manual_seed(seed), dtype=F64) ** 3
    p[:, 1::3] = 0
    return p.to(dtype)


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", SIZES)
def test_equals_the_reference(backend, vocab, dtype) -> None:
    p = weights(40, vocab, dtype)
    got = inverse_cdf(p.to(backend.device), seed=3, offset=2).cpu()
    assert_same([got], [reference(p, make_rng(3, 2), None)])
    assert bool((p.gather(1, got[:, None]) > 0).all())


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", [torch.bfloat16, F64])
@pytest.mark.parametrize("vocab", [4095, 4097, 9000])
def test_equals_the_reference_in_several_tiles(backend, vocab, dtype) -> None:
    p = weights(5, vocab, dtype)
    p[4] = 0
    p[4, vocab - 1] = 1
    names = torch.tensor([9, -1, 1 << 40, 3, 3])
    want = reference(p, make_rng(3), names)
    assert_same([inverse_cdf(p.to(backend.device), seed=3, row_ids=names.to(backend.device)).cpu()], [want])
    assert want[4] == vocab - 1


def test_the_sum_is_exact_enough() -> None:
    """Against exact sums of float64: the token's interval holds u times the total, to 1e-12 of the total."""
    p = weights(300, 20_000, F32)
    tokens = inverse_cdf(p, seed=7)
    total = p.double().sum(1)
    u = []
    for r in range(len(p)):  # u of a row, from a finer and finer grid of equal weights
        at = inverse_cdf(torch.ones(1, 1 << 16), rng=make_rng(7), row_ids=torch.tensor([r])).item()
        u.append((at, at + 1))
    bounds = torch.tensor(u, dtype=F64) / (1 << 16)
    before = p.double().cumsum(1).gather(1, tokens[:, None])[:, 0]
    slack = 1e-12 * total
    assert bool((before + slack >= bounds[:, 0] * total).all())
    assert bool((before - p.gather(1, tokens[:, None])[:, 0].double() - slack <= bounds[:, 1] * total).all())


@pytest.mark.parametrize("vocab", [7, 300, 6000])
def test_law(vocab) -> None:
    """Chi-square of 3e5 draws; a law off by 1 % in the larger half would give z > 10."""
    p = weights(1, vocab, F32, seed=1)
    n = 300_000
    tokens = inverse_cdf(p.expand(n, vocab), seed=5)
    counts = torch.bincount(tokens, minlength=vocab)
    law = (p[0].double() / p[0].double().sum()).numpy()
    assert counts[p[0] == 0].sum() == 0
    assert abs(chi_square(counts.numpy()[law > 0], law[law > 0])) < 4


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_are_no_distribution(backend, dtype) -> None:
    good = [0.0, 0.5, 0.0, 2.0]
    bad = [[0.0] * 4, [1, -1e-3, 1, 1], [1, math.nan, 0, 0], [0, math.inf, 1, 0], [-0.0, 0.0, 0.0, -0.0]]
    p = torch.tensor([good, *bad, good], dtype=dtype, device=backend.device)
    tokens = inverse_cdf(p, seed=1).tolist()
    assert tokens[1:6] == [-1] * 5
    assert tokens[0] in (1, 3) and tokens[6] in (1, 3)


@pytest.mark.emulated
def test_extreme_scales(backend) -> None:
    """Denormal sums, sums near the largest number, a tiny weight after a large one."""
    p = torch.tensor([[5e-324, 0.0], [8e307, 8e307], [0.0, 5e-324], [1.0, 1e-300]], dtype=F64)
    tokens = inverse_cdf(p.repeat(20, 1).to(backend.device), seed=1).view(20, 4).cpu()
    assert set(tokens[:, 0].tolist()) == {0} and set(tokens[:, 2].tolist()) == {1}
    assert set(tokens[:, 1].tolist()) == {0, 1} and set(tokens[:, 3].tolist()) == {0}
    assert inverse_cdf(torch.full((1, 3), 1e308, dtype=F64), seed=1).item() == -1  # the sum is infinite


@pytest.mark.emulated
def test_invariance(backend) -> None:
    """Rows alone, permuted, with a seed each, as slices, unnormalised."""
    p = weights(6, 130, F32).to(backend.device)
    want = inverse_cdf(p, seed=4)
    names = torch.arange(6, device=backend.device)
    order = torch.tensor([3, 0, 5], device=backend.device)
    assert torch.equal(inverse_cdf(p[order], seed=4, row_ids=names[order]), want[order])
    assert torch.equal(inverse_cdf(p * 4, seed=4), want)
    state = torch.stack([torch.full_like(names, 4), torch.zeros_like(names), names], 1)
    assert torch.equal(inverse_cdf(p, rng=state), want)
    wide = torch.full((6, 200), math.nan, device=backend.device)
    wide[:, 3:133] = p
    assert torch.equal(inverse_cdf(wide[:, 3:133], seed=4), want)
    assert torch.equal(inverse_cdf(p.view(2, 3, 130), seed=4), want.view(2, 3))
    assert inverse_cdf(p[:0], seed=4).shape == (0,)
    assert inverse_cdf(p[0], seed=4).shape == ()
    assert not torch.equal(inverse_cdf(p, seed=4, offset=1), want)


def test_simd_levels_agree() -> None:
    code = """
import fastdiff_ops.ops as ops
from ops.test_inverse_cdf import DTYPES, weights
for dtype in DTYPES:
    for vocab in (63, 700, 9000):
        print(ops.inverse_cdf(weights(50, vocab, dtype), seed=1).tolist())
"""
    results = {in_new_process(code, FASTDIFF_OPS_SIMD=level) for level in ("scalar", "avx2", "avx512")}
    assert len(results) == 1
