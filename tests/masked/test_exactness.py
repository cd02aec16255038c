"""The laws of generated sequences are those that enumeration gives.

Chi-square with N = 2e5 sequences and a fixed seed, |z| < 4. Power: a law at total variation d from the right
one over K cells has a noncentrality of at least 4 d^2 N, so z = 4 d^2 N / sqrt(2 K): d = 0.008 is found for
K = 64 with probability 1/2, d = 0.012 nearly always. The errors that were planted to try these tests are at
0.03 or more.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastdiff_ops.masked import MaskSchedule, ancestral_sample, as_model, first_hitting_sample
from fastdiff_ops.masked.testing import TabularMaskedModel
from masked.laws import ancestral_law, dirichlet_joint, total_variation, z_score
from torch import Tensor

N = 200_000
SHAPES = [(2, 6), (3, 4)]


@pytest.mark.parametrize(("vocab", "length"), SHAPES)
@pytest.mark.parametrize("perturb", [0.0, 0.7])
def test_first_hitting_follows_the_average_over_orders(vocab: int, length: int, perturb: float) -> None:
    model = TabularMaskedModel(dirichlet_joint(vocab, length), perturb)
    tokens = first_hitting_sample(model, model.masks(N), mask_id=vocab, seed=1)
    law = model.any_order_law()
    if perturb:
        assert total_variation(law, model.joint) > 0.05  # the law does depend on the order of positions
    else:
        assert total_variation(law, model.joint) < 1e-14
    assert abs(z_score(model.counts(tokens), law)) < 4


@pytest.mark.parametrize("perturb", [0.0, 0.7])
def test_ancestral_follows_its_grid(perturb: float) -> None:
    """With 5 steps, to whose law the joint does not come close."""
    model = TabularMaskedModel(dirichlet_joint(2, 6), perturb)
    grid = np.linspace(1.0, 0.0, 6)
    law = ancestral_law(model, grid.tolist())
    assert total_variation(law, model.any_order_law()) > 0.05
    tokens = ancestral_sample(model, model.masks(N), mask_id=2, num_steps=5, t_end=0.0, seed=2)
    assert abs(z_score(model.counts(tokens), law)) < 4


def test_ancestral_tends_to_first_hitting() -> None:
    """An error of first order in the number of steps, by enumeration, for a model with inconsistent rows."""
    model = TabularMaskedModel(dirichlet_joint(2, 4), 0.7)
    law = model.any_order_law()
    steps = [4, 8, 16, 32, 64, 128]
    errors = [total_variation(ancestral_law(model, np.linspace(1, 0, n + 1).tolist()), law) for n in steps]
    slopes = np.diff(np.log(errors)) / -np.log(2.0)
    assert errors[0] > 0.05
    assert np.all(np.abs(slopes[1:] - 1.0) < 0.1)


def test_ancestral_with_many_steps_follows_the_joint() -> None:
    """With 400 steps the error left is at 0.002: below what 2e4 sequences could show."""
    model = TabularMaskedModel(dirichlet_joint(2, 6))
    tokens = ancestral_sample(model, model.masks(20_000), mask_id=2, num_steps=400, t_end=0.0, seed=3)
    assert abs(z_score(model.counts(tokens), model.joint)) < 4


class Heated:
    """A tabular model whose temperature depends on the time it is told, as 0.3 + 2 x mask probability."""

    def __init__(self, model: TabularMaskedModel, schedule: MaskSchedule, time: str) -> None:
        self.model, self.schedule, self.time = model, schedule, time

    def conditionals(self, mask_prob: float) -> Tensor:
        return (self.model.conditionals.log() / (0.3 + 2.0 * mask_prob)).softmax(-1)

    def __call__(self, tokens: Tensor, told: Tensor) -> Tensor:
        assert told.dtype == torch.float32 and told.shape == tokens.shape[:1]
        told = told.double()
        mask_prob = {
            "t": lambda: self.schedule.mask_prob(told),
            "sigma": lambda: -torch.expm1(-told),
            "mask_prob": lambda: told,
        }[self.time]()
        return self.model(tokens) / (0.3 + 2.0 * mask_prob)[:, None, None]


@pytest.mark.parametrize("time", ["t", "sigma", "mask_prob"])
def test_the_network_is_told_the_time_of_the_hit(time: str) -> None:
    """Against the limit of ancestral sampling, 2000 steps enumerated."""
    table = TabularMaskedModel(dirichlet_joint(2, 3))
    schedule = MaskSchedule.from_name("cosine2")
    heated = Heated(table, schedule, time)
    top = float(schedule.mask_prob(1.0))
    law = ancestral_law(table, np.linspace(top, 0.0, 2001).tolist(), heated.conditionals)
    assert total_variation(law, table.joint) > 0.03
    model = as_model(heated, time=time)
    tokens = first_hitting_sample(model, table.masks(N), mask_id=2, schedule=schedule, seed=4)
    assert abs(z_score(table.counts(tokens), law)) < 4


@pytest.mark.parametrize("time", ["t", "sigma", "mask_prob"])
def test_ancestral_tells_the_time_at_the_start_of_the_step(time: str) -> None:
    table = TabularMaskedModel(dirichlet_joint(2, 3))
    schedule = MaskSchedule.from_name("cosine2")
    heated = Heated(table, schedule, time)
    grid = schedule.mask_prob(np.linspace(1.0, 0.0, 7)).tolist()
    law = ancestral_law(table, grid, heated.conditionals)
    tokens = ancestral_sample(
        as_model(heated, time=time),
        table.masks(N),
        mask_id=2,
        schedule=schedule,
        num_steps=6,
        t_end=0.0,
        seed=5,
    )
    assert abs(z_score(table.counts(tokens), law)) < 4


def test_one_group_is_independent_draws() -> None:
    model = TabularMaskedModel(dirichlet_joint(2, 4))
    tokens = first_hitting_sample(model, model.masks(N), mask_id=2, num_steps=1, seed=6)
    marginals = model.conditionals[-1]
    law = torch.einsum("a,b,c,d->abcd", *marginals)
    assert abs(z_score(model.counts(tokens), law)) < 4


def test_conditioning_on_given_tokens() -> None:
    model = TabularMaskedModel(dirichlet_joint(2, 6))
    prompt = torch.tensor([2, 1, 2, 0, 2, 2])
    tokens = first_hitting_sample(model, prompt.repeat(N, 1), mask_id=2, seed=7)
    law = torch.zeros_like(model.joint)
    law[:, 1, :, 0] = model.joint[:, 1, :, 0] / model.joint[:, 1, :, 0].sum()
    counts = model.counts(tokens)
    assert counts[law == 0].sum() == 0
    assert abs(z_score(counts[law > 0], law[law > 0])) < 4


def test_blocks_leave_the_joint_of_a_consistent_model() -> None:
    model = TabularMaskedModel(dirichlet_joint(2, 6))
    tokens = first_hitting_sample(model, model.masks(N // 2), mask_id=2, block_length=4, seed=8)
    assert abs(z_score(model.counts(tokens), model.joint)) < 4


def test_correctors_leave_the_joint_of_a_consistent_model() -> None:
    model = TabularMaskedModel(dirichlet_joint(2, 4))
    options = {"mask_id": 2, "seed": 9, "corrector_frac": 0.6}
    before = first_hitting_sample(model, model.masks(N // 2), **options)
    after = first_hitting_sample(model, model.masks(N // 2), corrector_steps=2, **options)
    assert (before != after).any(1).double().mean() > 0.3  # it does redraw
    assert abs(z_score(model.counts(after), model.joint)) < 4


def test_correctors_repair_parallel_decoding() -> None:
    """What independent draws of a group miss, redrawing one at a time puts back."""
    model = TabularMaskedModel(dirichlet_joint(2, 4))
    tokens = first_hitting_sample(
        model,
        model.masks(N // 2),
        mask_id=2,
        tokens_per_step=2,
        corrector_steps=3,
        corrector_frac=0.25,
        seed=10,
    )
    plain = first_hitting_sample(model, model.masks(N // 2), mask_id=2, tokens_per_step=2, seed=10)
    errors = [total_variation(model.counts(x) / (N // 2), model.joint) for x in (plain, tokens)]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("name", ["cosine", "geometric"])
def test_the_schedule_does_not_matter_without_time(name: str) -> None:
    model = TabularMaskedModel(dirichlet_joint(2, 4), 0.7)
    given = first_hitting_sample(
        model, model.masks(500), mask_id=2, schedule=MaskSchedule.from_name(name), seed=11
    )
    assert torch.equal(given, first_hitting_sample(model, model.masks(500), mask_id=2, seed=11))
