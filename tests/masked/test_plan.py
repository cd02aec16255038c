"""How many tokens each call reveals, blocks, and the agenda they become."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fastdiff_ops.masked import group_sizes
from fastdiff_ops.masked.agenda import Phase, make_agenda
from fastdiff_ops.masked.blocks import block_counts, block_index
from fastdiff_ops.masked.plan import split_steps
from hypothesis import given, settings
from hypothesis import strategies as st


@given(n=st.integers(0, 300), steps=st.integers(1, 400), plan=st.sampled_from(["uniform", "cosine"]))
@settings(max_examples=200, deadline=None)
def test_group_sizes(n: int, steps: int, plan: str) -> None:
    sizes = group_sizes(n, num_steps=steps, plan=plan)
    assert sum(sizes) == n
    assert len(sizes) <= min(n, steps)
    assert all(size >= 1 for size in sizes)
    if plan == "uniform":
        assert len(sizes) == min(n, steps)
        assert sizes == sorted(sizes, reverse=True)
        assert not sizes or sizes[0] - sizes[-1] <= 1


def test_known_plans() -> None:
    assert group_sizes(11, num_steps=4) == [3, 3, 3, 2]  # LLaDA: base n // N, one more in the first n % N
    assert group_sizes(7) == [1] * 7
    assert group_sizes(7, tokens_per_step=3) == [3, 3, 1]
    assert group_sizes(10, plan=[4, 4, 4]) == [4, 4, 2]
    assert group_sizes(10, plan=[5, 5, 9]) == [5, 5]
    assert group_sizes(0, num_steps=3) == []
    steps = 8
    cumulative = np.cumsum(group_sizes(1000, num_steps=steps, plan="cosine"))
    exact = [1000 * (1 - math.cos(math.pi / 2 * i / steps)) for i in range(1, steps + 1)]
    assert np.abs(cumulative - exact).max() <= 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 2, "tokens_per_step": 2}, "not both"),
        ({"num_steps": 0}, "`num_steps` must be at least 1"),
        ({"tokens_per_step": 0}, "`tokens_per_step` must be at least 1"),
        ({"plan": "linear"}, "`plan` must be"),
        ({"plan": "cosine"}, "needs `num_steps`"),
        ({"plan": [5, 5], "num_steps": 2}, "leaves no room"),
        ({"plan": [5, 0]}, "`plan` must be at least 1"),
        ({"plan": [5, 4]}, "must reveal all 10 tokens"),
    ],
)
def test_errors(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group_sizes(10, **arguments)


def test_a_number_of_tokens_is_not_negative() -> None:
    with pytest.raises(ValueError, match="`n` must be at least 0, got -3"):
        group_sizes(-3)


def test_steps_of_blocks() -> None:
    assert split_steps(10, 4) == [3, 3, 2, 2]
    with pytest.raises(ValueError, match="at least the number of blocks, 4, got 3"):
        split_steps(3, 4)


def test_blocks_count_from_the_first_generated_position() -> None:
    todo = torch.tensor([[0, 0, 1, 1, 1, 0, 1, 1], [1, 0, 0, 0, 0, 0, 0, 1], [0] * 8]).bool()
    blocks = block_index(todo, 3)
    assert blocks.tolist() == [
        [-1, -1, 0, 0, 0, -1, 1, 1],
        [0, -1, -1, -1, -1, -1, -1, 2],
        [-1] * 8,
    ]
    assert block_counts(blocks) == [[3, 2, 0], [1, 0, 1], [0, 0, 0]]
    assert block_index(todo, None)[0].tolist() == [-1, -1, 0, 0, 0, -1, 0, 0]
    with pytest.raises(ValueError, match="`block_length` must be at least 1"):
        block_index(todo, 0)


def test_agenda_takes_consecutive_hits() -> None:
    order = torch.tensor([[4, 2, 0, 1, -1], [3, 0, -1, -1, -1]], dtype=torch.int32)
    prob = torch.tensor([[0.9, 0.7, 0.5, 0.3, 0.0], [0.8, 0.1, 0.0, 0.0, 0.0]], dtype=torch.float64)
    sizes = np.array([[3, 1], [0, 0], [1, 1]])
    agenda = make_agenda([Phase(order, prob, np.zeros(2, dtype=np.int64), sizes)])
    assert agenda.widths == [3, 1]
    assert agenda.positions.tolist() == [[4, 2, 0, 1], [3, -1, -1, 0]]
    assert agenda.times.tolist() == [[0.9, 0.8], [0.3, 0.1]]
    assert agenda.last_steps().tolist() == [1, 1]
    every = make_agenda([Phase(order, prob, np.zeros(2, dtype=np.int64), sizes)], keep_empty=True)
    assert every.widths == [3, 0, 1]
