"""Competitors that take turns: whatever the machine does meanwhile hits all of them alike.

A round gives every competitor one turn, beginning with another one each time; a turn is an untimed call and
then as many timed ones as make the clock's own cost negligible. Two competitors are compared by the median of
their ratios in each round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch


@dataclass(frozen=True)
class Competitor:
    """One way to do the job.

    Attributes
    ----------
    name : str
        What it is called in results.
    call : callable
        Does the job `jobs` times.
    bytes_moved : int
        What one job must read and write, at the least.
    jobs : int
        Jobs per call.
    note : str
        What a reader must know to judge it.
    """

    name: str
    call: Callable[[], object]
    bytes_moved: int = 0
    jobs: int = 1
    note: str = ""

    def without_call(self) -> Competitor:
        """The same, holding on to no tensors."""
        return replace(self, call=lambda: None)


class Clock(Protocol):
    """Times a number of calls."""

    @property
    def name(self) -> str:
        """What it counts."""
        ...

    def __call__(self, call: Callable[[], object], times: int) -> float:
        """Seconds that `times` calls take."""
        ...


@dataclass(frozen=True)
class HostClock:
    """Wall time, or the processor time of this thread, which does not run while others have the core."""

    name: str
    now: Callable[[], float]

    def __call__(self, call: Callable[[], object], times: int) -> float:
        begin = self.now()
        for _ in range(times):
            call()
        return self.now() - begin


WALL = HostClock("wall time", time.perf_counter)
THREAD_CPU = HostClock("processor time of the thread", time.thread_time)


class CudaClock:
    """The time between two events of the current stream; work that the host is late to launch counts."""

    name = "CUDA events"

    def __call__(self, call: Callable[[], object], times: int) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        for _ in range(times):
            call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e-3


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes
    ----------
    seconds : float
        For all competitors of a contest together.
    min_rounds, max_rounds : int
        Rounds are made in any case, and at most.
    turn : float
        Seconds that a turn lasts at least.
    """

    seconds: float
    min_rounds: int
    max_rounds: int
    turn: float = 1e-3


QUICK = Effort(seconds=1.0, min_rounds=4, max_rounds=100, turn=5e-4)
FULL = Effort(seconds=5.0, min_rounds=9, max_rounds=400)


@dataclass
class Contest:
    """What was measured: seconds per job, by competitor and round."""

    clock: str
    competitors: Mapping[str, Competitor]
    samples: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Seconds per job."""
        return statistics.median(self.samples[name])

    def ratios(self, name: str, reference: str) -> list[float]:
        """How many times as long as the reference it took, in each round, ascending."""
        pairs = zip(self.samples[name], self.samples[reference], strict=True)
        return sorted(a / b for a, b in pairs)

    def bandwidth(self, name: str) -> float:
        """Bytes per second that the job had to move."""
        return self.competitors[name].bytes_moved / self.median(name)


def measure(competitors: Sequence[Competitor], clock: Clock, effort: Effort) -> Contest:
    """Let the competitors take turns until the effort is spent."""
    times: dict[str, int] = {}
    for competitor in competitors:
        competitor.call()
        once = clock(competitor.call, 1)
        if once < effort.turn:
            once = min(once, clock(competitor.call, 1))
        times[competitor.name] = max(1, min(10_000, int(effort.turn / max(once, 1e-7))))
    contest = Contest(clock.name, {c.name: c for c in competitors}, {c.name: [] for c in competitors})
    end = time.monotonic() + effort.seconds
    for done in range(effort.max_rounds):
        if done >= effort.min_rounds and time.monotonic() > end:
            break
        first = done % len(competitors)
        for competitor in (*competitors[first:], *competitors[:first]):
            n = times[competitor.name]
            if n > 1:  # what came before has filled the caches; large tensors do not fit in any case
                competitor.call()
            contest.samples[competitor.name].append(clock(competitor.call, n) / (n * competitor.jobs))
    return contest
