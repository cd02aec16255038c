"""sampling_threshold, inverse_cdf and categorical_sample as citizens of torch, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from fastdiff_ops import ops
from fastdiff_ops.ops import categorical_sample, inverse_cdf, make_rng, sampling_threshold
from ops.categorical_cases import F64, assert_same
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

X = torch.tensor([[0.1, 2.0, -1.0, 0.5], [1.0, 0.0, 3.0, 0.2]])
library = torch.ops.fastdiff_ops


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_opcheck() -> None:
    k, p, m = torch.tensor([2, 0]), torch.tensor([0.5, 1.0], dtype=F64), torch.tensor([0.1])
    none, full = [None] * 6, (torch.tensor([1, 0]), X + 1, m, X[:1], X > 1, torch.tensor([3]))
    for given in (none, list(full)):
        for kept in (False, True):
            torch.library.opcheck(library.sampling_threshold.default, (X, m, *given, k, p, m, kept))
        prefix = torch.tensor([[0, -1], [0, 0]])
        torch.library.opcheck(library.threshold_histogram.default, (X, m, *given, X.amax(1), prefix, 0, 9))
    torch.library.opcheck(library.inverse_cdf.default, (X.abs(), make_rng(1), None))
    torch.library.opcheck(library.inverse_cdf.default, (X.abs(), make_rng([1, 2]), torch.tensor([5, 6])))


@pytest.mark.emulated
def test_launches(backend, count_launches) -> None:
    if backend.name != "emulated":
        pytest.skip("counted by the emulation")
    assert count_launches(lambda: sampling_threshold(X, top_k=2, top_p=0.5, min_p=0.1)) == 1
    assert count_launches(lambda: inverse_cdf(X.abs(), seed=1)) == 2


def step(logits: Tensor, seeds: Tensor, offsets: Tensor, temperature: Tensor, k: Tensor, p: Tensor):
    """What a serving engine does with the logits of a batch."""
    drawn = categorical_sample(
        logits * 2, seed=seeds, offset=offsets, temperature=temperature, top_k=k, top_p=p, min_p=0.01,
        return_logprob=True,
    )  # fmt: skip
    several = categorical_sample(logits, seed=seeds, offset=offsets, num_samples=3, top_p=p)
    distinct = categorical_sample(logits, seed=seeds, offset=offsets, num_samples=2, replacement=False)
    plain = categorical_sample(logits.abs(), seed=seeds, offset=offsets, is_logits=False)
    return [*drawn, several, distinct, plain, sampling_threshold(logits, top_k=k)]


def test_a_step_is_one_graph_that_never_recompiles() -> None:
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(step, fullgraph=True, backend=counter)
    for i in range(3):
        logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(i))
        arguments = (
            logits, torch.arange(4) + i, torch.full((4,), 3 * i), torch.tensor([1.0, 0.0, 0.5, 2.0]) + i,
            torch.tensor([5, 0, 1, 40]), torch.tensor([1.0, 0.9, 0.5, 0.3], dtype=F64),
        )  # fmt: skip
        assert_same(compiled(*arguments), step(*arguments))
    assert counter.frame_count == 1


FILTER_ERRORS = [
    (lambda: sampling_threshold([1.0], top_k=1), TypeError, "`logits` must be a Tensor"),
    (lambda: sampling_threshold(X.int(), top_k=1), TypeError, "`logits` must be float16"),
    (lambda: sampling_threshold(torch.tensor(1.0), top_k=1), ValueError, r"`logits` must be \[..., V\]"),
    (lambda: sampling_threshold(X.t(), top_k=1), ValueError, "dense along its last axis"),
    (lambda: sampling_threshold(X, -1.0), ValueError, "`temperature` must be in"),
    (lambda: sampling_threshold(X, math.nan), ValueError, "`temperature` must be in"),
    (lambda: sampling_threshold(X, torch.ones(3)), ValueError, "`temperature` must have"),
    (lambda: sampling_threshold(X, torch.tensor([-1.0]), top_k=1), ValueError, "`temperature` must be at"),
    (lambda: sampling_threshold(X, top_k=-1), ValueError, "`top_k` must be at least 0"),
    (lambda: sampling_threshold(X, top_k=1.0), TypeError, "`top_k` must be an int"),
    (lambda: sampling_threshold(X, top_k=True), TypeError, "`top_k` must be an int"),
    (lambda: sampling_threshold(X, top_k=torch.tensor([1], dtype=torch.int32)), TypeError, "`top_k`"),
    (lambda: sampling_threshold(X, top_k=torch.tensor([1, 2, 3])), ValueError, "`top_k` must have 1"),
    (lambda: sampling_threshold(X, top_k=torch.tensor([1, -2])), ValueError, "`top_k` must be at least 0"),
    (lambda: sampling_threshold(X, top_p=0.0), ValueError, r"`top_p` must be in \(0, 1\]"),
    (lambda: sampling_threshold(X, top_p=1.1), ValueError, r"`top_p` must be in \(0, 1\]"),
    (lambda: sampling_threshold(X, top_p=math.nan), ValueError, "`top_p` must be in"),
    (lambda: sampling_threshold(X, top_p="x"), TypeError, "`top_p` must be a float"),
    (lambda: sampling_threshold(X, top_p=torch.tensor([0.5, 0.0])), ValueError, "`top_p` must be in"),
    (lambda: sampling_threshold(X, top_p=torch.tensor([1, 1])), TypeError, "`top_p` must be torch.float32"),
    (lambda: sampling_threshold(X, min_p=1.0), ValueError, r"`min_p` must be in \[0, 1\)"),
    (lambda: sampling_threshold(X, min_p=-0.1), ValueError, r"`min_p` must be in \[0, 1\)"),
    (lambda: sampling_threshold(X, min_p=torch.tensor([1.0])), ValueError, r"`min_p` must be in \[0, 1\)"),
    (lambda: sampling_threshold(X, min_p=torch.ones(2).to("meta")), ValueError, "`min_p` must be on"),
    (lambda: sampling_threshold(X, top_k=1, rows=torch.tensor([2])), ValueError, "`rows` must be in"),
    (lambda: sampling_threshold(X, vocab_size=9, top_k=1), ValueError, "`all_reduce` must be given"),
    (lambda: sampling_threshold(X, vocab_start=6, vocab_size=9, top_k=1), ValueError, "not inside"),
]

SAMPLE_ERRORS = [
    (lambda: categorical_sample(X, num_samples=0), ValueError, "`num_samples` must be at least 1"),
    (lambda: categorical_sample(X, num_samples=1.0), TypeError, "`num_samples` must be an int"),
    (lambda: categorical_sample(X, num_samples=5, replacement=False), ValueError, r"must be in \[1, 4\]"),
    (lambda: categorical_sample(X, seed=[1, 2, 3]), ValueError, "one for each of the requests"),
    (lambda: categorical_sample(X, seed=torch.tensor([1.0, 2.0])), ValueError, "`seed` must be int64"),
    (lambda: categorical_sample(X, seed=torch.tensor([1])), ValueError, "`seed` must have an entry"),
    (lambda: categorical_sample(X, seed=1, offset=torch.tensor([1])), ValueError, "`offset` must have"),
    (lambda: categorical_sample(X, seed=1, offset=-1), ValueError, "`offset` must be in"),
    (lambda: categorical_sample(X, seed=1, offset=1 << 32), ValueError, "`offset` must be in"),
    (lambda: categorical_sample(X, seed=torch.tensor([1, 2]), offset=-1), ValueError, "`offset` must be in"),
    (lambda: categorical_sample(X, rng=make_rng(1), seed=2), ValueError, "not both"),
    (lambda: categorical_sample(X, rng=make_rng(1), offset=torch.zeros(2).long()), ValueError, "not both"),
    (lambda: categorical_sample(X, row_ids=torch.tensor([1])), ValueError, "`row_ids` must have"),
    (lambda: categorical_sample(X, top_p=2.0), ValueError, "`top_p`"),
    (lambda: categorical_sample(X, bias=X[:, :2]), ValueError, "`bias` must have shape"),
    (lambda: categorical_sample(X, forbidden=4), ValueError, "`forbidden` must be in"),
    (lambda: categorical_sample(X, stream="x"), ValueError, "`stream` must be"),
    (lambda: categorical_sample(X.abs(), is_logits=False, top_k=2), ValueError, "are drawn from as they are"),
    (lambda: categorical_sample(X.abs(), is_logits=False, temperature=2.0), ValueError, "as they are"),
    (lambda: inverse_cdf(X.long()), TypeError, "`probs` must be float16"),
    (lambda: inverse_cdf(X.t()), ValueError, "dense along its last axis"),
    (lambda: inverse_cdf(X, seed=[1]), ValueError, "one for each of the rows"),
    (lambda: inverse_cdf(X, rng=torch.tensor([1, 1 << 32])), ValueError, "offset must be in"),
    (lambda: inverse_cdf(X, row_ids=torch.tensor([1])), ValueError, "`row_ids` must have"),
]


@pytest.mark.parametrize(("call", "error", "text"), FILTER_ERRORS + SAMPLE_ERRORS)
def test_bad_input(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()


@pytest.mark.emulated
def test_raw_operators_check_what_could_corrupt_memory(backend) -> None:
    x, one = X.to(backend.device), torch.ones(1, device=backend.device)
    k = torch.tensor([1], device=backend.device)
    prefix = torch.zeros(2, 2, dtype=torch.int64, device=backend.device)
    top = x.amax(1)
    for arguments in (
        (x[0], one, *[None] * 6, k, None, None, False),
        (x, torch.ones(3, device=backend.device), *[None] * 6, k, None, None, False),
        (x, one, *[None] * 6, k.int(), None, None, False),
        (x, one, *[None] * 6, None, torch.ones(3, device=backend.device), None, False),
        (x, one, None, None, None, x[:, :2], None, None, k, None, None, False),
    ):
        with pytest.raises(RuntimeError):
            library.sampling_threshold(*arguments)
    for arguments in (
        (top[:1], prefix, 0, 9),
        (top, prefix[:1], 0, 9),
        (top, prefix, 3, 9),
        (top, prefix, 0, 3),
    ):
        with pytest.raises(RuntimeError):
            library.threshold_histogram(x, one, *[None] * 6, *arguments)
    with pytest.raises(RuntimeError):
        library.inverse_cdf(x, torch.zeros(3, dtype=torch.int64, device=backend.device), None)


@pytest.mark.emulated
def test_a_row_outside_is_not_read_on_a_device(backend) -> None:
    if backend.name == "cpu":
        pytest.skip("an error there")
    rows = torch.tensor([0, 7, -1], device=backend.device)
    theta = ops.sampling_threshold(X.to(backend.device), top_k=1, rows=rows)
    assert theta.tolist() == [2.0, -math.inf, -math.inf]
