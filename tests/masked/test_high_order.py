"""Second-order sampling: orders of convergence by enumeration, and that the samplers follow those laws."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from fastdiff_ops.masked import MaskSchedule, ancestral_sample, as_model, first_hitting_sample
from fastdiff_ops.masked.high_order import (
    extrapolate,
    split_group,
    theta_weight,
    trapezoidal_weight,
)
from fastdiff_ops.masked.testing import TabularMaskedModel
from masked.laws import (
    ancestral_law,
    dirichlet_joint,
    smooth_joint,
    total_variation,
    trapezoidal_law,
    z_score,
)
from torch import Tensor

N = 200_000


def _grid(steps: int) -> list[float]:
    return np.linspace(1.0, 0.0, steps + 1).tolist()


def test_orders_on_a_smooth_joint() -> None:
    """At equal numbers of network calls: order 1 for ancestral sampling, 2 for the trapezoidal rule."""
    model = TabularMaskedModel(smooth_joint(2, 4))
    calls = [4, 8, 16, 32, 64]
    plain = [total_variation(ancestral_law(model, _grid(n)), model.joint) for n in calls]
    weight = theta_weight(0.5)
    second = [total_variation(trapezoidal_law(model, _grid(n // 2), 0.5, weight), model.joint) for n in calls]
    fit = [np.polyfit(np.log(calls), np.log(errors), 1)[0] for errors in (plain, second)]
    assert -1.1 < fit[0] < -0.9
    assert -2.2 < fit[1] < -1.8
    assert second[0] < plain[0] / 3


@pytest.mark.parametrize("theta", [0.3, 0.7])
def test_order_two_for_other_theta(theta: float) -> None:
    # theta = 1/2 has the smallest weight; others leave [0, 1] sooner, which ends the second order
    model = TabularMaskedModel(smooth_joint(2, 3, scale=0.15))
    calls = [8, 16, 32, 64]
    errors = [
        total_variation(trapezoidal_law(model, _grid(n // 2), theta, theta_weight(theta)), model.joint)
        for n in calls
    ]
    assert -2.1 < np.polyfit(np.log(calls), np.log(errors), 1)[0] < -1.9


def test_a_wrong_weight_is_of_first_order() -> None:
    """The test of the order tells: weight 1, no extrapolation, is ancestral sampling on a finer grid."""
    model = TabularMaskedModel(smooth_joint(2, 3))
    errors = [total_variation(trapezoidal_law(model, _grid(n), 0.5, 1.5), model.joint) for n in (8, 16, 32)]
    assert -1.2 < np.polyfit(np.log([8, 16, 32]), np.log(errors), 1)[0] < -0.8


@pytest.mark.parametrize("theta", [0.5, 0.3])
def test_ancestral_of_order_two_follows_its_law(theta: float) -> None:
    model = TabularMaskedModel(dirichlet_joint(2, 4), 0.3)
    law = trapezoidal_law(model, _grid(3), theta, theta_weight(theta))
    assert total_variation(law, ancestral_law(model, _grid(6))) > 0.02
    tokens, stats = ancestral_sample(
        model,
        model.masks(N),
        mask_id=2,
        num_steps=3,
        t_end=0.0,
        order=2,
        theta=theta,
        seed=1,
        return_stats=True,
    )
    assert stats.nfe == 6
    assert abs(z_score(model.counts(tokens), law)) < 4


def _pairs_law(model: TabularMaskedModel) -> Tensor:
    """Trapezoidal groups of 4 in 2 + 2: the average over all orders."""
    weight = torch.tensor([[trapezoidal_weight(2, 2) - 1.0]], dtype=torch.float64)
    law = torch.zeros_like(model.joint)
    log_mu = model.conditionals.log()
    base = 3 ** torch.arange(3, -1, -1)
    for a, b, c, d in permutations(range(4)):
        if a > b or c > d:  # the order inside of a half does not matter
            continue
        for index in np.ndindex(2, 2, 2, 2):
            middle = [2, 2, 2, 2]
            middle[a], middle[b] = index[a], index[b]
            now = int((torch.tensor(middle) * base).sum())
            first = model.conditionals[-1, a, index[a]] * model.conditionals[-1, b, index[b]]
            second = 1.0
            for place in (c, d):
                mu = extrapolate(log_mu[now, place][None, None], log_mu[-1, place][None, None], weight).exp()
                second = second * (mu / mu.sum())[0, 0, index[place]]
            law[index] += first * second / 6
    return law


def test_trapezoidal_groups_follow_their_law() -> None:
    model = TabularMaskedModel(dirichlet_joint(2, 4), 0.3)
    law = _pairs_law(model)
    tokens, stats = first_hitting_sample(
        model, model.masks(N), mask_id=2, num_steps=1, order=2, seed=2, return_stats=True
    )
    assert stats.nfe == 2
    assert abs(z_score(model.counts(tokens), law)) < 4
    plain = first_hitting_sample(model, model.masks(N), mask_id=2, tokens_per_step=2, seed=2)
    assert z_score(model.counts(plain), law) > 20


@pytest.mark.parametrize(("variant", "ratio"), [("theta_trapezoidal", 0.2), ("extrapolation", 0.7)])
def test_second_order_is_nearer_to_the_joint(variant: str, ratio: float) -> None:
    """6 tokens in groups of 3. Extrapolation from the group before helps the second one only."""
    model = TabularMaskedModel(smooth_joint(2, 6, seed=3))
    masks, options = model.masks(N // 2), {"mask_id": 2, "num_steps": 2, "seed": 4}
    plain = first_hitting_sample(model, masks, **options)
    second = first_hitting_sample(model, masks, order=2, variant=variant, **options)
    z = [z_score(model.counts(x), model.joint) for x in (plain, second)]
    assert z[1] < ratio * z[0]


@pytest.mark.parametrize("variant", ["theta_trapezoidal", "extrapolation"])
def test_groups_of_one_are_exact(variant: str) -> None:
    """Also trapezoidal pairs, 1 + 1 with weight 1: sequential sampling."""
    model = TabularMaskedModel(dirichlet_joint(2, 6))
    first = first_hitting_sample(model, model.masks(2000), mask_id=2, seed=5)
    same = first_hitting_sample(model, model.masks(2000), mask_id=2, seed=5, order=2, variant=variant)
    if variant == "theta_trapezoidal":
        assert torch.equal(first, same)
        pairs = first_hitting_sample(model, model.masks(2000), mask_id=2, seed=5, order=2, tokens_per_step=2)
        assert torch.equal(first, pairs)
    else:  # draws from extrapolated probabilities, where nothing is to be extrapolated
        assert torch.equal(first, same)


def test_splitting_groups() -> None:
    assert [split_group(m, 0.5) for m in range(6)] == [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (2, 3)]
    assert split_group(10, 0.01) == (1, 9)
    assert split_group(10, 0.99) == (9, 1)
    # many tokens in equal halves: the weight of a time step divided in the middle
    assert abs(trapezoidal_weight(5000, 5000) - theta_weight(0.5)) < 1e-3


def test_second_order_with_time_and_ragged_batches() -> None:
    """Runs with everything at once, and the ways to handle ragged batches agree."""
    table = TabularMaskedModel(dirichlet_joint(2, 6))
    model = as_model(lambda tokens, t: table(tokens) * (1.0 + t[:, None, None]), time="t")
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 3, (40, 6), generator=generator)
    schedule = MaskSchedule.from_name("loglinear")
    for variant in ("theta_trapezoidal", "extrapolation"):
        results = [
            first_hitting_sample(
                model,
                tokens,
                mask_id=2,
                schedule=schedule,
                tokens_per_step=3,
                order=2,
                variant=variant,
                ragged=ragged,
                seed=3,
            )
            for ragged in ("left", "pad")
        ]
        assert torch.equal(*results)
        assert not (results[0] == 2).any()
