"""Bad input: what is refused, with which error, and that the text names the argument."""

from __future__ import annotations

import pytest
import torch
from fastdiff_ops import ops
from fastdiff_ops.ops import make_rng

LOGITS = torch.zeros(3, 10)
NAN = float("nan")
INTS = torch.zeros(3, dtype=torch.int64)
POSITIONS = torch.zeros(3, dtype=torch.int32)


def draw(logits=LOGITS, temperature=1.0, **options):
    return ops.gumbel_argmax(logits, temperature, **{"seed": 0, **options})


def score(**options):
    return ops.sample_with_scores(LOGITS, seed=0, **options)


def step(tokens=None, logits=LOGITS, positions=POSITIONS, temperature=1.0, **options):
    tokens = torch.full((3, 4), 9) if tokens is None else tokens
    return ops.first_hitting_step_(tokens, logits, positions, temperature, **{"seed": 0, **options})


CASES = {
    "not a tensor": (lambda: draw([[1.0]]), TypeError, "`logits`"),
    "integer logits": (lambda: draw(LOGITS.long()), TypeError, "`logits`"),
    "0-d": (lambda: draw(torch.tensor(1.0)), ValueError, "`logits`"),
    "no columns": (lambda: draw(torch.zeros(3, 0)), ValueError, "`logits`"),
    "columns with a stride": (lambda: draw(torch.zeros(10, 3).t()), ValueError, "`logits`.*dense.*stride 3"),
    "vocabulary too large": (lambda: draw(torch.zeros(1, 1).expand(1, 2**28 + 1)), ValueError, "`logits`"),
    "too many columns": (
        lambda: draw(torch.zeros(1, 2**28 + 1, device="meta")), ValueError, r"`logits`.*2\^28",
    ),
    "negative temperature": (lambda: draw(temperature=-0.1), ValueError, "`temperature`.*-0.1"),
    "NaN temperature": (lambda: draw(temperature=NAN), ValueError, "`temperature`.*nan"),
    "infinite temperature": (lambda: draw(temperature=float("inf")), ValueError, "`temperature`"),
    "temperature below float32": (lambda: draw(temperature=1e-45), ValueError, "`temperature`.*126"),
    "temperature above float32": (lambda: draw(temperature=1e39), ValueError, "`temperature`"),
    "temperature as text": (lambda: draw(temperature="1"), TypeError, "`temperature`"),
    "temperature as bool": (lambda: draw(temperature=True), TypeError, "`temperature`"),
    "integer temperatures": (lambda: draw(temperature=INTS), TypeError, "`temperature`"),
    "too few temperatures": (lambda: draw(temperature=torch.ones(2)), ValueError, "`temperature`.*3 rows"),
    "negative number in a tensor": (lambda: draw(temperature=-torch.ones(3)), ValueError, "`temperature`"),
    "no score temperature": (lambda: score(score_temperature=0), ValueError, "`score_temperature`"),
    "NaN score temperature": (lambda: score(score_temperature=NAN), ValueError, "`score_temperature`"),
    "offset too large": (lambda: draw(offset=2**32), ValueError, "`offset`"),
    "offset negative": (lambda: draw(offset=-1), ValueError, "`offset`"),
    "offset in rng": (lambda: draw(seed=None, rng=torch.tensor([1, 2**32])), ValueError, "offset"),
    "offset in rng negative": (lambda: draw(seed=None, rng=torch.tensor([1, -1])), ValueError, "offset"),
    "both rng and seed": (lambda: draw(rng=make_rng(1)), ValueError, "`rng`.*`seed`"),
    "both rng and offset": (lambda: draw(seed=None, offset=1, rng=make_rng(1)), ValueError, "`rng`"),
    "float rng": (lambda: draw(seed=None, rng=torch.zeros(2)), TypeError, "`rng`"),
    "rng for other rows": (lambda: draw(seed=None, rng=make_rng([1, 2])), ValueError, r"`rng`.*\[3, 3\]"),
    "seeds for other rows": (lambda: draw(seed=[1, 2]), ValueError, "`seed`.*3"),
    "rng as a list": (lambda: draw(seed=None, rng=[1, 2]), TypeError, "`rng`"),
    "int32 row ids": (lambda: draw(row_ids=INTS.int()), ValueError, "`row_ids`.*int64"),
    "too few row ids": (lambda: draw(row_ids=INTS[:2]), ValueError, "`row_ids`.*3"),
    "row ids as a list": (lambda: draw(row_ids=[0, 1, 2]), TypeError, "`row_ids`"),
    "float rows": (lambda: draw(rows=torch.zeros(2)), ValueError, "`rows`"),
    "row out of range": (lambda: draw(rows=torch.tensor([3])), ValueError, "`rows`"),
    "row negative": (lambda: draw(rows=torch.tensor([-1])), ValueError, "`rows`"),
    "shard without a whole": (lambda: draw(vocab_start=5), ValueError, "`vocab_size`"),
    "shard outside": (lambda: draw(vocab_start=5, vocab_size=14), ValueError, "`vocab_size`.*14"),
    "shard before": (lambda: draw(vocab_start=-1, vocab_size=14), ValueError, "columns"),
    "whole too large": (lambda: draw(vocab_size=2**28 + 1), ValueError, "`vocab_size`"),
    "float vocab_size": (lambda: draw(vocab_size=10.0), TypeError, "`vocab_size`"),
    "forbidden outside": (lambda: draw(forbidden=10), ValueError, "`forbidden`.*10"),
    "forbidden negative": (lambda: draw(forbidden=[1, -1]), ValueError, "`forbidden`"),
    "forbidden float": (lambda: draw(forbidden=[1.5]), TypeError, "`forbidden`"),
    "forbidden text": (lambda: draw(forbidden="1"), TypeError, "`forbidden`"),
    "forbidden int32": (lambda: draw(forbidden=INTS.int()), TypeError, "`forbidden`"),
    "guidance without scale": (lambda: draw(uncond_logits=LOGITS), ValueError, "`cfg_scale`"),
    "scale without logits": (lambda: draw(cfg_scale=1.0), ValueError, "`uncond_logits`"),
    "other unconditional shape": (
        lambda: draw(uncond_logits=LOGITS[:2], cfg_scale=1.0), ValueError, "`uncond_logits`",
    ),
    "other unconditional type": (
        lambda: draw(uncond_logits=LOGITS.double(), cfg_scale=1.0), TypeError, "`uncond_logits`",
    ),
    "NaN scale": (lambda: draw(uncond_logits=LOGITS, cfg_scale=NAN), ValueError, "`cfg_scale`"),
    "double bias": (lambda: draw(bias=LOGITS.double()), TypeError, "`bias`"),
    "bias of other rows": (lambda: draw(bias=LOGITS[:2]), ValueError, "`bias`"),
    "bias of another width": (lambda: draw(bias=LOGITS[:, :9]), ValueError, "`bias`"),
    "0-d bias": (lambda: draw(bias=torch.tensor(1.0)), ValueError, "`bias`"),
    "float mask": (lambda: draw(suppressed=LOGITS), TypeError, "`suppressed`"),
    "double threshold": (lambda: draw(threshold=LOGITS[:, 0].double()), TypeError, "`threshold`"),
    "float threshold of doubles": (
        lambda: draw(LOGITS.double(), threshold=LOGITS[:, 0]), TypeError, "`threshold`",
    ),
    "NaN threshold": (lambda: draw(threshold=NAN), ValueError, "`threshold`"),
    "unknown stream": (lambda: draw(stream="blocks"), ValueError, "`stream`.*blocks"),
    "unknown method": (lambda: draw(method="fast"), ValueError, "`method`.*fast"),
    "NaN logits": (lambda: draw(LOGITS * NAN, check_finite=True), ValueError, "`logits`.*NaN"),
    "other device": (lambda: draw(bias=LOGITS.to("meta")), ValueError, "`bias`.*device"),
    "rng elsewhere": (lambda: draw(seed=None, rng=make_rng(1).to("meta")), ValueError, "`rng`.*device"),
    "k = 0": (lambda: ops.gumbel_topk(LOGITS, 0, seed=0), ValueError, "`k`"),
    "k above V": (lambda: ops.gumbel_topk(LOGITS, 11, seed=0), ValueError, "`k`.*10"),
    "k above 1024": (lambda: ops.gumbel_topk(torch.zeros(1, 2000), 1025, seed=0), ValueError, "`k`.*1024"),
    "k float": (lambda: ops.gumbel_topk(LOGITS, 2.0, seed=0), TypeError, "`k`"),
    "noise of no rows": (lambda: ops.gumbel_noise(None, 10), TypeError, "`row_ids`"),
    "noise of no tokens": (lambda: ops.gumbel_noise(INTS, 0), ValueError, "`vocab_size`"),
    "float tokens": (lambda: step(torch.zeros(3, 4)), TypeError, "`tokens`"),
    "1-d tokens": (lambda: step(INTS), ValueError, "`tokens`"),
    "tokens with a stride": (lambda: step(torch.zeros(4, 3).long().t()), ValueError, "`tokens`.*dense"),
    "int64 positions": (lambda: step(positions=INTS), TypeError, "`positions`"),
    "positions of other sequences": (lambda: step(positions=POSITIONS[:2]), ValueError, "`positions`"),
    "position above L": (lambda: step(positions=POSITIONS + 4), ValueError, "positions"),
    "rows that fit nothing": (lambda: step(logits=torch.zeros(3, 3, 10)), ValueError, "`logits`"),
    "ambiguous rows": (
        lambda: step(logits=torch.zeros(3, 4, 10), positions=torch.zeros(3, 4).int()),
        ValueError, "`gathered`",
    ),
    "gathered, but all": (
        lambda: step(logits=torch.zeros(3, 4, 10), gathered=True), ValueError, "`logits`.*1 rows",
    ),
    "all, but one row": (lambda: step(gathered=False), ValueError, "`logits`"),
    "sequence ids": (lambda: step(sequence_ids=INTS[:2]), ValueError, "`sequence_ids`.*3 sequences"),
    "seeds for other sequences": (lambda: step(seed=[1]), ValueError, "`seed`.*3"),
    "tokens elsewhere": (lambda: step(torch.zeros(3, 4, device="meta").long()), ValueError, "`tokens`"),
    "tokens of a copy": (
        lambda: ops.first_hitting_step([[1]], LOGITS, POSITIONS), TypeError, "`tokens`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_refused(name) -> None:
    call, error, text = CASES[name]
    with pytest.raises(error, match=text):
        call()


def test_unconditional_logits_in_another_order_of_memory() -> None:
    logits, uncond = torch.zeros(2, 6, 10)[:, 2:], torch.zeros(2, 4, 10)
    with pytest.raises(ValueError, match=r"`uncond_logits`.*strides"):
        draw(logits, uncond_logits=uncond, cfg_scale=1.0)


def test_numbers_outside_of_the_vocabulary_in_a_tensor_mean_nothing() -> None:
    ids = torch.tensor([-5, 10, 2**40, -(2**62)])
    assert torch.equal(draw(forbidden=ids), draw())


@pytest.mark.emulated
def test_raw_operators_check_what_could_corrupt_memory(backend) -> None:
    """A call without the wrapper raises RuntimeError, and nothing is written."""
    device = backend.device
    argmax, topk = torch.ops.fastdiff_ops.gumbel_argmax, torch.ops.fastdiff_ops.gumbel_topk
    hit = torch.ops.fastdiff_ops.first_hitting_step_
    x, t, state = LOGITS.to(device), torch.ones(1, device=device), make_rng(1, device=device)
    none = [None] * 8
    good = [x, t, state, *none, None, 0, 10, 0, 0]
    argmax(*good)
    ids = INTS.to(device)
    for place, value in [
        (0, x[0]), (0, x.int()), (0, torch.zeros(10, 3, device=device).t()), (0, x[:, :0]),
        (1, t.double()), (1, torch.ones(2, device=device)), (1, t[0]),
        (2, state.int()), (2, state[:1]), (2, make_rng([1, 2], device=device)),
        (3, ids[:2]), (3, ids.int()), (4, ids.int()), (4, ids[None]),
        (5, x), (6, t), (7, x[:2]), (7, x.double()), (8, x), (8, x[:, :5] > 0), (9, ids.int()),
        (9, ids[None]), (10, ids), (10, torch.ones(2, device=device)), (10, t.double()), (11, t.double()),
        (12, -1), (12, 1), (13, 9), (13, 2**28 + 1), (14, 2), (14, -1), (15, 2),
    ]:  # fmt: skip
        arguments = list(good)
        arguments[place] = value
        with pytest.raises(RuntimeError):
            argmax(*arguments)
    for k in (0, 11, -1):
        with pytest.raises(RuntimeError):
            topk(x, t, state, *none, 0, 10, 0, k)
    tokens, places = torch.zeros(3, 4, dtype=torch.int64, device=device), POSITIONS[:, None].to(device)
    good = [tokens, x[:, None], places, t, state, *[None] * 7, 0, 0]
    for place, value in [
        (0, tokens.int()), (0, tokens[0]), (0, tokens[:2]), (0, torch.zeros(4, 3, device=device).long().t()),
        (1, x), (1, x[:2, None]), (1, x[:, None].expand(3, 2, 10)), (2, places.long()), (2, places[:, 0]),
        (2, places[:2]), (3, torch.ones(2, device=device)), (4, make_rng([1, 2], device=device)),
        (5, ids[:2]),
    ]:  # fmt: skip
        arguments = list(good)
        arguments[place] = value
        with pytest.raises(RuntimeError):
            hit(*arguments)
    assert (tokens == 0).all()
