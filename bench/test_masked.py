"""What sampling costs beside the network, per generated token: one row drawn, or all of them.

A masked diffusion model of 1024 tokens and a vocabulary of 50257; the network costs nothing: its logits are
there already.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest
import torch
from fastdiff_ops.masked import ancestral_sample, as_model, decode, first_hitting_sample
from torch import Tensor

from .conftest import Record, threads
from .draws import FIRST_HITTING, LOGITS
from .interleave import THREAD_CPU, Clock, Competitor, Contest, CudaClock, Effort, measure
from .test_linear_step import significant

LENGTH, VOCABULARY = 1024, 50257
QUICK_LENGTH = 256
MASK = VOCABULARY
PARALLEL, ANCESTRAL, CONFIDENCE = (
    "first_hitting_sample, 4 tokens a call",
    "ancestral_sample, a step per token",
    "decode, surest first, 4 tokens a call",
)
MDLM32, MDLM64 = "MDLM's update, float32", "MDLM's update, float64"
NAMES = (FIRST_HITTING, "one row's logits only", PARALLEL, ANCESTRAL, CONFIDENCE, MDLM32, MDLM64)
NOTES = {
    FIRST_HITTING: "a call for each token, exact; the network hands out [L, V], of which a row is read",
    "one row's logits only": "the same with a network whose head computes only the row that is drawn",
    ANCESTRAL: "as many steps as tokens, of which those that reveal nothing cost nothing",
    MDLM32: "one step of MDLM's ancestral loop: with as many steps as tokens, what a token costs",
    MDLM64: "the same in float64, which it needs for what first_hitting_sample draws",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_generate(
    record: Record,
    pytestconfig: pytest.Config,
    contests: dict[Any, Contest],
    effort: Effort,
    device: str,
    name: str,
) -> None:
    """Per generated token, float32 logits, one thread."""
    key = ("masked", device)
    length = QUICK_LENGTH if pytestconfig.getoption("--quick") else LENGTH
    if key not in contests:
        with threads(1):
            contests[key] = run(length, torch.device(device), effort)
    info: dict[str, Any] = {
        "job": "masked",
        "shape": f"L={length}, V={VOCABULARY}",
        "dtype": "float32",
        "threads": "cuda" if device == "cuda" else 1,
        "times_first_hitting": significant(statistics.median(contests[key].ratios(name, FIRST_HITTING))),
    }
    if name in NOTES:
        info["note"] = NOTES[name]
    record(contests[key], name, f"generate {length} tokens, {device}", **info)


def run(length: int, device: torch.device, effort: Effort) -> Contest:
    """Measure all on one sequence and let go of the logits."""
    clock: Clock = CudaClock() if device.type == "cuda" else THREAD_CPU
    quick = length == QUICK_LENGTH
    contest = measure(
        list(competitors(length, device)), clock, replace(effort, seconds=0.0, min_rounds=2 if quick else 3)
    )
    contest.competitors = {name: c.without_call() for name, c in contest.competitors.items()}
    gc.collect()
    return contest


def competitors(length: int, device: torch.device) -> Iterator[Competitor]:
    """Whole runs of ours, single steps of MDLM's loop."""
    logits = LOGITS["LLM-like"]((length, VOCABULARY), torch.Generator().manual_seed(0)).to(device)[None]
    masks = torch.full((1, length), MASK, device=device)

    def network(tokens: Tensor) -> Tensor:
        return logits

    def row(tokens: Tensor, positions: Tensor) -> Tensor:
        return logits[:, :1]

    row_network = as_model(row, takes_positions=True)
    seeds = cycle(range(1000))
    calls: dict[str, Callable[[], Tensor]] = {
        FIRST_HITTING: lambda: first_hitting_sample(network, masks, mask_id=MASK, seed=next(seeds)),
        NAMES[1]: lambda: first_hitting_sample(row_network, masks, mask_id=MASK, seed=next(seeds)),
        PARALLEL: lambda: first_hitting_sample(
            network, masks, mask_id=MASK, seed=next(seeds), tokens_per_step=4
        ),
        ANCESTRAL: lambda: ancestral_sample(network, masks, mask_id=MASK, seed=next(seeds), num_steps=length),
    }
    for name, call in calls.items():
        if bool((call() == MASK).any()):
            raise AssertionError(f"{name} left masks")
        yield Competitor(name, call, jobs=length, note=NOTES.get(name, ""))
    few = min(length, 64)  # every step looks at all rows that are left

    def surest() -> Tensor:
        part = masks.clone()
        part[:, few:] = 0
        return decode(network, part, mask_id=MASK, seed=next(seeds), temperature=1.0, num_steps=few // 4)

    yield Competitor(CONFIDENCE, surest, jobs=few, note=f"{few} tokens are generated, the others given")
    log_p = torch.cat([logits, torch.full((1, length, 1), -1e6, device=device)], dim=-1).log_softmax(-1)
    half = masks.clone()
    half[:, ::2] = 0  # in the middle of a run
    for name, dtype in ((MDLM32, torch.float32), (MDLM64, torch.float64)):
        yield Competitor(name, mdlm_update(log_p, half, 0.5, 0.5 - 1 / length, dtype), note=NOTES[name])


def mdlm_update(
    log_p: Tensor, tokens: Tensor, t: float, s: float, dtype: torch.dtype
) -> Callable[[], Tensor]:
    """A step from time t to s as MDLM's sampler makes it: a draw for all positions, mask included."""

    def update() -> Tensor:
        q = log_p.to(dtype).exp() * (t - s)
        q[:, :, MASK] = s
        drawn = (q / (1e-10 - (torch.rand_like(q) + 1e-10).log())).argmax(dim=-1)
        given = (tokens != MASK).to(tokens.dtype)
        return given * tokens + (1 - given) * drawn

    return update
