"""The hitting operators and torch: opcheck, torch.compile, SIMD levels, the reference, bad input."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch
from fastdiff_ops.ops.hitting import first_hitting_times, remask, remask_, reveal_steps
from fastdiff_ops.ops.random import make_rng
from fastdiff_ops.ops.transfer import select_transfer
from ops.hitting_cases import random_mask

ops = torch.ops.fastdiff_ops
MASK = random_mask(3, 20, seed=1)
TOKENS = torch.arange(60).reshape(3, 20)
SCORE = torch.linspace(0, 1, 60, dtype=torch.float64).reshape(3, 20)
GRID = torch.linspace(1, 0, 5, dtype=torch.float64)


def on_meta(x: torch.Tensor) -> torch.Tensor:
    return x.to("meta")


# ---- torch citizenship


@pytest.mark.parametrize("ids", [None, torch.tensor([4, 1, 7])])
def test_opcheck(ids) -> None:
    for rng in (make_rng(1), make_rng([1, 2, 3])):
        torch.library.opcheck(ops.first_hitting_times.default, (MASK, rng, ids))
        torch.library.opcheck(ops.reveal_steps.default, (MASK, GRID, rng, ids))
        for prob in (SCORE, SCORE[:, :1].float()):
            torch.library.opcheck(ops.remask_.default, (TOKENS.clone(), prob, MASK, 7, rng, ids))
    for rule, limit in enumerate((torch.tensor([2]), *[torch.tensor([0.5], dtype=torch.float64)] * 3)):
        entropy = SCORE if rule == 3 else None
        torch.library.opcheck(ops.select_transfer.default, (SCORE, MASK, limit, entropy, rule, rule == 2))


def test_one_graph_for_all_seeds() -> None:
    graphs = []

    def count(graph, _inputs):
        graphs.append(graph)
        return graph

    class Squared:
        def mask_prob(self, t):
            return t**2

        def inverse(self, mask_prob):
            return mask_prob.sqrt()

    def step(tokens, score, limit, rng, ids):
        mask = tokens < 9
        hits = first_hitting_times(mask, schedule=Squared(), rng=rng, sequence_ids=ids)
        steps = reveal_steps(mask, GRID, rng=rng, sequence_ids=ids)
        chosen = select_transfer(score, mask, threshold=limit)
        remask_(tokens, 0.5, 99, eligible=~chosen, rng=rng)
        return *hits, steps, chosen, *remask(tokens, score, 99, rng=rng)

    compiled = torch.compile(step, backend=count, fullgraph=True)
    ids = torch.tensor([3, 4, 5])
    for seed in range(4):
        limit = torch.tensor([0.1 * seed])
        mine, right = TOKENS.clone(), TOKENS.clone()
        got = compiled(mine, SCORE, limit, make_rng(seed, seed), ids)
        assert all(map(torch.equal, got, step(right, SCORE, limit, make_rng(seed, seed), ids)))
        assert torch.equal(mine, right) and not torch.equal(mine, TOKENS)
    assert len(graphs) == 1


CODE = """
import hashlib, torch
from fastdiff_ops.ops.hitting import first_hitting_times, remask, reveal_steps
from fastdiff_ops.ops.transfer import select_transfer
mask = torch.arange(5000).reshape(5, 1000) * 2654435761 % 7 > 1
score = (torch.arange(5000).reshape(5, 1000) * 40503 % 1009).double() / 1009
grid = torch.linspace(1, 0, 9, dtype=torch.float64)
results = [*first_hitting_times(mask, seed=5), reveal_steps(mask, grid, seed=5)]
results += remask(torch.zeros(5, 1000, dtype=torch.int64), score, 1, seed=5)
results += [select_transfer(score, mask, count=9), select_transfer(score, mask, threshold=0.9)]
results += [select_transfer(None, mask, residual=score, factor=9.0)]
results += [select_transfer(-score, mask, entropy=score, entropy_bound=2.0)]
state = hashlib.sha256()
for result in results:
    state.update(result.contiguous().view(torch.uint8).numpy().tobytes())
