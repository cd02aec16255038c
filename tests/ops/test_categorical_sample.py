"""categorical_sample: the law of filtered draws, requests that do not see one another, log-probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from fastdiff_ops.ops import (
    CategoricalSample,
    categorical_sample,
    gumbel_argmax,
    gumbel_topk,
    inverse_cdf,
    make_rng,
    sampling_threshold,
)
from ops.categorical_cases import DTYPES, F32, F64
from ops.test_gumbel_distribution import chi_square
from torch import Tensor


def normal(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filtered(logits: Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0):
    """The law of a draw from one row [V], by sorting: float64 [V]. Ties with the last that is kept stay."""
    prob = torch.softmax(logits.double() / temperature, 0)
    ordered = prob.sort(descending=True).values
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if top_k:
        keep[top_k:] = False
    keep &= ordered.cumsum(0) - ordered < top_p
    keep &= ordered >= min_p * ordered[0]
    law = torch.where(prob >= ordered[keep].min(), prob, 0.0)
    return law / law.sum()


def test_no_requests() -> None:
    for options in ({}, {"temperature": 0.5, "top_p": 0.9}, {"replacement": False}):
        assert categorical_sample(torch.zeros(0, 5), num_samples=3, seed=1, **options).shape == (0, 3)


# ---- the law


@pytest.mark.parametrize(
    ("temperature", "filters"),
    [
        (1.0, {}),
        (0.7, {"top_k": 12}),
        (1.3, {"top_p": 0.8}),
        (1.0, {"min_p": 0.05}),
        (0.9, {"top_k": 60, "top_p": 0.95, "min_p": 0.01}),
    ],
)
@pytest.mark.parametrize("vocab", [200, 5000])
def test_law_of_filtered_draws(vocab, temperature, filters) -> None:
    """3e5 draws: a filter that keeps one token too many or too few, of 1 % mass, gives z > 30."""
    n = 300_000
    logits = normal(vocab, seed=vocab)
    tokens = categorical_sample(logits, temperature=temperature, num_samples=n, seed=11, **filters)
    law = filtered(logits, temperature, **filters)
    counts = torch.bincount(tokens, minlength=vocab)
    assert counts[law == 0].sum() == 0
    inside = law > 0
    assert abs(chi_square(counts[inside].numpy(), law[inside].numpy())) < 4


def test_law_without_replacement() -> None:
    """The pair (first, second) of Plackett-Luce over the filtered law."""
    logits, n = normal(6, seed=3), 200_000
    pairs = categorical_sample(
        logits.expand(n, 6), temperature=0.8, top_k=4, num_samples=2, replacement=False, seed=5
    )
    p = filtered(logits, 0.8, top_k=4)
    joint = p[:, None] * p[None] / (1 - p)[:, None]
    joint.fill_diagonal_(0)
    counts = torch.bincount(pairs[:, 0] * 6 + pairs[:, 1], minlength=36)
    inside = joint.flatten() > 0
    assert counts[~inside].sum() == 0
    assert abs(chi_square(counts[inside].numpy(), joint.flatten()[inside].numpy())) < 4


# ---- what it is made of


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_its_parts(backend, dtype) -> None:
    x = normal(4, 150).to(dtype).to(backend.device)
    t = torch.tensor([1.0, 0.0, 0.5, 2.0], device=backend.device)
    k = torch.tensor([5, 0, 1, 150], device=backend.device)
    bias, options = normal(150, seed=2).to(backend.device), {"forbidden": [3], "suppressed": x > 4}
    theta = sampling_threshold(x, t, top_k=k, top_p=0.9, bias=bias, **options)
    want = gumbel_argmax(x, t, seed=[1, 2, 3, 4], offset=6, threshold=theta, bias=bias, **options)
    given = {"temperature": t, "top_k": k, "top_p": 0.9, "bias": bias, **options}
    got = categorical_sample(x, seed=[1, 2, 3, 4], offset=6, **given)
    assert torch.equal(got, want) and got.dtype == torch.int64
    plain = categorical_sample(x, seed=1)
    assert torch.equal(plain, gumbel_argmax(x, seed=1))
    for off in ({"top_p": 1.0}, {"top_k": 0}, {"top_k": 150}, {"min_p": 0.0}):
        assert torch.equal(categorical_sample(x, seed=1, **off), plain)
    assert torch.equal(categorical_sample(x, seed=1, top_k=1), x.argmax(1))
    assert torch.equal(categorical_sample(x, seed=1, temperature=0), x.argmax(1))
    several = categorical_sample(x, seed=1, num_samples=3, replacement=False, temperature=0.8)
    assert torch.equal(several, gumbel_topk(x, 3, 0.8, seed=1)[0])


@pytest.mark.emulated
def test_draws_use_successive_offsets(backend) -> None:
    x = normal(3, 60).to(backend.device)
    bias = normal(3, 60, seed=1).to(backend.device)
    for options in ({}, {"bias": bias}, {"bias": bias[:1], "top_k": 9, "temperature": 0.5}):
        for seeds in ({"seed": 5}, {"seed": [5, 6, 7]}, {"rng": make_rng(5, device=backend.device)}):
            many = categorical_sample(x, num_samples=4, **seeds, **options)
            assert many.shape == (3, 4)
            if "rng" in seeds:
                seeds = {"seed": 5}
            single = [categorical_sample(x, offset=j, **seeds, **options) for j in range(4)]
            assert torch.equal(many, torch.stack(single, 1))
    assert categorical_sample(x, num_samples=1, seed=1).shape == (3, 1)
    ids = torch.tensor([7, 8, 7], device=backend.device)
    many = categorical_sample(x, num_samples=2, seed=5, row_ids=ids)
    assert torch.equal(many[:, 0], gumbel_argmax(x, seed=5, row_ids=ids))


@pytest.mark.emulated
def test_a_request_does_not_see_its_batch(backend) -> None:
    """Its token depends on its own logits, seed, offset and parameters."""
    x = normal(6, 90).to(backend.device)
    columns = {
        "temperature": torch.tensor([1.0, 0.3, 0.0, 2.0, 1.0, 0.8]),
        "top_k": torch.tensor([0, 3, 0, 50, 1, 20]),
        "top_p": torch.tensor([0.9, 1.0, 0.5, 0.99, 1.0, 0.7], dtype=F64),
        "min_p": torch.tensor([0.0, 0.1, 0.0, 0.0, 0.0, 0.01]),
        "seed": torch.tensor([11, 12, 13, 14, 11, -5]),
        "offset": torch.tensor([0, 1, 2, 3, 4, (1 << 32) - 1]),
    }
    columns = {name: value.to(backend.device) for name, value in columns.items()}
    want = categorical_sample(x, **columns, return_logprob=True)
    order = torch.tensor([5, 2, 0], device=backend.device)
    got = categorical_sample(x[order], **{k: v[order] for k, v in columns.items()}, return_logprob=True)
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b[order])
    for r in range(6):
        one = {name: value[r].item() for name, value in columns.items()}
        alone = categorical_sample(x[r], **{**one, "seed": [one["seed"]]})
        assert alone.shape == () and alone == want.tokens[r]


@pytest.mark.emulated
def test_shapes(backend) -> None:
    x = normal(2, 3, 40).to(backend.device)
    assert categorical_sample(x, seed=1).shape == (2, 3)
    assert categorical_sample(x, seed=1, num_samples=5).shape == (2, 3, 5)
    flat = categorical_sample(x.view(6, 40), seed=1, num_samples=5, top_k=4)
    assert torch.equal(categorical_sample(x, seed=1, num_samples=5, top_k=4).view(6, 5), flat)
    drawn = categorical_sample(x, seed=1, num_samples=2, return_logprob=True)
    assert isinstance(drawn, CategoricalSample)
    assert all(t.shape == (2, 3, 2) for t in drawn)
    assert categorical_sample(x[:0], seed=1).shape == (0, 3)
    assert categorical_sample(x[:0], seed=1, top_p=0.9, return_logprob=True).logprob.shape == (0, 3)


# ---- log-probabilities


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("replacement", [True, False])
def test_log_probabilities(backend, dtype, replacement) -> None:
    x = normal(5, 70, seed=4).to(dtype)
    for temperature, filters in ((1.0, {}), (0.6, {"top_k": 9}), (1.7, {"top_p": 0.7, "min_p": 0.02})):
        drawn = categorical_sample(
            x.to(backend.device), temperature=temperature, num_samples=3, replacement=replacement, seed=3,
            return_logprob=True, **filters,
        )  # fmt: skip
        for r in range(5):
            tokens = drawn.tokens[r].cpu()
            law = filtered(x[r], temperature, **filters)
            raw = torch.log_softmax(x[r].double(), 0)
            torch.testing.assert_close(drawn.logprob[r].cpu(), law[tokens].log(), rtol=2e-6, atol=2e-6)
            torch.testing.assert_close(drawn.raw_logprob[r].cpu(), raw[tokens], rtol=2e-6, atol=2e-6)


@pytest.mark.emulated
def test_log_probabilities_at_the_edges(backend) -> None:
    inf = math.inf
    rows = [[1.0, 2.0, 0.0], [-inf, -inf, math.nan], [inf, 0.0, inf], [5.0, -inf, -inf]]
    x = torch.tensor(rows, device=backend.device)
    cold = categorical_sample(x, temperature=0.0, seed=1, return_logprob=True)
    assert cold.tokens.tolist() == [1, -1, 0, 0]
    assert cold.logprob.tolist() == [0, -inf, 0, 0]
    want = torch.log_softmax(torch.tensor(rows[0], dtype=F64), 0)[1]
    assert abs(cold.raw_logprob[0].cpu() - want) < 2e-6
    assert cold.raw_logprob[1] == -inf and cold.raw_logprob[3] == 0
    assert abs(cold.raw_logprob[2].item() - math.log(0.5)) < 2e-6
    for filters in ({}, {"top_k": 1}, {"top_p": 0.3}):
        drawn = categorical_sample(x, seed=1, return_logprob=True, **filters)
        assert drawn.tokens[1] == -1 and drawn.logprob[1] == -inf and drawn.logprob[3] == 0
        assert bool((drawn.logprob <= 0).all())
    bias = torch.tensor([0.0, 0.0, 3.0], device=backend.device)
    biased = categorical_sample(x[:1], temperature=0, bias=bias, seed=1, return_logprob=True)
    law = torch.log_softmax(torch.tensor([1.0, 2.0, 3.0], dtype=F64), 0)
    assert biased.tokens.item() == 2 and abs(biased.raw_logprob.item() - law[2]) < 2e-6


# ---- probabilities, seeds


@pytest.mark.emulated
def test_probabilities(backend) -> None:
    p = torch.softmax(normal(4, 80), 1).to(backend.device)
    got = categorical_sample(p, is_logits=False, seed=[1, 2, 3, 4], num_samples=3, return_logprob=True)
    single = [inverse_cdf(p, seed=[1, 2, 3, 4], offset=j) for j in range(3)]
    assert torch.equal(got.tokens, torch.stack(single, 1))
    torch.testing.assert_close(got.logprob, p.double().gather(1, got.tokens).log(), rtol=1e-5, atol=1e-6)
    assert torch.equal(got.logprob, got.raw_logprob)
    none = categorical_sample(torch.zeros(1, 4, device=backend.device), is_logits=False, return_logprob=True)
    assert none.tokens.item() == -1 and none.logprob.item() == -math.inf


def test_seeds() -> None:
    """Ints, tensors and generators name the same streams; without a seed torch's generator decides."""
    x = normal(3, 500)
    want = categorical_sample(x, seed=[3, 1 << 63, 9], offset=2)
    seeds = torch.tensor([3, -(1 << 63), 9])
    assert torch.equal(categorical_sample(x, seed=seeds, offset=2), want)
    assert torch.equal(categorical_sample(x, seed=seeds, offset=torch.tensor([2, 2, 2])), want)
    common = categorical_sample(x, seed=7, offset=torch.tensor([0, 1, 2]))
    for r in range(3):
        assert common[r] == categorical_sample(x, seed=7, offset=r)[r]
    torch.manual_seed(0)
    first = categorical_sample(x)
    assert not torch.equal(categorical_sample(x, num_samples=20), categorical_sample(x, num_samples=20))
    torch.manual_seed(0)
    assert torch.equal(categorical_sample(x), first)


def test_nothing_of_the_size_of_the_logits_is_allocated() -> None:
    """64 rows of 50257 float32 are 12.9 MB; a call allocates less than 0.5 MB of tensors."""
    x = normal(64, 50257)
    options = {"top_k": 50, "top_p": 0.9, "min_p": 0.01, "seed": torch.arange(64), "temperature": 0.7}
    with torch.profiler.profile(profile_memory=True) as profile:
        categorical_sample(x, **options, return_logprob=True, num_samples=4)
    most = sum(max(0, event.self_cpu_memory_usage) for event in profile.key_averages())
    assert most < 500_000
    assert x.dtype == F32
