"""What decoding draws: the random stream, laws, independence of the batch, ends of runs, bad input."""

from __future__ import annotations

from itertools import combinations, permutations

import pytest
import torch
from fastdiff_ops import ops
from fastdiff_ops.masked import decode
from fastdiff_ops.masked.testing import TabularMaskedModel
from fastdiff_ops.ops import PhiloxState
from masked.laws import z_score
from masked.loops import constant, random_network

V, MASK = 12, 12
SCORED = ["confidence", "margin", "entropy", "threshold", "factor", "entropy_bound"]
ALL = [*SCORED, "random"]


def ragged() -> torch.Tensor:
    """Sequences with 3, 16, 9 and 20 masks."""
    tokens = torch.full((4, 20), MASK)
    for b, n in enumerate((17, 4, 11, 0)):
        tokens[b, :n] = b
    return tokens


# ---- the random stream


@pytest.mark.parametrize("strategy", SCORED)
def test_a_token_is_the_draw_of_its_position_and_step(strategy) -> None:
    logits = 0.3 * torch.randn(9, V, generator=torch.Generator().manual_seed(2))
    masks = torch.full((3, 9), MASK)
    tokens, stats = decode(
        constant(logits),
        masks,
        mask_id=MASK,
        strategy=strategy,
        temperature=0.9,
        seed=5,
        sequence_ids=[7, 0, 2],
        return_stats=True,
    )
    assert int(stats.trace.max()) > 1
    for b, name in enumerate((7, 0, 2)):
        for place in range(9):
            row, step = torch.tensor([(name << 32) | place]), int(stats.trace[b, place])
            drawn = ops.gumbel_argmax(logits[place : place + 1], 0.9, seed=5, offset=step, row_ids=row)
            assert int(drawn) == int(tokens[b, place])


def test_noise_of_the_order_is_that_of_rows_that_draw_no_token() -> None:
    """Row (id << 32) + 2^31 + position, token 0, draw = step: independent of the tokens' own noise."""
    logits = torch.randn(8, V, generator=torch.Generator().manual_seed(2))
    score = logits.double().softmax(-1).amax(-1)
    options = {"mask_id": MASK, "alg_temp": 0.2, "seed": 5, "sequence_ids": [3, 0], "return_stats": True}
    trace = decode(constant(logits), torch.full((2, 8), MASK), **options)[1].trace
    for b, name in enumerate((3, 0)):
        rows = (name << 32) + (1 << 31) + torch.arange(8)
        for step in range(8):
            noisy = score + 0.2 * ops.gumbel_noise(rows, 1, seed=5, offset=step)[:, 0]
            assert int(noisy.masked_fill(trace[b] < step, -torch.inf).argmax()) == trace[b].tolist().index(
                step
            )


def test_a_philox_state_is_moved_on_by_what_was_drawn() -> None:
    state = PhiloxState(3)
    options = {"mask_id": MASK, "temperature": 1.0}
    first = decode(random_network(V), ragged(), seed=state, **options)
    assert state.offset == 20
    assert torch.equal(first, decode(random_network(V), ragged(), seed=3, **options))
    assert not torch.equal(first, decode(random_network(V), ragged(), seed=state, **options))


# ---- laws


def test_random_pairs_have_their_law() -> None:
    """N = 1e5, 15 dof: a law at total variation 0.015 has z above 16."""
    joint = torch.distributions.Dirichlet(torch.full((16,), 0.5)).sample
    torch.manual_seed(3)
    model = TabularMaskedModel(joint().view(2, 2, 2, 2), perturb=0.7)
    law = torch.zeros(2, 2, 2, 2, dtype=torch.float64)
    first = model(model.masks(1))[0].exp()
    for pair in combinations(range(4), 2):
        for number in range(16):
            x = torch.tensor([(number >> (3 - l)) & 1 for l in range(4)])  # noqa: E741
            context = torch.full((1, 4), 2)
            context[0, list(pair)] = x[list(pair)]
            second = model(context)[0].exp()
            p = torch.ones((), dtype=torch.float64)
            for place in range(4):
                p = p * (first if place in pair else second)[place, x[place]]
            law[tuple(x.tolist())] += p / 6
    assert abs(float(law.sum()) - 1) < 1e-12
    options = {"mask_id": 2, "strategy": "random", "temperature": 1.0, "seed": 11}
    tokens = decode(model, model.masks(100_000), num_steps=2, **options)
    assert abs(z_score(model.counts(tokens), law)) < 4
    assert z_score(model.counts(tokens), model.any_order_law()) > 20  # other laws are seen
    tokens = decode(model, model.masks(100_000), **options)
    assert abs(z_score(model.counts(tokens), model.any_order_law())) < 4


