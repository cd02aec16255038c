"""Likelihood bounds against exact enumeration on tabular models."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from fastdiff_ops.masked import MaskSchedule, as_model, log_likelihood
from fastdiff_ops.masked.testing import TabularMaskedModel
from fastdiff_ops.ops import PhiloxState
from masked.laws import dirichlet_joint

L, V = 4, 2
X = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]])


def tabular(perturb: float = 0.7) -> TabularMaskedModel:
    return TabularMaskedModel(dirichlet_joint(V, L, seed=1), perturb=perturb)


def term(model: TabularMaskedModel, x: torch.Tensor, masked: tuple[int, ...]) -> float:
    """Sum over the masked positions of log p(x_l | the others)."""
    context = x.clone()
    context[list(masked)] = V
    log_p = model(context[None])[0]
    return sum(float(log_p[place, x[place]]) for place in masked)


def any_order(model: TabularMaskedModel, x: torch.Tensor) -> float:
    """The bound as it is defined: over all orders."""
    total = 0.0
    for order in permutations(range(L)):
        context = torch.full((L,), V)
        for place in order:
            total += float(model(context[None])[0, place, x[place]])
            context[place] = x[place]
    return total / math.factorial(L)


def test_the_forms_of_the_bound_are_one_number() -> None:
    """Mask counts averaged over all subsets, any order, and the time integral for every schedule."""
    for perturb in (0.0, 0.7):
        model = tabular(perturb)
        for x in X:
            expected = any_order(model, x)
            if perturb == 0:
                assert abs(expected - float(model.joint[tuple(x.tolist())].log())) < 1e-12
            subsets = [s for n in range(1, L + 1) for s in combinations(range(L), n)]
            by_count = sum(term(model, x, s) / len(s) / math.comb(L, len(s)) for s in subsets)
            assert abs(by_count - expected) < 1e-12
            nodes, weights = np.polynomial.legendre.leggauss(60)
            t = (nodes + 1) / 2
            for name in ("loglinear", "cosine", "polynomial"):
                schedule = MaskSchedule.from_name(name)
                m = schedule.mask_prob(t)
                step = 1e-6
                slope = (schedule.mask_prob(t + step) - schedule.mask_prob(t - step)) / (2 * step)
                integral = sum(
                    term(model, x, s)
                    * (weights / 2 * slope * m ** (len(s) - 1) * (1 - m) ** (L - len(s))).sum()
                    for s in subsets
                )
                assert abs(integral - expected) < 1e-7


@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize("estimator", ["mask_count", "time", "any_order"])
def test_estimates_are_unbiased(estimator, stratified) -> None:
    """The mean of many runs is the bound, to 4 standard errors of at most 0.04."""
    model = tabular()
    samples, copies = (60, 300) if estimator != "any_order" else (10, 300)
    tokens = X.repeat(copies, 1)
    estimates = log_likelihood(
        model,
        tokens,
        mask_id=V,
        num_samples=samples,
        estimator=estimator,
        stratified=stratified,
        seed=3,
    ).view(copies, len(X))
    assert estimates.dtype == torch.float64
    expected = torch.tensor([any_order(model, x) for x in X], dtype=torch.float64)
    error = estimates.std(0) / copies**0.5
    assert (error < 0.04).all()
    assert ((estimates.mean(0) - expected).abs() < 4 * error).all()


def test_mask_counts_are_those_of_the_stratification() -> None:
    """With as many samples as tokens every number of masks occurs once; of any, each is as likely."""
    counts = []

    def model(tokens: torch.Tensor) -> torch.Tensor:
        counts.append((tokens == V).sum(1))
        return torch.zeros(*tokens.shape, V)

    tokens = torch.zeros(5, 8, dtype=torch.int64)
    log_likelihood(model, tokens, mask_id=V, num_samples=8, seed=1)
    assert torch.equal(torch.stack(counts).sort(0).values, torch.arange(1, 9)[:, None].expand(8, 5))
    counts.clear()
    log_likelihood(model, tokens.repeat(200, 1), mask_id=V, num_samples=8, stratified=False, seed=1)
    occurs = torch.bincount(torch.stack(counts).flatten(), minlength=9)[1:].double()
    assert (((occurs - 1000) ** 2 / 1000).sum() - 7) / 14**0.5 < 4


def test_a_consistent_model_in_one_order() -> None:
    model = tabular(perturb=0.0)
    bound = log_likelihood(model, X, mask_id=V, num_samples=1, estimator="any_order", seed=0)
    exact = torch.stack([model.joint[tuple(x.tolist())].log() for x in X])
    torch.testing.assert_close(bound, exact, rtol=1e-12, atol=1e-12)


def test_a_prompt_is_given() -> None:
    """log p(rest | prompt), and masks may stand in it."""
    model = tabular(perturb=0.0)
    prompt = torch.tensor([[True, False, True, False]]).expand(3, L)
    bound = log_likelihood(
        model, X, mask_id=V, prompt_mask=prompt, num_samples=1, estimator="any_order", seed=0
    )
    joint = model.joint
    for b, x in enumerate(X):
        exact = joint[tuple(x.tolist())] / joint[x[0], :, x[2], :].sum()
        assert abs(float(bound[b] - exact.log())) < 1e-12
    hole = X.clone()
    hole[:, 0] = V
    assert torch.isfinite(log_likelihood(model, hole, mask_id=V, prompt_mask=prompt, seed=0)).all()
    nothing = torch.ones_like(X, dtype=torch.bool)
    assert (log_likelihood(model, X, mask_id=V, prompt_mask=nothing, seed=0) == 0).all()


def test_a_sequence_does_not_depend_on_its_batch() -> None:
    model = tabular()
    whole = log_likelihood(model, X, mask_id=V, num_samples=6, seed=5)
    for b in range(3):
        alone = log_likelihood(model, X[b : b + 1], mask_id=V, num_samples=6, seed=5, sequence_ids=[b])
        torch.testing.assert_close(alone, whole[b : b + 1], rtol=1e-14, atol=0)
    state = PhiloxState(5)
    assert torch.equal(log_likelihood(model, X, mask_id=V, num_samples=6, seed=state), whole)
    assert state.offset == 6


@pytest.mark.parametrize("estimator", ["mask_count", "time", "any_order"])
def test_a_model_in_two_parts_and_the_mask_inside_of_the_vocabulary(estimator) -> None:
    """Only rows of masks reach the head; logits of the mask itself count for nothing."""
    table, rows = tabular(), []

    def backbone(tokens: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(table(tokens), (0, 1), value=3.0)

    def head(hidden: torch.Tensor) -> torch.Tensor:
        rows.append(hidden.shape[1])
        return hidden

    options = {"mask_id": V, "estimator": estimator, "num_samples": 4, "seed": 2}
    parts = log_likelihood(as_model(backbone=backbone, head=head), X[:1], **options)
    torch.testing.assert_close(parts, log_likelihood(table, X[:1], **options), rtol=1e-12, atol=0)
    assert min(rows) < L


@pytest.mark.parametrize("estimator", ["mask_count", "time", "any_order"])
def test_times_that_a_model_is_told(estimator) -> None:
    """Given n masks of L, m is Beta(n, L - n + 1); for "time" each is masked with probability m."""
    told, counts = [], []

    def model(tokens: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        told.append(m)
        counts.append((tokens == V).sum(1))
        return torch.zeros(*tokens.shape, V)

    network, schedule = as_model(model, time="mask_prob"), MaskSchedule.from_name("cosine")
    options = {"mask_id": V, "num_samples": 4, "seed": 1, "schedule": schedule}
    log_likelihood(network, X.repeat(500, 1), estimator=estimator, **options)
    m, n = torch.cat(told).double(), torch.cat(counts)
    assert (m > 0).all()
    if estimator == "time":
        excess = float((n - L * m).sum() / (L * m * (1 - m)).sum().sqrt())
        assert abs(excess) < 4
        return
    for masks in range(1, L + 1):
        mine = m[n == masks]
        mean = masks / (L + 1)
        spread = (mean * (1 - mean) / (L + 2)) ** 0.5
        assert abs(float(mine.mean()) - mean) < 4 * spread / len(mine) ** 0.5


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"tokens": X.float()}, TypeError, "`tokens`"),
        ({"tokens": X[0]}, ValueError, "`tokens`"),
        ({"tokens": torch.full((1, 4), V)}, ValueError, "`mask_id`"),
        ({"mask_id": -1}, ValueError, "`mask_id`"),
        ({"num_samples": 0}, ValueError, "`num_samples`"),
        ({"estimator": "elbo"}, ValueError, "`estimator`"),
        ({"prompt_mask": torch.zeros(3, 4)}, TypeError, "`prompt_mask`"),
        ({"prompt_mask": torch.zeros(4, dtype=torch.bool)}, ValueError, "`prompt_mask`"),
        (
            {"tokens": X + 5, "mask_id": 9, "model": lambda x: torch.zeros(*x.shape, V)},
            ValueError,
            "`tokens`",
        ),
        ({"sequence_ids": [1, 1, 2]}, ValueError, "`sequence_ids`"),
        ({"model": as_model(lambda x, t: x, time="t")}, ValueError, "`schedule`"),
    ],
)
def test_bad_input(arguments, error, text) -> None:
    with pytest.raises(error, match=text):
        log_likelihood(**{"model": tabular(), "tokens": X, "mask_id": V, **arguments})
