"""`solve` on CUDA tensors: problems are built on the host, the batch is searched on the device."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdiff_ops.ops.tour_search import SEGMENT

from ._drive import Driver, Job, Progress
from ._plan import Plan
from .config import ILSConfig
from .cuda import DeviceSearch, refuse_capture


def runs_on_device(plan: Plan) -> bool:
    """Return whether `search_on_device` takes a plan; others are searched by the processor.

    The kernels know `method="ils"` on closed tours by Euclidean distance, without fixed edges.
    """
    instances, route = plan.instances, plan.route
    plane = instances.coords is not None and instances.metric == "euclidean"
    free = not route.open_path and not any(len(route.pairs(b)) for b in range(instances.batch))
    return instances.device.type == "cuda" and plan.method == "ils" and plane and free


def search_on_device(plan: Plan, driver: Driver, device: torch.device | None = None) -> list[Job]:
    """Search a batch on the device of its coordinates (or another one), one job an instance.

    An instance that has reached its target goes on until all have.

    Raises
    ------
    RuntimeError
        While a CUDA graph is captured.
    """
    device = plan.instances.device if device is None else device
    refuse_capture(device)
    jobs = [Job(b, _never, partial(plan.measure, b)) for b in range(plan.instances.batch)]
    try:
        search = _begin(plan, driver, device)
    except KeyboardInterrupt:
        driver.stats.stopped_by = "interrupt"
        return jobs
    parts = [_Part(search, b) for b in range(plan.instances.batch)]

    def step(seconds: float) -> str:
        if not search.run(seconds):
            return ""
        return "iterations" if search.kicks >= plan.limits.max_iterations else "time"

    driver.run_together(jobs, parts, step)
    return jobs


@dataclass
class _Part:
    """One instance of a batch, as the driver sees a search."""

    whole: DeviceSearch
    instance: int

    def run(self, seconds: float) -> bool:
        return self.whole.run(seconds)

    @property
    def slack(self) -> float:
        return 1e-6 * float(self.whole.lengths[self.instance])

    def progress(self) -> Progress:
        b, whole = self.instance, self.whole
        return Progress(
            float(whole.lengths[b]),
            float(whole.first_local_optimum[b]),
            iterations=whole.kicks * whole.trajectories,
            accepted=int(whole.accepted[b]),
        )

    def order(self) -> NDArray[np.int32]:
        return self.whole.best(self.instance).int().cpu().numpy()


def _never(seconds: float) -> _Part:
    raise AssertionError("a batch begins as a whole")


def _begin(plan: Plan, driver: Driver, device: torch.device) -> DeviceSearch:
    limits, instances, config = plan.limits, plan.instances, plan.config
    assert instances.coords is not None
    assert isinstance(config, ILSConfig)

    def build(b: int) -> tuple[Tensor, Tensor]:
        share = (limits.deadline - time.monotonic()) * driver.threads / instances.batch
        host = plan.problem(b, share).host
        order = host.greedy() if plan.starts is None else plan.starts[b].numpy()
        return torch.from_numpy(host.candidate_ids()), torch.from_numpy(order).int()

    with ThreadPoolExecutor(driver.threads, thread_name_prefix="tour-search") as pool:
        lists, starts = zip(*pool.map(build, range(instances.batch)), strict=True)
    left = limits.deadline - time.monotonic()
    return DeviceSearch(
        instances.coords.to(device),
        torch.stack(lists),
        torch.stack(starts),
        trajectories=plan.trajectories,
        seed=plan.key,
        max_kicks=None if limits.max_iterations == math.inf else int(limits.max_iterations),
        time_limit=None if left == math.inf else max(left, 1e-3),
        segment=SEGMENT if config.segment is None else config.segment,
        hot=config.hot,
        cold=config.cold,
    )