@pytest.mark.parametrize("strategy", ["confidence", "margin", "entropy"])
def test_alg_temp_orders_positions_by_plackett_luce(strategy) -> None:
    """All 24 orders of 4 positions, N = 5e4: a wrong temperature (by 10 %) has z above 10."""
    logits = torch.tensor([0.0, 1.0, 2.0, 4.0])[:, None] * torch.tensor([1.0, 0.0, 0.0])
    p = logits.double().softmax(-1)
    score = {
        "confidence": p.amax(1),
        "margin": p.amax(1) - p[:, 1],
        "entropy": -torch.special.entr(p).sum(1),
    }[strategy]
    alg_temp, n = 0.3, 50_000

    def orders(heat: float) -> torch.Tensor:
        weight, law = (score / heat).exp(), []
        for order in permutations(range(4)):
            left, probability = float(weight.sum()), 1.0
            for place in order:
                probability *= float(weight[place]) / left
                left -= float(weight[place])
            law.append(probability)
        return torch.tensor(law, dtype=torch.float64)

    stats = decode(
        constant(logits),
        torch.full((n, 4), 3),
        mask_id=3,
        strategy=strategy,
        alg_temp=alg_temp,
        seed=1,
        return_stats=True,
    )[1]
    steps = stats.trace.argsort(1)  # position of each step
    number = {order: i for i, order in enumerate(permutations(range(4)))}
    places = torch.tensor([number[tuple(row)] for row in steps.tolist()])
    counts = torch.bincount(places, minlength=24).double()
    assert abs(z_score(counts, orders(alg_temp))) < 4
    assert z_score(counts, orders(1.1 * alg_temp)) > 6


def test_origin_reveals_on_dreams_grid() -> None:
    """Each mask in step i of N with the chance of its grid; N = 2e4 positions, 4 dof."""
    steps, masks = 5, torch.full((500, 40), 3)
    options = {"mask_id": 3, "strategy": "origin", "num_steps": steps, "temperature": 1.0}
    tokens, stats = decode(constant(torch.zeros(40, 3)), masks, seed=2, return_stats=True, **options)
    assert (tokens < 3).all() and stats.nfe == steps
    grid = torch.linspace(1, 1e-3, steps + 1, dtype=torch.float64)
    kept, law = 1.0, []
    for i in range(steps):
        chance = 1.0 if i == steps - 1 else 1 - float(grid[i + 1] / grid[i])
        law.append(kept * chance)
        kept *= 1 - chance
    counts = torch.bincount(stats.trace.flatten().long(), minlength=steps).double()
    assert abs(z_score(counts, torch.tensor(law, dtype=torch.float64))) < 4


# ---- the batch


@pytest.mark.parametrize("block_length", [None, 4])
@pytest.mark.parametrize("strategy", ALL)
def test_a_sequence_does_not_depend_on_its_batch(strategy, block_length) -> None:
    model, tokens = random_network(V, scale=8.0), ragged()
    bounds = {"threshold": 0.5, "factor": 2.0, "entropy_bound": 1.5}  # a few tokens a step
    options = {
        "mask_id": MASK,
        "strategy": strategy,
        **{name: value for name, value in bounds.items() if name == strategy},
        "block_length": block_length,
        "temperature": torch.tensor([1.0, 0.5, 0.0, 0.8]),
        "top_p": torch.tensor([0.9, 1.0, 0.5, 0.8]),
        "seed": [1, 2, 3, 4],
        "num_steps": None if strategy in SCORED[3:] else 8,
    }

    def some(rows: list[int]) -> torch.Tensor:
        mine = {k: v[rows] if isinstance(v, torch.Tensor) else v for k, v in options.items()}
        return decode(model, tokens[rows], **{**mine, "seed": [rows[i] + 1 for i in range(len(rows))]})

    whole = decode(model, tokens, **options)
    assert (whole < MASK).all() and torch.equal(whole[tokens != MASK], tokens[tokens != MASK])
    assert torch.equal(some([3, 0, 2, 1]), whole[[3, 0, 2, 1]])
    assert torch.equal(torch.cat([some([b]) for b in range(4)]), whole)


def test_sequences_that_are_complete_leave_the_batch() -> None:
    seen = []

    def model(tokens: torch.Tensor) -> torch.Tensor:
        seen.append(len(tokens))
        return random_network(V)(tokens)

    stats = decode(model, ragged(), mask_id=MASK, return_stats=True)[1]
    assert stats.nfe == len(seen) == 20 and seen[0] == 4 and seen[-1] == 1
    assert stats.reveals.sum(0).tolist() == [3, 16, 9, 20]
    assert (stats.trace >= 0).sum(1).tolist() == [3, 16, 9, 20]


def test_only_the_rows_of_candidates_reach_the_head() -> None:
    from fastdiff_ops.masked import as_model

    network, rows = random_network(V), []

    def head(hidden: torch.Tensor) -> torch.Tensor:
        rows.append(hidden.shape[1])
        return hidden

    tokens = ragged()[:1]
    model = as_model(backbone=network, head=head)
    for strategy in ("confidence", "threshold"):
        rows.clear()
        assert torch.equal(
            decode(model, tokens, mask_id=MASK, strategy=strategy),
            decode(network, tokens, mask_id=MASK, strategy=strategy),
        )
        assert rows[0] == 3 and max(rows) == 3


# ---- ends of runs


