"""Options, and how interleaved measurements become pytest-benchmark's results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from fastdiff_ops.show_versions import versions

from .interleave import FULL, QUICK, Contest, Effort

Record = Callable[..., None]
PEERS = ("diffusers", "k-diffusion", "elkai", "fast-tsp")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="fewer cases and rounds: about 4 minutes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=replayed_time, warmup=False))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


class _Replay:
    now = 0.0


def replayed_time() -> float:
    """The timer that pytest-benchmark is given.

    It cannot let competitors take turns, so finished measurements are replayed to it.
    """
    return _Replay.now


@pytest.fixture
def record(benchmark: Any) -> Record:
    """Hand one competitor's samples to pytest-benchmark, which makes statistics and writes the JSON."""

    def replay(contest: Contest, name: str, group: str, **info: Any) -> None:
        if name not in contest.samples:
            pytest.skip("not available here")
        samples = iter(contest.samples[name])

        def turn() -> None:
            _Replay.now += next(samples)

        benchmark.group = group
        benchmark.extra_info.update(competitor=name, clock=contest.clock, **info)
        benchmark.pedantic(turn, rounds=len(contest.samples[name]))

    return replay


@pytest.fixture(scope="session")
def effort(pytestconfig: pytest.Config) -> Effort:
    """How long to measure."""
    return QUICK if pytestconfig.getoption("--quick") else FULL


@pytest.fixture(scope="session")
def contests() -> dict[Any, Contest]:
    """Finished contests; the first test of a group runs it, the others report."""
    return {}


def all_threads() -> int:
    """How many threads this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch on so many threads, and without gradients, as samplers run."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)


@pytest.hookimpl(trylast=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Say what matters for the figures, and neither the machine's name nor its folders."""
    found = versions()
    cpu = machine_info.get("cpu", {})
    kept = {
        "cpu": cpu.get("brand_raw", "unknown processor"),
        "cpu_family_model": [cpu.get("family"), cpu.get("model")],
        "threads": all_threads(),
        "quick": bool(config.getoption("--quick")),
        **{key: found[key] for key in ("fastdiff_ops", "python", "torch", "build", "gpus", "environment")},
        "packages": {key: found["packages"][key] for key in PEERS},
    }
    machine_info.clear()
    machine_info.update(kept)


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    """Keep the statistics, not each of the samples."""
    commit = output_json["commit_info"]
    output_json["commit_info"] = {key: commit.get(key) for key in ("id", "time", "dirty")}
    for benchmark in output_json["benchmarks"]:
        benchmark["stats"].pop("data", None)
        for repeated in ("options", "params", "param", "fullname"):
            benchmark.pop(repeated, None)
