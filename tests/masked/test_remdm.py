"""ReMDM: marginals are those of the forward process, for every way to mask again; sigma = 0 is ancestral."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastdiff_ops import ops
from fastdiff_ops.masked import MaskSchedule, ancestral_sample, as_model, remdm_sample
from fastdiff_ops.masked.remdm import _grid, transition
from fastdiff_ops.masked.testing import TabularMaskedModel
from fastdiff_ops.ops import PhiloxState
from masked.laws import dirichlet_joint, total_variation, z_score
from masked.loops import constant
from masked.networks import MASK, Mixer, ragged_batch

LOOP = (0.55, 0.05, 0.9)
WAYS = {
    "cap": {"rule": "cap", "eta": 0.1},
    "rescale": {"rule": "rescale", "eta": 0.3},
    "all that may": {"rule": "rescale", "eta": 1.0},
    "confidence": {"rule": "rescale", "eta": 1.0, "by_confidence": True},
    "loop": {"rule": "cap", "eta": 0.1, "loop": LOOP},
}


@pytest.mark.parametrize("name", ["loglinear", "cosine", "polynomial", "geometric"])
@pytest.mark.parametrize("eta", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("rule", ["cap", "rescale"])
def test_a_step_keeps_the_marginal(rule, eta, name) -> None:
    """P(masked at s) = (1 - m_t) sigma + m_t (1 - reveal) = m_s, and both are probabilities."""
    grid, _ = _grid(MaskSchedule.from_name(name), 37, None)
    sigma, reveal = transition(grid, eta, rule)
    now, after = grid[:-1], grid[1:]
    assert ((sigma >= 0) & (sigma <= 1) & (reveal >= 0) & (reveal <= 1)).all()
    masked = (1 - now) * sigma + now * (1 - reveal)
    np.testing.assert_allclose(masked, after, atol=1e-14)
    if eta:
        assert sigma[5] > 0
    largest = np.minimum(1, after / np.maximum(1 - now, 1e-300))
    wanted = np.minimum(eta, largest) if rule == "cap" else eta * largest
    np.testing.assert_allclose(sigma[now < 1], wanted[now < 1], atol=1e-15)


def test_the_loop_holds_the_mask_probability() -> None:
    grid, looping = _grid(MaskSchedule.from_name("loglinear"), 100, LOOP)
    t = np.linspace(1, 0, 101)
    held = (t <= 0.55 + 1e-9) & (t >= 0.05 - 1e-9)
    np.testing.assert_allclose(grid[held], 0.1, atol=1e-12)
    np.testing.assert_allclose(grid[t > 0.56], 1 - 0.9 * (1 - t[t > 0.56]) / 0.45)  # as the paper's code
    np.testing.assert_allclose(grid[t < 0.04], 0.1 * t[t < 0.04] / 0.05, atol=1e-15)
    assert looping.sum() == 50 and grid[-1] == 0


@pytest.mark.parametrize("way", WAYS)
def test_marginals_of_runs(way) -> None:
    """With a model that knows x0, P(masked) after step i is m_i: N = 4e4 positions, 5 standard errors."""
    steps, batch, length = 20, 100, 400
    options = WAYS[way]
    truth = torch.arange(length) % 3
    logits = 3.0 * torch.nn.functional.one_hot(truth, 3).double()
    grid, _ = _grid(MaskSchedule.from_name("loglinear"), steps, options.get("loop"))
    seen = []

    def watch(_step: int, tokens: torch.Tensor) -> None:
        seen.append(float((tokens == 3).double().mean()))

    tokens, stats = remdm_sample(
        constant(logits),
        torch.full((batch, length), 3),
        mask_id=3,
        num_steps=steps,
        seed=4,
        callback=watch,
        return_stats=True,
        **options,
    )
    m = grid[1:]
    error = 5 * np.sqrt(m * (1 - m) / (batch * length)) + 1e-12
    assert (np.abs(np.array(seen) - m) < error).all()
    assert (tokens < 3).all()
    again = int(stats.reveals.sum()) - batch * length
    assert again > 100, "nothing was masked again"
    assert (stats.trace >= 0).all() and stats.times.shape == (steps, batch)


def test_positions_change_independently() -> None:
    """Pairs of neighbours, masked or not after 10 of 20 steps: 3 dof, N = 2e4 pairs."""
    seen = []

    def watch(step: int, tokens: torch.Tensor) -> bool:
        seen.append(tokens.clone())
        return step == 9

    masks = torch.full((100, 400), 3)
    options = {"mask_id": 3, "num_steps": 20, "rule": "rescale", "eta": 0.5, "seed": 6, "callback": watch}
    remdm_sample(constant(torch.zeros(400, 3)), masks, **options)
    masked = (seen[-1] == 3).long().view(100, 200, 2)
    cells = torch.bincount((2 * masked[..., 0] + masked[..., 1]).flatten(), minlength=4)
    assert abs(z_score(cells, torch.full((4,), 0.25, dtype=torch.float64))) < 4


def test_without_remasking_it_is_ancestral_sampling() -> None:
    """Law of both on an inconsistent model, N = 4e4; eta = 1 is seen to differ."""
    model = TabularMaskedModel(dirichlet_joint(2, 4, seed=2), perturb=0.7)

    def law(sample, **options) -> torch.Tensor:
        tokens = sample(model, model.masks(40_000), mask_id=2, num_steps=4, seed=8, **options)
        return model.counts(tokens)

    ancestral = law(ancestral_sample, t_end=0.0)
    plain, remasked = law(remdm_sample, eta=0.0), law(remdm_sample, eta=1.0, rule="rescale")
    # the difference of two samples has twice the variance of one
    both = (plain + ancestral) / 2
    score = float(((plain - ancestral) ** 2 / (2 * both)).sum() - 15) / 30**0.5
    assert abs(score) < 4
    assert total_variation(remasked / 4e4, ancestral / 4e4) > 0.01


def test_unsure_tokens_are_masked_more_often_by_confidence() -> None:
    """Rates per token that may be masked: softmax(-p), so exp(1 - 1/3) = 1.95 to 1; 5e3 events a side."""
    logits = torch.zeros(40, 3)
    logits[20:, 0] = 12.0  # sure
    before = torch.full((300, 40), 3)
    shown, lost = torch.zeros(40), torch.zeros(40)

    def watch(step: int, tokens: torch.Tensor) -> None:
        nonlocal before, shown, lost
        if step >= 20:  # before, there are few tokens that share
            shown = shown + (before < 3).sum(0)
            lost = lost + ((before < 3) & (tokens == 3)).sum(0)
        before = tokens.clone()

    options = {"num_steps": 60, "rule": "rescale", "eta": 1.0, "by_confidence": True}
    remdm_sample(constant(logits), before, mask_id=3, seed=3, callback=watch, **options)
    unsure, sure = (float(lost[part].sum() / shown[part].sum()) for part in (slice(20), slice(20, 40)))
    assert 1.8 < unsure / sure < 2.1


def test_prompts_stay_and_sequences_do_not_depend_on_their_batch() -> None:
    model = constant(torch.randn(12, 3, generator=torch.Generator().manual_seed(0)))
    tokens = torch.full((3, 12), 3)
    tokens[0, :4], tokens[1, 5:] = 1, 2
    options = {"mask_id": 3, "num_steps": 15, "eta": 0.5, "temperature": 0.8}
    whole = remdm_sample(model, tokens, seed=[5, 6, 7], **options)
    assert torch.equal(whole[tokens != 3], tokens[tokens != 3])
    parts = [remdm_sample(model, tokens[b : b + 1], seed=[5 + b], **options) for b in range(3)]
    assert torch.equal(torch.cat(parts), whole)
    state = PhiloxState(1)
    remdm_sample(model, tokens, seed=state, **options)
    assert state.offset == 15


def test_a_position_that_is_drawn_again_is_drawn_with_new_noise() -> None:
    """The token is that of the step which revealed it last."""
    logits = 0.3 * torch.randn(20, 7, generator=torch.Generator().manual_seed(2))
    options = {"mask_id": 7, "num_steps": 12, "eta": 1.0, "rule": "rescale", "return_stats": True}
    tokens, stats = remdm_sample(constant(logits), torch.full((2, 20), 7), seed=5, **options)
    assert int(stats.reveals.sum()) > 50
    for b in range(2):
        for place in range(20):
            row, step = torch.tensor([(b << 32) | place]), int(stats.trace[b, place])
            drawn = ops.gumbel_argmax(logits[place : place + 1], seed=5, offset=step, row_ids=row)
            assert int(drawn) == int(tokens[b, place])


def test_what_a_model_is_told() -> None:
    told = []

    def model(tokens: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        told.append(t)
        return torch.zeros(*tokens.shape, 3)

    stats = remdm_sample(
        as_model(model, time="t"),
        torch.full((2, 400), 3),
        mask_id=3,
        num_steps=5,
        schedule=MaskSchedule.from_name("cosine"),
        seed=0,
        return_stats=True,
    )[1]
    torch.testing.assert_close(torch.stack(told)[:, 0], torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2]))
    torch.testing.assert_close(stats.times[:, 1].float(), torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2]))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"num_steps": 0}, ValueError, "`num_steps`"),
        ({"rule": "conf"}, ValueError, "`rule`"),
        ({"eta": 1.5}, ValueError, "`eta`"),
        ({"eta": "small"}, TypeError, "`eta`"),
        ({"loop": (0.05, 0.55, 0.9)}, ValueError, "`loop`"),
        ({"loop": (0.55, 0.05, 1.0)}, ValueError, "`loop`"),
        ({"loop": 0.5}, TypeError, "`loop`"),
        ({"eos_id": 1}, ValueError, "`eos_id`"),
        ({"mask_id": -1}, ValueError, "`mask_id`"),
        ({"num_step": 1}, TypeError, "num_step"),
    ],
)
def test_bad_input(arguments, error, text) -> None:
    good = {"tokens": torch.full((1, 4), 3), "mask_id": 3, "num_steps": 4}
    with pytest.raises(error, match=text):
        remdm_sample(constant(torch.zeros(4, 3)), **{**good, **arguments})


def test_probabilities_are_computed_only_where_they_are_used(monkeypatch) -> None:
    calls = []
    scored = ops.sample_with_scores
    monkeypatch.setattr(ops, "sample_with_scores", lambda *a, **k: calls.append(1) or scored(*a, **k))
    tokens = ragged_batch()
    remdm_sample(Mixer(), tokens, mask_id=MASK, num_steps=5, seed=0)
    assert not calls
    remdm_sample(Mixer(), tokens, mask_id=MASK, num_steps=5, seed=0, by_confidence=True)
    assert calls
