"""How long one solver update takes: fused, written in eager PyTorch, and as diffusers does it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fastdiff_ops._load import load_ops
from fastdiff_ops.schedules import Discrete, timesteps
from fastdiff_ops.solvers import SolverTable, make_table

__all__ = ["SHAPES", "Timing", "readable", "time_updates"]

# A latent of a text-to-image model; a batch of eight for 1024 pixel pictures; pictures in pixel space.
SHAPES = ((1, 4, 64, 64), (8, 4, 128, 128), (8, 3, 256, 256))

STEPS = 20

Candidate: TypeAlias = tuple[Callable[[], object], Callable[[], object]]


@dataclass(frozen=True)
class Timing:
    """Median time of one update.

    Attributes
    ----------
    name : str
        What was timed.
    shape : tuple of int
        Shape of the float32 state.
    seconds : float
        Median over the rounds, of a loop over all steps, divided by the number of steps.
    """

    name: str
    shape: tuple[int, ...]
    seconds: float


def readable(seconds: float) -> str:
    """A time with three digits and its unit.

    Examples
    --------
    >>> readable(7.1234e-6), readable(0.00178), readable(0.25)
    ('7.12 µs', '1.78 ms', '250 ms')
    """
    scale, unit = (1e3, "ms") if seconds >= 1e-3 else (1e6, "µs")
    value = seconds * scale
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def time_updates(
    device: torch.device,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    budget: float = 2.0,
    progress: Callable[[], object] | None = None,
) -> list[Timing]:
    """Time the update of DPM-Solver++(2M) in float32, without any model.

    The candidates take turns, a loop of 20 steps each, so that a change of the machine's load hits all alike.

    Parameters
    ----------
    device : torch.device
        Where to run.
    shapes : sequence of tuple of int
        Shapes of the state.
    budget : float
        Seconds to spend on each shape; three rounds are made in any case.
    progress : callable, optional
        Called after each shape.

    Returns
    -------
    list of Timing
        Grouped by shape; within a shape the fused update comes first. diffusers is there if it is installed.
    """
    load_ops()
    result = []
    for shape in shapes:
        candidates = _candidates(shape, device)
        samples: dict[str, list[float]] = {name: [] for name in candidates}
        start, rounds = time.perf_counter(), 0
        while rounds < 4 or time.perf_counter() - start < budget:
            for name, (prepare, run) in candidates.items():
                prepare()
                _synchronize(device)
                begin = time.perf_counter()
                with torch.inference_mode():
                    run()
                _synchronize(device)
                samples[name].append((time.perf_counter() - begin) / STEPS)
            rounds += 1
        # The first round warms caches, allocators and imports up.
        result += [Timing(name, shape, statistics.median(values[1:])) for name, values in samples.items()]
        if progress is not None:
            progress()
    return result


def _candidates(shape: tuple[int, ...], device: torch.device) -> dict[str, Candidate]:
    """Loops of 20 updates on fixed model outputs, after a preparation that is not timed; fused first."""
    generator = torch.Generator().manual_seed(0)
    x, output = (torch.randn(shape, generator=generator).to(device) for _ in range(2))
    candidates: dict[str, Candidate] = {
        "fastdiff_ops, fused": (lambda: None, _fused(x, output)),
        "eager PyTorch": (lambda: None, _eager(x, output)),
    }
    try:
        from diffusers import DPMSolverMultistepScheduler
    except ImportError:
        return candidates
    scheduler = DPMSolverMultistepScheduler(lower_order_final=False)
    return {**candidates, "diffusers": _diffusers(scheduler, x, output)}


def _table() -> SolverTable:
    schedule = Discrete.from_table("linear", reading="diffusers")
    return make_table("dpmpp_2m", schedule, timesteps(schedule, STEPS, "linspace", "dpm")).bind("eps")


def _fused(x: Tensor, output: Tensor) -> Callable[[], Tensor]:
    table = _table()
    coef = table.coefficients().to(x.device)
    steps = torch.arange(len(table), device=x.device).unbind()
    history = x.new_zeros(table.n_hist, *x.shape)
    buffers = (torch.empty_like(x), torch.empty_like(x))
    # The operator itself, as the loop of `sample` calls it: the wrapper would check its arguments every time.
    step_ = torch.ops.fastdiff_ops.solver_step_.default
    unused = (None,) * 6  # of the branches' weights to the random stream
    same, no_clip = 0, 0

    def run() -> Tensor:
        state = x
        for i, step in enumerate(steps):
            state, previous = buffers[i % 2], state
            step_(
                previous,
                [output],
                state,
                None,
                history,
                None,
                coef,
                step,
                *unused,
                table.n_store,
                no_clip,
                same,
            )
        return state

    return run


def _eager(x: Tensor, output: Tensor) -> Callable[[], Tensor]:
    """The same rows, written as one writes them: coefficients are Python floats, worked out beforehand."""
    table = _table()
    assert table.conv is not None
    rows = [(*table.conv[i].tolist(), table.step(i).state) for i in range(len(table))]

    def run() -> Tensor:
        state, old = x, output
        for c_x, c_o, row in rows:
            data = c_x * state + c_o * output
            state = row.state * state + row.output * data
            if row.history:
                state = state + row.history[0] * old
            old = data
        return state

    return run


def _diffusers(scheduler: Any, x: Tensor, output: Tensor) -> Candidate:
    def prepare() -> None:
        scheduler.set_timesteps(STEPS, device=x.device)

    def run() -> Tensor:
        state = x
        for t in scheduler.timesteps:
            state = scheduler.step(output, t, state, return_dict=False)[0]
        return state

    return prepare, run


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