result = state.hexdigest()[:16]
"""
# The same on every device and processor.
DIGEST = "2d82131e0d9409b6"


@pytest.mark.parametrize(
    "environment", [{"FASTDIFF_OPS_SIMD": level} for level in ("scalar", "avx2", "avx512")]
    + [{"FASTDIFF_OPS_REFERENCE": "1"}],
)  # fmt: skip
def test_levels_and_reference_agree(environment) -> None:
    run = [sys.executable, "-c", f"{CODE}print(result)"]
    done = subprocess.run(run, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == DIGEST


@pytest.mark.emulated
def test_golden_digest(backend) -> None:
    names: dict[str, str] = {}
    code = CODE.replace(
        "import hashlib, torch", f"import hashlib, torch\ntorch.set_default_device('{backend.device}')"
    )
    try:
        exec(code.replace(".numpy()", ".cpu().numpy()"), names)
    finally:
        torch.set_default_device(None)
    assert names["result"] == DIGEST


# ---- bad input

times, select = first_hitting_times, select_transfer

HITS = [
    (lambda: times([True]), TypeError, "`mask` must be a Tensor"),
    (lambda: times(MASK.int()), TypeError, "`mask` must be torch.bool"),
    (lambda: times(MASK[0]), ValueError, r"`mask` must be 2-D .* got shape \(20,\)"),
    (lambda: times(MASK, seed=2**64), ValueError, "`seed`"),
    (lambda: times(MASK, seed=1.5), TypeError, "`seed`"),
    (lambda: times(MASK, seed=[1, 2]), ValueError, "`seed` must be one seed or 3"),
    (lambda: times(MASK, seed=1, offset=-1), ValueError, "`offset`"),
    (lambda: times(MASK, seed=1, offset=2**32), ValueError, "`offset`"),
    (lambda: times(MASK, seed=1, rng=make_rng(1)), ValueError, "give `rng`, or `seed`"),
    (lambda: times(MASK, rng=[1, 2]), TypeError, "`rng` must be a Tensor"),
    (lambda: times(MASK, rng=make_rng(1).int()), TypeError, "`rng` must be torch.int64"),
    (lambda: times(MASK, rng=make_rng([1, 2])), ValueError, "`rng` must have shape"),
    (lambda: times(MASK, rng=on_meta(make_rng(1))), ValueError, "`rng` must be on the device"),
    (lambda: times(MASK, rng=torch.tensor([1, 2**32])), ValueError, "`rng`: the offset"),
    (lambda: times(MASK, seed=1, sequence_ids=[1, 2]), ValueError, "`sequence_ids`.*shape"),
    (lambda: times(MASK, seed=1, sequence_ids=[1, 2, 1]), ValueError, "must not repeat"),
    (lambda: times(MASK, seed=1, sequence_ids=[1, 2, 2**32]), ValueError, "`sequence_ids`"),
    (lambda: times(MASK, seed=1, sequence_ids=[1, 2, -1]), ValueError, "`sequence_ids`"),
    (lambda: times(MASK, seed=1, sequence_ids=[1, 2, 0.5]), TypeError, "`sequence_ids`"),
    (lambda: times(MASK, seed=1, sequence_ids="abc"), TypeError, "`sequence_ids`"),
    (lambda: times(MASK, seed=1, sequence_ids=torch.tensor([1, 2, -3])), ValueError, "`sequence_ids`: an"),
    (lambda: times(MASK, seed=1, sequence_ids=torch.ones(3)), TypeError, "`sequence_ids`"),
    (lambda: times(MASK, seed=1, sequence_ids=torch.tensor([5, 5, 6])), ValueError, "not repeat"),
    (lambda: reveal_steps(MASK, GRID.tolist()), TypeError, "`mask_prob` must be a Tensor"),
    (lambda: reveal_steps(MASK, GRID.float()), TypeError, "`mask_prob`"),
    (lambda: reveal_steps(MASK, GRID[:1]), ValueError, "`mask_prob` must be"),
    (lambda: reveal_steps(MASK, GRID[None]), ValueError, "`mask_prob` must be"),
    (lambda: reveal_steps(MASK, GRID.flip(0)), ValueError, "`mask_prob` must start in"),
    (lambda: reveal_steps(MASK, GRID + 0.1), ValueError, "`mask_prob` must start in"),
    (lambda: reveal_steps(MASK, GRID - 0.1), ValueError, "`mask_prob` must not increase nor be neg"),
    (lambda: reveal_steps(MASK, GRID[[0, 2, 1]]), ValueError, "`mask_prob` must not increase"),
    (lambda: reveal_steps(MASK, GRID * math.nan), ValueError, "`mask_prob`"),
]  # fmt: skip
REMASK = [
    (lambda: remask_(TOKENS.int(), 0.5, 1), TypeError, "`tokens` must be torch.int64"),
    (lambda: remask_(TOKENS[0], 0.5, 1), ValueError, "`tokens` must be 2-D"),
    (lambda: remask_(TOKENS[:1].expand(3, 20), 0.5, 1), ValueError, "`tokens` must not be expanded"),
    (lambda: remask_(TOKENS, 1.5, 1), ValueError, r"`prob` must be in \[0, 1\], got 1.5"),
    (lambda: remask_(TOKENS, math.nan, 1), ValueError, "`prob`"),
    (lambda: remask_(TOKENS, "0.5", 1), TypeError, "`prob`"),
    (lambda: remask_(TOKENS, SCORE.half(), 1), TypeError, "`prob`"),
    (lambda: remask_(TOKENS, SCORE[:, :5], 1), ValueError, r"`prob` must have .*, got \(3, 5\)"),
    (lambda: remask_(TOKENS, SCORE[:2], 1), ValueError, "`prob` must have shape"),
    (lambda: remask_(TOKENS, on_meta(SCORE), 1), ValueError, "`prob` must be on the device"),
    (lambda: remask_(TOKENS, 0.5, None), TypeError, "`mask_id` must be an int, got NoneType"),
    (lambda: remask_(TOKENS, 0.5, 1, eligible=MASK[:2]), ValueError, "`eligible` must have shape"),
    (lambda: remask_(TOKENS, 0.5, 1, eligible=TOKENS), TypeError, "`eligible` must be torch.bool"),
    (lambda: remask(TOKENS[0], 0.5, 1), ValueError, "`tokens` must be 2-D"),
    (lambda: remask(TOKENS, 0.5, 1, seed=1, sequence_ids=[0, 0, 1]), ValueError, "not repeat"),
]  # fmt: skip
SELECT = [
    (lambda: select(SCORE, MASK), ValueError, "exactly one .* got none"),
    (lambda: select(SCORE, MASK, count=1, factor=1.0), ValueError, "exactly one .* got count, factor"),
    (lambda: select(SCORE, MASK, entropy_bound=1.0), ValueError, "`entropy` goes with"),
    (lambda: select(SCORE, MASK, count=1, entropy=SCORE), ValueError, "`entropy` goes with"),
    (lambda: select(None, MASK, count=1), TypeError, "`score` must be a Tensor"),
    (lambda: select(SCORE.half(), MASK, count=1), TypeError, "`score` must be float32 or float64"),
    (lambda: select(SCORE[:2], MASK, count=1), ValueError, "`score` must have shape"),
    (lambda: select(on_meta(SCORE), MASK, count=1), ValueError, "`score` must be on the device"),
    (lambda: select(None, MASK, count=1, residual=TOKENS), TypeError, "`residual`"),
    (lambda: select(SCORE, MASK, entropy=SCORE[:1], entropy_bound=1.0), ValueError, "`entropy` must have"),
    (lambda: select(SCORE, SCORE, count=1), TypeError, "`candidate` must be torch.bool"),
    (lambda: select(SCORE, MASK[0], count=1), ValueError, "`candidate` must be 2-D"),
    (lambda: select(SCORE, None, count=1), TypeError, "`candidate` must be a Tensor"),
    (lambda: select(SCORE, MASK, count=-1), ValueError, "`count` must be a number >= 0, got -1"),
    (lambda: select(SCORE, MASK, count=1.0), TypeError, "`count` must be an int"),
    (lambda: select(SCORE, MASK, count=True), TypeError, "`count` must be an int"),
    (lambda: select(SCORE, MASK, count=torch.tensor([1, 2])), ValueError, "`count` must be a number or"),
    (lambda: select(SCORE, MASK, count=torch.tensor(-2)), ValueError, "`count` must not be negative"),
    (lambda: select(SCORE, MASK, count=torch.tensor(1.0)), TypeError, "`count` must be int32 or"),
    (lambda: select(SCORE, MASK, factor=-0.5), ValueError, "`factor` must be a number >= 0"),
    (lambda: select(SCORE, MASK, factor=math.nan), ValueError, "`factor`"),
    (lambda: select(SCORE, MASK, factor=torch.tensor(-1.0)), ValueError, "must not be negative"),
    (lambda: select(SCORE, MASK, factor=torch.tensor(1)), TypeError, "`factor` must be float32 or"),
    (lambda: select(SCORE, MASK, threshold=math.nan), ValueError, "`threshold` must be a number, got nan"),
    (lambda: select(SCORE, MASK, threshold=torch.tensor(math.nan)), ValueError, "must not be NaN"),
    (lambda: select(SCORE, MASK, threshold="0.9"), TypeError, "`threshold` must be a float"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), HITS + REMASK + SELECT)
def test_errors(call, error, text) -> None:
    before = TOKENS.clone()
    with pytest.raises(error, match=text):
        call()
    assert torch.equal(TOKENS, before)


def test_ids_that_may_repeat() -> None:
    twice = first_hitting_times(MASK[[0, 0, 1]], seed=1, sequence_ids=[5, 5, 6], allow_duplicate_ids=True)
    assert torch.equal(twice.order[0], twice.order[1])
    ids = torch.tensor([5, 5, 6])
    seeds = first_hitting_times(MASK[[0, 0, 1]], seed=[1, 2, 3], sequence_ids=ids)
    assert not torch.equal(seeds.times[0], seeds.times[1]), "with a seed each, ids may repeat"


@pytest.mark.emulated
def test_raw_operators_check_what_could_corrupt_memory(backend) -> None:
    device = backend.device
    rng, mask, tokens, score = (x.to(device) for x in (make_rng(1), MASK, TOKENS, SCORE))
    number, double = torch.tensor([1], device=device), torch.ones(1, dtype=torch.float64, device=device)
    for arguments in [
        (mask[0], rng, None),
        (tokens, rng, None),
        (mask, rng[:1], None),
        (mask, rng.double(), None),
        (mask, rng.expand(3, 2), None),
        (mask, rng, number),
        (mask, rng, torch.ones(3, device=device)),
    ]:
        with pytest.raises(RuntimeError):
            ops.first_hitting_times(*arguments)
    for grid in (double, torch.ones(2, 2, dtype=torch.float64, device=device), torch.ones(3, device=device)):
        with pytest.raises(RuntimeError):
            ops.reveal_steps(mask, grid, rng, None)
    for arguments in [
        (tokens.int(), score, None),
        (tokens[0], score, None),
        (tokens[:1].expand(3, 20), score, None),
        (tokens, score[:2], None),
        (tokens, score[:, :2], None),
        (tokens, score.half(), None),
        (tokens, score, mask[:2]),
        (tokens, score, tokens),
    ]:
        with pytest.raises(RuntimeError):
            ops.remask_(*arguments, 1, rng, None)
    for arguments in [
        (score[:2], mask, number, None, 0),
        (score[:, :2], mask, number, None, 0),
        (score[:, :1], mask, number, None, 0),
        (score.half(), mask, number, None, 0),
        (score, mask[0], number, None, 0),
        (score, tokens, number, None, 0),
        (score, mask, double, None, 0),
        (score, mask, number, None, 1),
        (score, mask, double.expand(2), None, 1),
        (score, mask, double, None, 4),
        (score, mask, double, None, 3),
        (score, mask, double, score, 2),
        (score, mask, double, score[:2], 3),
    ]:
        with pytest.raises(RuntimeError):
            ops.select_transfer(*arguments, False)
