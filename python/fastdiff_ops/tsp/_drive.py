"""Drives searches on threads: slices, limits, stop conditions, Ctrl-C.

Worker threads do all work, in slices of about 20 ms outside of Python's lock, and say so in a queue after
each. The calling thread waits for the queue without a timeout, which a signal interrupts at once; it alone
decides what stops.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .result import SearchStats

SLICE: Final = 0.02
REPORT: Final = 0.2
PROMPT: Final = ("interrupt", "callback")  # what ends a search without waiting for problems being built


class Progress(NamedTuple):
    """How far a search is; lengths in the caller's units."""

    length: float
    first_local_optimum: float = math.nan
    lower_bound: float = math.nan
    iterations: int = 0
    accepted: int = 0
    restarts: int = 0


NOTHING: Final = Progress(math.inf)


class Search(Protocol):
    """What the driver asks of a search."""

    def run(self, seconds: float) -> bool:
        """Go on for at most so long; return whether its own budget is spent."""

    def progress(self) -> Progress: ...

    @property
    def slack(self) -> float:
        """By how much `progress().length` may differ from the length summed in float64."""

    def order(self) -> NDArray[np.int32]:
        """Return the best tour."""


@dataclass
class Job:
    """One trajectory of one instance.

    `begin(seconds)` makes the search, which has so many seconds, its own making included. `measure(order)` is
    the length of a tour summed in float64.
    """

    instance: int
    begin: Callable[[float], Search]
    measure: Callable[[NDArray[np.int32]], float]
    phase: str = "waiting"  # then "building", "searching", "done"
    progress: Progress = NOTHING
    seen: float = math.inf  # shortest length that the search has reported
    order: NDArray[np.int32] | None = None
    stopped_by: str = ""
    error: BaseException | None = None


@dataclass
class Limits:
    """What ends a search.

    Attributes
    ----------
    deadline : float
        By `time.monotonic`; inf for none.
    max_iterations : float
        Of each search; inf for none.
    targets : float64 ndarray [B]
        A tour as short as this is good enough; NaN for none.
    stall : float
        Seconds without improvement; inf for none.
    gap : float
        To the search's own estimate of a lower bound, where there is no target; NaN for none.
    """

    deadline: float
    max_iterations: float
    targets: NDArray[np.float64]
    stall: float
    gap: float = math.nan