@pytest.mark.parametrize("strategy", ["confidence", "threshold", "random"])
def test_an_end_of_text_ends_its_sequence_after_the_block(strategy) -> None:
    logits = torch.full((16, V), -5.0)
    logits[torch.arange(16), torch.arange(16) % 5] = 5.0  # position 4 mod 5 says 4
    tokens = torch.full((2, 16), MASK)
    tokens[1, :5] = 0  # this one's end is at 9, in its second block
    result = decode(
        constant(logits), tokens, mask_id=MASK, strategy=strategy, block_length=4, eos_id=4, pad_id=11
    )
    first, second = result.tolist()
    assert first == [0, 1, 2, 3, 4, 0, 1, 2] + [11] * 8
    assert second == [0] * 5 + [0, 1, 2, 3, 4, 0, 1, 2] + [11] * 3


def test_a_callback_sees_every_step_and_may_end_the_run() -> None:
    seen = []

    def watch(step: int, tokens: torch.Tensor) -> bool:
        seen.append((step, int((tokens == MASK).sum())))
        return step == 2

    tokens, stats = decode(
        random_network(V), ragged(), mask_id=MASK, callback=watch, return_stats=True, seed=0
    )
    assert seen == [(0, 44), (1, 40), (2, 36)] and int((tokens == MASK).sum()) == 36
    assert stats.nfe == 3 and stats.reveals.shape == (3, 4)


def test_progress(capsys) -> None:
    decode(random_network(V), ragged(), mask_id=MASK, num_steps=4, progress=True)
    assert "4/4" in capsys.readouterr().err


@pytest.mark.parametrize("strategy", SCORED)
def test_a_row_without_a_token_is_an_error(strategy) -> None:
    logits = torch.zeros(5, V)
    logits[3] = -torch.inf
    tokens = torch.full((2, 5), MASK)
    tokens[0, 3] = 0
    with pytest.raises(RuntimeError, match=r"positions \[3\] of sequence 1"):
        decode(constant(logits), tokens, mask_id=MASK, strategy=strategy)


# ---- bad input


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"strategy": "best"}, ValueError, "`strategy`"),
        ({"num_steps": 0}, ValueError, "`num_steps`"),
        ({"num_steps": 2.0}, TypeError, "`num_steps`"),
        ({"num_steps": 1, "block_length": 4}, ValueError, "`num_steps`"),
        ({"num_steps": 4, "strategy": "threshold"}, ValueError, "`num_steps`"),
        ({"block_length": 0}, ValueError, "`block_length`"),
        ({"threshold": 0.5}, ValueError, "`threshold`"),
        ({"strategy": "threshold", "threshold": -0.1}, ValueError, "`threshold`"),
        ({"strategy": "threshold", "threshold": float("nan")}, ValueError, "`threshold`"),
        ({"strategy": "threshold", "factor": 1.0}, ValueError, "`factor`"),
        ({"strategy": "factor", "factor": -1}, ValueError, "`factor`"),
        ({"strategy": "entropy_bound", "entropy_bound": "low"}, TypeError, "`entropy_bound`"),
        ({"alg_temp": -1.0}, ValueError, "`alg_temp`"),
        ({"alg_temp": 1.0, "strategy": "threshold"}, ValueError, "`alg_temp`"),
        ({"score_temperature": 0.0}, ValueError, "`score_temperature`"),
        ({"low_confidence_tokens": [1.5]}, TypeError, "`low_confidence_tokens`"),
        ({"low_confidence_tokens": [-1]}, ValueError, "`low_confidence_tokens`"),
        ({"low_confidence_tokens": [1], "strategy": "random"}, ValueError, "`low_confidence_tokens`"),
        ({"strategy": "origin"}, ValueError, "`num_steps`"),
        ({"strategy": "origin", "num_steps": 4, "block_length": 2}, ValueError, "`block_length`"),
        ({"temperature": -1.0}, ValueError, "`temperature`"),
        ({"top_p": 0.0}, ValueError, "`top_p`"),
        ({"mask_id": None}, ValueError, "`mask_id`"),
        ({"tokens": torch.zeros(2, 5)}, TypeError, "`tokens`"),
        ({"tokens": torch.full((5,), MASK)}, ValueError, "`tokens`"),
        ({"sequence_ids": [1, 1]}, ValueError, "`sequence_ids`"),
        ({"steps": 3}, TypeError, "steps"),
        ({"model": lambda tokens: tokens}, Exception, "model"),
        ({"model": lambda tokens: torch.zeros(2, 3, V)}, ValueError, "model"),
    ],
)
def test_bad_input(arguments, error, text) -> None:
    good = {"model": random_network(V), "tokens": torch.full((2, 5), MASK), "mask_id": MASK}
    with pytest.raises(error, match=text):
        decode(**{**good, **arguments})


def test_a_model_that_takes_the_time_cannot_be_decoded() -> None:
    from fastdiff_ops.masked import as_model

    model = as_model(lambda tokens, t: torch.zeros(*tokens.shape, V), time="t")
    with pytest.raises(ValueError, match="time"):
        decode(model, torch.full((2, 5), MASK), mask_id=MASK)
