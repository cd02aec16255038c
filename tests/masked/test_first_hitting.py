"""What first-hitting and ancestral sampling promise besides their law: invariance, limits, options."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from fastdiff_ops import ops
from fastdiff_ops.masked import MaskSchedule, ancestral_sample, as_model, first_hitting_sample
from masked.networks import MASK, VOCAB, Mixer, ragged_batch
from torch import Tensor

OPTIONS = [
    {},
    {"tokens_per_step": 3},
    {"num_steps": 4, "plan": "cosine"},
    {"num_steps": 7, "block_length": 4},
    {"block_length": 3, "tokens_per_step": 2, "corrector_steps": 2, "corrector_frac": 0.5},
    {"plan": [1, 2, 3, 20]},
    {"num_steps": 3, "order": 2},
    {"num_steps": 3, "order": 2, "variant": "extrapolation"},
    {"top_k": 3},
    {"top_p": 0.8, "temperature": 1.3},
    {"min_p": 0.1, "tokens_per_step": 10},
    {"temperature": 0.0},
    {"cfg_scale": 1.5, "tokens_per_step": 2},
    {"forbidden": [1, 2, 3], "temperature": 0.5},
]
each_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


def sample(tokens: Tensor, model=None, **options) -> Tensor:
    model = Mixer() if model is None else model
    return first_hitting_sample(model, tokens, **{"mask_id": MASK, "seed": 3, **options})


@each_option
def test_a_sequence_does_not_depend_on_its_batch(options) -> None:
    """Alone, in the batch, in a permuted batch, with ragged="pad": the same tokens."""
    tokens = ragged_batch()
    ids = [40, 3, 7, 0, 2**32 - 1, 11, 12]
    together = sample(tokens, sequence_ids=ids, **options)
    assert not (together == MASK).any()
    assert torch.equal(torch.where(tokens == MASK, together, tokens), together)
    order = torch.tensor([3, 6, 0, 5, 1, 4, 2])
    shuffled = sample(tokens[order], sequence_ids=[ids[i] for i in order], **options)
    assert torch.equal(shuffled, together[order])
    for b in (3, 6):
        assert torch.equal(sample(tokens[b : b + 1], sequence_ids=[ids[b]], **options)[0], together[b])
    assert torch.equal(sample(tokens, sequence_ids=ids, ragged="pad", **options), together)


@each_option
def test_threads_do_not_matter(options) -> None:
    tokens = ragged_batch()
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(sample(tokens, **options))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_a_seed_for_each_sequence() -> None:
    tokens = ragged_batch()
    seeds = list(range(20, 27))
    together = sample(tokens, seed=seeds)
    for b in range(7):
        assert torch.equal(sample(tokens[b : b + 1], seed=seeds[b], sequence_ids=[0])[0], together[b])
    same = sample(tokens[6:].repeat(2, 1), seed=[5, 5])  # noise shared on purpose
    assert torch.equal(same[0], same[1])


def test_seeds() -> None:
    tokens = torch.full((3, 8), MASK)
    assert torch.equal(sample(tokens), sample(tokens))
    assert not torch.equal(sample(tokens), sample(tokens, seed=4))
    state = ops.PhiloxState(3)
    assert torch.equal(sample(tokens, seed=state), sample(tokens))
    assert state.offset == 1
    assert not torch.equal(sample(tokens, seed=state), sample(tokens))
    sample(tokens, seed=state, corrector_steps=2)
    assert state.offset == 5
    torch.manual_seed(0)
    first = sample(tokens, seed=None)
    torch.manual_seed(0)
    assert torch.equal(first, sample(tokens, seed=None))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_fine_grid_is_first_hitting(temperature: float) -> None:
    """No step of the grid reveals two tokens of a sequence: bit for bit the same tokens."""
    tokens = ragged_batch(batch=5, length=8)
    options = {"mask_id": MASK, "seed": 2, "temperature": temperature, "return_stats": True}
    schedule = MaskSchedule.from_name("cosine")
    ours, stats = first_hitting_sample(Mixer(), tokens, schedule=schedule, **options)
    fine, grid = ancestral_sample(Mixer(), tokens, schedule=schedule, num_steps=20_000, t_end=0.0, **options)
    assert int(grid.reveals.max()) == 1
    assert torch.equal(ours, fine)
    for b in range(5):  # and the times agree to a step
        hit, step = (x.times[:, b][x.reveals[:, b] > 0] for x in (stats, grid))
        assert torch.all(step >= hit) and torch.all(step - hit <= 1 / 20_000)


def test_limits_of_the_filters() -> None:
    tokens = ragged_batch()
    plain, greedy = sample(tokens), sample(tokens, temperature=0.0)
    assert torch.equal(sample(tokens, top_k=1), greedy)
    assert torch.equal(sample(tokens, top_p=1.0), plain)
    assert torch.equal(sample(tokens, min_p=0.0), plain)
    assert torch.equal(sample(tokens, top_k=VOCAB), plain)
    assert torch.equal(sample(tokens, cfg_scale=0.0), plain)
    assert torch.equal(sample(tokens, cfg_scale=torch.zeros(7)), plain)
    assert torch.equal(sample(tokens, tokens_per_step=1), plain)
    assert torch.equal(sample(tokens, num_steps=1000), plain)
    assert torch.equal(sample(tokens, schedule=MaskSchedule.from_name("geometric")), plain)
    assert not torch.equal(plain, greedy)


def test_greedy_takes_the_largest_logit() -> None:
    logits = torch.randn(1, 9, VOCAB + 1, generator=torch.Generator().manual_seed(0))
    logits[..., MASK] = 100.0  # the mask itself is never drawn
    tokens = sample(torch.full((1, 9), MASK), model=lambda x: logits, temperature=0.0, num_steps=1)
    assert torch.equal(tokens, logits[..., :MASK].argmax(-1))


def test_numbers_for_each_sequence() -> None:
    """Temperature, filters and guidance per sequence, also where sequences leave the batch."""
    tokens = ragged_batch()
    per = {
        "temperature": torch.tensor([0.0, 0.2, 0.5, 1.0, 1.5, 0.0, 2.0]),
        "top_k": torch.tensor([1, 2, 3, 4, 5, 6, 7]),
        "top_p": torch.linspace(0.3, 1.0, 7),
        "cfg_scale": torch.linspace(-0.5, 2.0, 7),
    }
    bias = torch.randn(7, VOCAB, generator=torch.Generator().manual_seed(0))
    suppressed = torch.rand(7, VOCAB, generator=torch.Generator().manual_seed(1)) < 0.3
    together = sample(tokens, tokens_per_step=2, bias=bias, suppressed=suppressed, **per)
    for b in range(1, 7):
        own = {name: value[b].item() for name, value in per.items()}
        alone = sample(
            tokens[b : b + 1],
            tokens_per_step=2,
            bias=bias[b],
            suppressed=suppressed[b],
            sequence_ids=[b],
            **own,
        )
        assert torch.equal(alone[0], together[b])
        drawn = together[b][tokens[b] == MASK]
        assert not suppressed[b][drawn].any()


def test_every_draw_is_the_operators() -> None:
    """One group: each position is `gumbel_argmax` of its row, keyed by (sequence id, position)."""
    tokens, model = torch.full((3, 6), MASK), Mixer()
    options = {"temperature": 0.7, "top_k": 5, "forbidden": [4]}
    drawn = sample(tokens, model=model, num_steps=1, **options)
    logits = model(tokens)
    theta = ops.sampling_threshold(logits.flatten(0, 1), 0.7, top_k=5, forbidden=[4])
    place = torch.arange(6)
    ids = torch.cat([(b << 32) + place for b in range(3)])
    wanted = ops.gumbel_argmax(logits.flatten(0, 1), 0.7, seed=3, row_ids=ids, forbidden=[4], threshold=theta)
    assert torch.equal(drawn.flatten(), wanted)


def test_guidance_is_lladas() -> None:
    """u + (w + 1)(c - u), u with the prompt masked out, against the same written out."""
    tokens = ragged_batch()[4:]
    prompt = tokens != MASK
    model, w = Mixer(), 1.5

    def guided(x: Tensor) -> Tensor:
        u = model(torch.where(prompt, MASK, x))
        return torch.addcmul(u, torch.tensor(w + 1.0), model(x) - u)

    options = {"ragged": "pad", "temperature": 0.0}
    assert torch.equal(sample(tokens, cfg_scale=w, **options), sample(tokens, model=guided, **options))
    assert not torch.equal(sample(tokens, cfg_scale=w, **options), sample(tokens, **options))
    # other unconditional inputs: by hidden positions, by tokens
    hidden = prompt & (torch.arange(10) < 5)
    by_mask = sample(tokens, cfg_scale=w, unconditional=hidden)
    assert torch.equal(by_mask, sample(tokens, cfg_scale=w, unconditional=tokens.masked_fill(hidden, MASK)))
    assert not torch.equal(by_mask, sample(tokens, cfg_scale=w))
    # conditioned on the same, there is nothing to guide
    same = sample(tokens, cfg_scale=w, unconditional=tokens, temperature=0.0)
    assert torch.equal(same, sample(tokens, temperature=0.0))


def test_stats_and_trace() -> None:
    tokens, model = ragged_batch(), Mixer()
    result, stats = sample(tokens, model=model, tokens_per_step=2, return_stats=True)
    counts = (tokens == MASK).sum(1)
    assert model.calls == stats.nfe == math.ceil(int(counts.max()) / 2)
    assert torch.equal(stats.reveals.sum(0), counts)
    assert torch.equal(stats.trace >= 0, tokens == MASK)
    for step in range(stats.nfe):
        assert torch.equal((stats.trace == step).sum(1), stats.reveals[step])
    assert stats.times.shape == (stats.nfe, 7)
    assert torch.equal(stats.times.isnan(), stats.reveals == 0)
    assert (torch.diff(stats.times[:, 6]) < 0).all()
    assert torch.equal(stats.failed_rows, torch.zeros(7, dtype=torch.int64))
    # the trace is the order: replayed one step at a time it gives the same tokens
    state = tokens.clone()
    for step in range(stats.nfe):
        state = torch.where(stats.trace == step, result, state)
    assert torch.equal(state, result)


def test_a_trace_in_hit_order() -> None:
    tokens = torch.full((2, 9), MASK)
    _, stats = sample(tokens, return_stats=True)
    hits = ops.first_hitting_times(tokens == MASK, seed=3)
    assert torch.equal(stats.trace.argsort(1), hits.order.long())
    assert torch.allclose(stats.times.T, hits.times)


def test_callback_progress_and_early_end(capsys) -> None:
    tokens = ragged_batch()
    seen = []
    result = sample(tokens, callback=lambda step, x: seen.append((step, x.clone())), progress=True)
    assert [step for step, _ in seen] == list(range(len(seen)))
    assert torch.equal(seen[-1][1], result)
    left = [(x == MASK).sum().item() for _, x in seen]
    assert left == sorted(left, reverse=True) and left[-1] == 0
    assert f"{len(seen)}/{len(seen)}" in capsys.readouterr().err
    stopped, stats = sample(tokens, callback=lambda step, x: step == 2, return_stats=True)
    assert stats.nfe == 3 and torch.equal(stopped, seen[2][1])
    assert torch.equal(stats.trace >= 0, (tokens == MASK) & (stopped != MASK))


def test_input_is_not_changed_and_nothing_to_do() -> None:
    tokens = ragged_batch()
    before = tokens.clone()
    sample(tokens)
    assert torch.equal(tokens, before)
    model = Mixer()
    done = tokens.clamp(max=VOCAB - 1)
    result, stats = sample(done, model=model, return_stats=True)
    assert torch.equal(result, done) and stats.nfe == model.calls == 0
    assert torch.equal(sample(tokens.t().contiguous().t()), sample(tokens))


def test_frozen_masks_stay() -> None:
    tokens = torch.full((2, 6), MASK)
    frozen = torch.zeros(2, 6, dtype=torch.bool)
    frozen[0, 2] = frozen[1, 5] = True
    result = sample(tokens, frozen=frozen)
    assert torch.equal(result == MASK, frozen)


def test_correctors_redraw_other_positions_each_time() -> None:
    """Not the last ones to be revealed, and not the same in every round."""
    inner, seen = Mixer(), []

    def model(x: Tensor) -> Tensor:
        seen.append((x == MASK).flatten().nonzero().flatten().tolist())
        return inner(x)

    sample(torch.full((1, 20), MASK), model=model, corrector_steps=3, corrector_frac=0.21)
    rounds = [masked for masked in seen[20:] if len(masked) == 5]  # ceil(0.21 x 20)
    assert len(seen) == 20 + 3 * 5 and len(rounds) == 3
    assert len({tuple(masked) for masked in [seen[15], *rounds]}) == 4


def test_semi_autoregressive_blocks() -> None:
    tokens = torch.full((3, 12), MASK)
    tokens[1, :2] = 0  # its blocks begin later
    _, stats = sample(tokens, block_length=4, return_stats=True)
    assert stats.nfe == 12
    for b, first in ((0, 0), (1, 2), (2, 0)):
        trace = stats.trace[b, first:]
        blocks = trace.split(4)
        assert all(x.max() < y.min() for x, y in pairwise(blocks))
    _, stats = sample(tokens, block_length=4, num_steps=7, return_stats=True)
    assert stats.nfe == 7
    assert stats.reveals[:, 0].tolist() == [2, 1, 1, 2, 2, 2, 2]


def _ends(tokens: Tensor) -> Tensor:
    """A model that writes 1, 2, 3, ... and, in sequence 1 of those that begin with 7, EOS at position 5."""
    logits = 50.0 * torch.nn.functional.one_hot(torch.arange(tokens.shape[1]) % 5 + 1, VOCAB).float()
    logits = logits.expand(len(tokens), -1, -1).clone()
    logits[tokens[:, 0] == 7, 5] = 50.0 * torch.nn.functional.one_hot(torch.tensor(0), VOCAB).float()
    return logits


@pytest.mark.parametrize("ragged", ["left", "pad"])
def test_eos_completes_a_sequence(ragged: str) -> None:
    tokens = torch.full((3, 13), MASK)
    tokens[:, 0] = torch.tensor([6, 7, 8])
    calls = []

    def model(x: Tensor) -> Tensor:
        calls.append(len(x))
        return _ends(x)

    result, stats = sample(
        tokens, model=model, block_length=4, eos_id=0, pad_id=9, ragged=ragged, return_stats=True
    )
    assert result[1].tolist() == [7, 2, 3, 4, 5, 0, 2, 3, 4, 9, 9, 9, 9]
    assert result[0].tolist() == [6, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2, 3]
    assert (stats.trace[1, 9:] == -1).all() and (stats.trace[1, 1:9] >= 0).all()
    assert stats.reveals.sum(0).tolist() == [12, 8, 12]
    assert calls == [3] * 8 + [2 if ragged == "left" else 3] * 4
    alone = sample(
        tokens[1:2], model=_ends, block_length=4, eos_id=0, pad_id=9, sequence_ids=[1], return_stats=True
    )
    assert torch.equal(alone[0][0], result[1]) and alone[1].nfe == 8  # ends when all have


def test_complete_sequences_leave_the_batch() -> None:
    sizes = []

    def model(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return torch.zeros(*x.shape, VOCAB)

    tokens = torch.zeros(8, 10, dtype=torch.int64)
    for b, n in enumerate([1, 2, 3, 3, 4, 8, 9, 10]):
        tokens[b, :n] = MASK
    sample(tokens, model=model)
    assert sizes[0] == 8 and sizes[-1] < 3
    assert all(b <= a for a, b in pairwise(sizes))
    sizes.clear()
    sample(tokens, model=model, ragged="pad")
    assert sizes == [8] * 10


# -- adapters


def test_head_on_the_rows_that_are_drawn() -> None:
    """One row of each sequence per call instead of all L, with the same tokens."""
    tokens, whole, parts = torch.full((4, 9), MASK), Mixer(), Mixer()
    model = as_model(backbone=parts.backbone, head=parts.head)
    assert torch.equal(sample(tokens, model=model), sample(tokens, model=whole))
    assert parts.rows == 4 * 9 and whole.calls == parts.calls == 9
    for options in OPTIONS[1:]:
        assert torch.equal(sample(tokens, model=model, **options), sample(tokens, model=whole, **options))
    taking = as_model(
        lambda x, positions: whole(x).gather(1, positions[..., None].expand(-1, -1, VOCAB)),
        takes_positions=True,
    )
    assert torch.equal(sample(tokens, model=taking), sample(tokens, model=whole))


def test_dream_shifts_by_one() -> None:
    """Row l is predicted by output l - 1; row 0 by output 0."""
    inner, tokens = Mixer(), ragged_batch()
    tokens[3, 0] = MASK

    def shifted(input_ids: Tensor) -> SimpleNamespace:
        logits = inner(input_ids)
        return SimpleNamespace(logits=torch.cat([logits[:, 1:], logits[:, -1:]], 1))

    def unshifted(x: Tensor) -> Tensor:
        logits = inner(x)
        return torch.cat([logits[:, 1:2], logits[:, 1:]], 1)

    for options in ({}, {"num_steps": 1}, {"tokens_per_step": 3}):
        dream = sample(tokens, model=as_model(shifted, kind="dream"), **options)
        assert torch.equal(dream, sample(tokens, model=unshifted, **options))
    rows = as_model(shifted, kind="dream")(tokens)
    assert not rows.gathered and torch.equal(rows.values, unshifted(tokens))


def test_keywords_attention_and_further_arguments() -> None:
    inner, tokens = Mixer(), ragged_batch()
    attention = torch.ones_like(tokens)
    attention[0, :3] = 0
    seen = []

    def model(*, input_ids: Tensor, attention_mask: Tensor, scale: float) -> SimpleNamespace:
        seen.append(attention_mask)
        return SimpleNamespace(logits=scale * inner(input_ids))

    adapted = as_model(model, kind="hf", model_kwargs={"scale": 1.0})
    result = sample(tokens, model=adapted, attention_mask=attention, ragged="pad", cfg_scale=0.5)
    assert torch.equal(result, sample(tokens, cfg_scale=0.5))
    assert torch.equal(seen[0], attention.repeat(2, 1))
    result = sample(tokens, model=adapted, attention_mask=attention)
    assert torch.equal(result, sample(tokens))
    assert len(seen[-1]) < 7  # follows the sequences that are left


def test_sedd_is_told_sigma() -> None:
    """Log-scores: any constant per row drops."""
    inner, tokens = Mixer(), ragged_batch()
    schedule = MaskSchedule.from_name("loglinear", eps=1e-3)
    told = []

    def score(x: Tensor, sigma: Tensor) -> Tensor:
        told.append(sigma)
        return inner(x) - torch.log(torch.expm1(sigma))[:, None, None].round()

    adapted = as_model(score, kind="sedd")
    result, stats = sample(
        tokens, model=adapted, schedule=schedule, ragged="pad", temperature=0.0, return_stats=True
    )
    assert torch.equal(result, sample(tokens, temperature=0.0))
    for sigma, times, reveals in zip(told, stats.times, stats.reveals, strict=True):
        expected = schedule.sigma(times[reveals > 0]).float()
        assert torch.allclose(sigma[reveals > 0], expected, rtol=1e-6)


def test_mask_inside_or_behind_the_vocabulary() -> None:
    """A mask id with a logit is forbidden; one without needs nothing."""
    tokens = ragged_batch()
    inner = Mixer()

    def with_mask(x: Tensor) -> Tensor:
        logits = inner(x)
        return torch.cat([logits, torch.full_like(logits[..., :1], 30.0)], dim=-1)

    assert torch.equal(sample(tokens, model=with_mask), sample(tokens))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    tokens = ragged_batch()
    result = sample(tokens, model=Mixer(dtype=dtype), top_p=0.9)
    assert not (result == MASK).any()
    if dtype == torch.float64:
        assert torch.equal(result, sample(tokens, top_p=0.9))


# -- the ancestral sampler's own options


def test_what_is_left_at_the_end() -> None:
    tokens, model = torch.full((4, 50), MASK), Mixer()
    options = {"mask_id": MASK, "num_steps": 5, "t_end": 0.3, "seed": 1, "return_stats": True}
    kept, stats = ancestral_sample(model, tokens, final="keep", **options)
    left = kept == MASK
    assert 0.2 < left.double().mean() < 0.4 and stats.nfe == 5
    for final, temperature in (("sample", 1.0), ("argmax", 0.0)):
        result, stats = ancestral_sample(model, tokens, final=final, **options)
        assert stats.nfe == 6 and torch.equal(result[~left], kept[~left])
        ids = (torch.arange(4)[:, None] << 32) + torch.arange(50)
        wanted = ops.gumbel_argmax(model(kept).flatten(0, 1), temperature, seed=1, row_ids=ids.flatten())
        assert torch.equal(result[left], wanted.view(4, 50)[left])


def test_cache_skips_calls_that_change_nothing() -> None:
    """Expected calls for n steps and L tokens: n (1 - (1 - 1/n)^L), 16.4 of 50 here; the tokens are equal."""
    tokens, steps = torch.full((1, 20), MASK), 50
    calls, results = [], []
    for cache in (True, False):
        model = Mixer()
        results.append(
            ancestral_sample(model, tokens, mask_id=MASK, num_steps=steps, t_end=0.0, cache=cache, seed=1)
        )
        calls.append(model.calls)
    assert torch.equal(*results)
    assert calls[1] == steps
    mean = steps * (1 - (1 - 1 / steps) ** 20)
    assert abs(calls[0] - mean) < 4 * 1.5
    total = sum(_calls(seed, tokens, steps) for seed in range(200)) / 200
    assert abs(total - mean) < 4 * 1.5 / math.sqrt(200)  # 1.5: more than the standard deviation


def _calls(seed: int, tokens: Tensor, steps: int) -> int:
    model = Mixer()
    ancestral_sample(model, tokens, mask_id=MASK, num_steps=steps, t_end=0.0, seed=seed)
    return model.calls
