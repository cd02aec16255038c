"""What the loop of `sample` costs beside the network: a model that costs nothing, on small latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from fastdiff_ops.schedules import Discrete, timesteps
from fastdiff_ops.solvers import make_table, sample
from torch import Tensor

from .conftest import Record, threads
from .interleave import THREAD_CPU, Clock, Competitor, Contest, CudaClock, Effort, measure
from .test_linear_step import significant
from .update import BETAS, N_STEPS, Case, Update, make_solver, scheduler_step

SHORT, LONG = 20, 220  # two runs: their difference is free of what happens once per run
STEP, OPERATOR, REST, SETUP, DIFFUSERS = (
    "sample, a step",
    "sample, the operator",
    "sample, rest of the loop",
    "sample, set-up of a run",
    "diffusers, step",
)
LINES = (STEP, OPERATOR, REST, SETUP, DIFFUSERS, "diffusers, loop")
SHAPES = {"4": (1, 4), "1x4x64x64": (1, 4, 64, 64)}


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_loop(
    record: Record, contests: dict[Any, Contest], effort: Effort, device: str, shape: str, line: str
) -> None:
    """Per step, float32, DPM-Solver++(2M)."""
    key = ("loop", device, shape)
    if key not in contests:
        with threads(1):
            case = Case(SHAPES[shape], torch.float32, torch.device(device))
            contests[key] = run(case, CudaClock() if device == "cuda" else THREAD_CPU, effort)
    contest = contests[key]
    info: dict[str, Any] = {
        "job": "loop",
        "shape": shape,
        "dtype": "float32",
        "threads": "cuda" if device == "cuda" else 1,
    }
    if DIFFUSERS in contest.samples and line in contest.samples:
        info["times_diffusers_step"] = significant(contest.median(line) / contest.median(DIFFUSERS))
    record(contest, line, f"loop of sample {list(SHAPES[shape])}, {device}", **info)


def run(case: Case, clock: Clock, effort: Effort) -> Contest:
    """Measure, and split a step of `sample` into the operator and the rest."""
    x, out = case.randn(0), case.randn(1)
    operator, _ = Update(case).fused(make_solver("dpmpp_2m"), torch.float32)
    competitors = [Competitor(OPERATOR, operator)]
    competitors += [Competitor(f"sample, {n} steps", whole_run(x, out, n)) for n in (SHORT, LONG)]
    competitors += diffusers(x, out)
    contest = measure(competitors, clock, replace(effort, turn=5e-3))
    short, long = (contest.samples.pop(f"sample, {n} steps") for n in (SHORT, LONG))
    steps = [(b - a) / (LONG - SHORT) for a, b in zip(short, long, strict=True)]
    contest.samples[STEP] = steps
    contest.samples[REST] = [s - o for s, o in zip(steps, contest.samples[OPERATOR], strict=True)]
    contest.samples[SETUP] = [a - SHORT * s for a, s in zip(short, steps, strict=True)]
    return contest


def whole_run(x: Tensor, out: Tensor, steps: int) -> Callable[[], Tensor]:
    """`sample` as a user calls it, with the table made beforehand."""
    schedule = Discrete.from_table("scaled_linear", beta_start=0.00085, beta_end=0.012, reading="diffusers")
    table = make_table("dpmpp_2m", schedule, timesteps(schedule, steps, "linspace", "dpm")).bind("eps")
    return lambda: sample(lambda x, t: out, x, table)


def diffusers(x: Tensor, out: Tensor) -> list[Competitor]:
    """The scheduler's step alone, and a pipeline's loop around it."""
    try:
        from diffusers import DPMSolverMultistepScheduler
    except ImportError:
        return []
    scheduler: Any = DPMSolverMultistepScheduler(**BETAS)
    scheduler.set_timesteps(N_STEPS, device=x.device)

    def model(x: Tensor, t: Tensor) -> Tensor:
        return out

    def loop() -> Tensor:
        # what set_timesteps resets, which is not timed
        scheduler._step_index, scheduler.lower_order_nums = None, 0
        scheduler.model_outputs = [None, None]
        state = x
        for t in scheduler.timesteps:
            state = scheduler.step(model(state, t), t, state, return_dict=False)[0]
        return state

    step = scheduler_step(DPMSolverMultistepScheduler(**BETAS), x, out, x)
    return [Competitor(DIFFUSERS, step), Competitor("diffusers, loop", loop, jobs=N_STEPS)]