@dataclass
class Driver:
    """Runs jobs; `watch(stats)` is called about every 0.2 s and may return True to stop."""

    stats: SearchStats
    limits: Limits
    threads: int
    began: float
    watch: Callable[[SearchStats], Any] | None = None
    histories: list[list[tuple[float, float]]] | None = None
    _events: SimpleQueue[tuple[Job, bool, float]] = field(default_factory=SimpleQueue)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _waiting: int = 0

    def __post_init__(self) -> None:
        batch = len(self.stats.lengths)
        self._stopped = [""] * batch
        self._improved = [math.nan] * batch  # when

    def run(self, jobs: Sequence[Job]) -> None:
        """Run jobs until their budgets are spent or something stops them."""
        self._waiting = len(jobs)
        self.threads = min(self.threads, max(1, len(jobs)))
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="tour-search")
        try:
            try:
                for job in jobs:
                    pool.submit(self._work, job)
                self._watch_over(jobs)
            except KeyboardInterrupt:
                self._stop_all("interrupt")
            except BaseException:
                self._stop_all("error")
                raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        while any(job.phase == "searching" for job in jobs):  # at the end of their slices
            self._events.get()
        self._gather(jobs)
        self.stats.seconds = time.monotonic() - self.began
        self.stats.stopped_by = next((s for s in self._stopped if s in PROMPT), self.stats.stopped_by)

    def run_together(
        self, jobs: Sequence[Job], searches: Sequence[Search], step: Callable[[float], str]
    ) -> None:
        """Run searches that go on together, in the calling thread, until all are stopped.

        `step(seconds)` lets all of them go on for about so long and returns what ended them, "" if nothing.
        """
        ended, report = "", time.monotonic() + REPORT
        try:
            while not ended:
                left = min(SLICE, self.limits.deadline - time.monotonic())
                ended = step(left) if left > 0 else "time"
                now = time.monotonic()
                for job, search in zip(jobs, searches, strict=True):
                    self._note_progress(job, search)
                    self._take_note(job, now)
                if not ended and all(self._stopped):
                    ended = self._stopped[-1]
                if now >= report:
                    self._gather(jobs)
                    if self.watch is not None and self.watch(self.stats):
                        ended = "callback"
                    report = time.monotonic() + REPORT
        except KeyboardInterrupt:
            ended = "interrupt"
        for job, search in zip(jobs, searches, strict=True):
            self._note_progress(job, search)
            job.order = search.order()
        self._gather(jobs)
        self.stats.stopped_by = ended

    # -- the calling thread --

    def _watch_over(self, jobs: Sequence[Job]) -> None:
        pending, report = len(jobs), time.monotonic() + REPORT
        while pending:
            job, done, when = self._events.get()
            if job.error is not None:
                raise job.error
            pending -= done
            if done:
                self.stats.stopped_by = job.stopped_by
            self._take_note(job, when)
            if time.monotonic() >= report:
                self._gather(jobs)
                if self.watch is not None and self.watch(self.stats):
                    self._stop_all("callback")
                    return
                report = time.monotonic() + REPORT

    def _take_note(self, job: Job, when: float) -> None:
        """See whether an instance has got better, and whether that will do."""
        b, length = job.instance, job.progress.length
        if length < self.stats.lengths[b]:
            self.stats.lengths[b] = length
            self._improved[b] = when
            if self.histories is not None:
                self.histories[b].append((when - self.began, length))
        if self._stopped[b]:
            return
        if self.stats.lengths[b] <= self.limits.targets[b] * (1 + 1e-9):
            self._stopped[b] = "gap"
        elif when - self._improved[b] > self.limits.stall:
            self._stopped[b] = "stall"

    def _gather(self, jobs: Sequence[Job]) -> None:
        """Bring the stats up to date."""
        stats = self.stats
        stats.seconds = time.monotonic() - self.began
        for counts in (stats.iterations, stats.accepted, stats.restarts):
            counts[:] = 0
        for job in jobs:
            b, progress = job.instance, job.progress
            stats.iterations[b] += progress.iterations
            stats.accepted[b] += progress.accepted
            stats.restarts[b] += progress.restarts
            if math.isnan(stats.first_local_optimum[b]):
                stats.first_local_optimum[b] = progress.first_local_optimum
            if math.isnan(stats.lower_bound[b]):
                stats.lower_bound[b] = progress.lower_bound

    def _stop_all(self, reason: str) -> None:
        self._stopped = [reason] * len(self._stopped)

    # -- worker threads --

    def _work(self, job: Job) -> None:
        try:
            self._search(job)
        except BaseException as error:
            job.error = error
        job.phase = "done"
        self._events.put((job, True, time.monotonic()))

    def _search(self, job: Job) -> None:
        b = job.instance
        seconds = self._share()
        # a tour there must be, however late it is
        if self._stopped[b] or (seconds <= 0 and self.stats.lengths[b] < math.inf):
            job.stopped_by = self._stopped[b] or "time"
            return
        until = time.monotonic() + seconds
        job.phase = "building"
        search = job.begin(seconds)
        job.phase = "searching"
        spent = False
        while not spent and not self._stopped[b]:
            left = min(SLICE, until - time.monotonic())
            if left <= 0:
                break
            spent = search.run(left)
            self._note_progress(job, search)
            self._events.put((job, False, time.monotonic()))
        self._note_progress(job, search)
        counted = job.progress.iterations >= self.limits.max_iterations
        job.stopped_by = self._stopped[b] or ("iterations" if counted else "time")
        job.order = search.order()

    def _note_progress(self, job: Job, search: Search) -> None:
        progress, before = search.progress(), job.seen
        if math.isnan(self.limits.targets[job.instance]):
            self.limits.targets[job.instance] = progress.lower_bound * (1 + self.limits.gap)
        job.seen = progress.length
        if progress.length <= self.limits.targets[job.instance] + search.slack:
            better = progress.length < before  # a target is reached by the tour, not by its rounded length
            exact = job.measure(search.order()) if better else job.progress.length
            progress = progress._replace(length=exact)
        job.progress = progress

    def _share(self) -> float:
        """Return the seconds that the next job may have, so that all that wait get as many."""
        with self._lock:
            turns = math.ceil(self._waiting / self.threads)
            self._waiting -= 1
        return (self.limits.deadline - time.monotonic()) / turns
