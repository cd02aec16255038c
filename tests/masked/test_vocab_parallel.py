"""Shards of the vocabulary draw what whole rows draw: gloo, 2 and 3 processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fastdiff_ops
import pytest
import torch
from fastdiff_ops.masked import vocab_parallel_sample
from fastdiff_ops.ops import gumbel_argmax, sample_with_scores, sampling_threshold
from masked import vocab_parallel_cases
from masked.vocab_parallel_cases import ROWS, WIDTHS, cases

RANKS = 3
FILTERS = ("top_k", "top_p", "min_p")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """By rank: what it drew in the group of all three, and in that of ranks 1 and 2."""
    folder = tmp_path_factory.mktemp("ranks")
    package = Path(fastdiff_ops.__file__).parents[1]
    path = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
    outputs = [folder / f"{rank}.pt" for rank in range(RANKS)]
    ranks = [
        subprocess.Popen(
            [sys.executable, vocab_parallel_cases.__file__, str(rank), str(RANKS), folder / "init", output],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, output in enumerate(outputs)
    ]
    try:
        for rank in ranks:
            _, errors = rank.communicate(timeout=300)
            assert rank.returncode == 0, errors
    finally:
        for rank in ranks:
            rank.kill()
    return [torch.load(output, weights_only=True) for output in outputs]


def alone(logits, temperature, top_k=None, top_p=None, min_p=None, score_temperature=1.0, **arguments):
    """The draw of one process that has whole rows."""
    processing = {
        name: value
        for name, value in arguments.items()
        if name in ("uncond_logits", "cfg_scale", "bias", "suppressed", "forbidden")
    }
    threshold = None
    if not (top_k is None and top_p is None and min_p is None):
        filters = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
        threshold = sampling_threshold(logits, temperature, **filters, **processing)
    return sample_with_scores(
        logits, temperature, threshold=threshold, score_temperature=score_temperature, **arguments
    )


NAMES = list(cases(333))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("vocab", [333, 5000])
@pytest.mark.parametrize("ranks", [2, 3])
def test_tokens_are_those_of_whole_rows(drawn, ranks, vocab, name) -> None:
    logits, arguments = cases(vocab)[name]
    expected = alone(logits, **arguments)
    assert expected.tokens[2] == -1 and (expected.tokens[[0, 1, 3, 4, 5, 6]] >= 0).all()
    for number in range(len(WIDTHS[ranks][vocab])):
        for rank in range(RANKS - ranks, RANKS):
            tokens, scores, *statistics = drawn[rank][ranks][vocab, number, name]
            assert torch.equal(tokens, expected.tokens)
            assert torch.equal(scores, expected.scores)
            if "statistics" not in name:
                assert statistics == [None] * 4
                continue
            wanted = (expected.logprob, expected.entropy, expected.logsumexp, expected.residual)
            for value, truth in zip(statistics, wanted, strict=True):
                torch.testing.assert_close(value, truth, rtol=1e-5, atol=1e-6)
            first = drawn[RANKS - 1][ranks][vocab, number, name]
            assert all(torch.equal(a, b) for a, b in zip(statistics, first[2:], strict=True))


@pytest.mark.parametrize("generator", [False, True])
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_seed_that_is_drawn_is_that_of_rank_0(drawn, ranks, generator) -> None:
    logits = torch.zeros(ROWS, 1000 * ranks)
    torch.manual_seed(0)  # as rank 0 of the group has done
    expected = gumbel_argmax(logits, seed=torch.Generator().manual_seed(0) if generator else None)
    for rank in range(RANKS - ranks, RANKS):
        assert torch.equal(drawn[rank][ranks]["drawn", generator], expected)


def test_the_cases_cut_where_it_matters() -> None:
    for ranks, plans in WIDTHS.items():
        for vocab, widths in plans.items():
            assert all(len(plan) == ranks and sum(plan) == vocab for plan in widths)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"logits": torch.zeros(3)}, "`logits`"),
        ({"logits": torch.zeros(3, 0)}, "`logits`"),
        ({"vocab_start": 0}, "go together"),
        ({"vocab_size": 10}, "go together"),
        ({"seed": [1, 2], "vocab_start": 0, "vocab_size": 10}, "each sample"),
    ],
)
def test_bad_input(arguments, text) -> None:
    with pytest.raises(ValueError, match=text):
        vocab_parallel_sample(**{"logits": torch.zeros(3, 5), "seed": 1, **arguments})


def test_without_a_group() -> None:
    with pytest.raises(RuntimeError, match="init_process_group"):
        vocab_parallel_sample(torch.zeros(3, 5), seed=1)
