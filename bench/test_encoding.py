"""Multiresolution encodings: the simplex grid against the cubic one and against plain torch."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import pytest
import torch

from .conftest import Record, threads
from .encodings import (
    BOTH,
    COMPILED,
    CUBIC,
    FORWARD,
    GATHER,
    LEVELS,
    NOTES,
    SIMPLEX,
    TORCH,
    Job,
    competitors,
    scaling,
)
from .encodings_gpu import GPU_NOTES, PERMUTOHEDRAL, TINY, gpu_competitors
from .interleave import THREAD_CPU, Clock, Contest, CudaClock, Effort, measure
from .test_linear_step import significant

AXES, LOG2_POINTS = (2, 3, 4, 6), (14, 16, 18, 20)
MAIN = (3, 18)  # the case of the aims; plain torch is measured there and on 2^14 points
LOG2_TABLES, LOG2_SCALING_POINTS = (12, 15, 19, 22), 18
GPU_PEERS = (f"{SIMPLEX}, {TORCH}", f"{CUBIC}, {TORCH}", f"{SIMPLEX}, {COMPILED}", f"{CUBIC}, {COMPILED}")


def peers_of(n: int, log2_points: int, quick: bool) -> dict[str, tuple[str, ...]]:
    """Who else is measured, by lattice: plain torch needs seconds, compiling it more."""
    if quick or log2_points != 14:
        torch_peers = (TORCH,) if n == MAIN[0] and log2_points == 14 else ()
        main = (COMPILED, TORCH) if not quick and (n, log2_points) == MAIN else torch_peers
        return {SIMPLEX: (GATHER, *main), CUBIC: ()}
    compiled = (COMPILED,) if n == MAIN[0] else ()
    return {SIMPLEX: (GATHER, TORCH, *compiled), CUBIC: (TORCH, *compiled)}


def names(n: int, log2_points: int, quick: bool) -> list[str]:
    """Their names, with what they do."""
    peers = peers_of(n, log2_points, quick)
    ways = [
        w for lattice in peers for w in (lattice, *(f"{lattice}, {p}" for p in peers[lattice] if p != GATHER))
    ]
    return [f"{w}, {what}" for w in ways for what in (FORWARD, BOTH)] + [GATHER]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    quick = metafunc.config.getoption("--quick")
    if metafunc.function is test_scaling:
        tables = LOG2_TABLES[::2] if quick else LOG2_TABLES
        metafunc.parametrize("name", (SIMPLEX, CUBIC))
        metafunc.parametrize("log2_entries", tables)
        metafunc.parametrize("n", range(1, 9))
        return
    if metafunc.function is test_encode_cuda:
        ways = [
            f"{w}, {what}"
            for w in (SIMPLEX, CUBIC, *GPU_PEERS, TINY, PERMUTOHEDRAL)
            for what in (FORWARD, BOTH)
        ]
        metafunc.parametrize("name", [*ways, GATHER])
        metafunc.parametrize("log2_points", LOG2_POINTS[-2:-1] if quick else LOG2_POINTS)
        metafunc.parametrize("n", AXES)
        return
    shapes = [(n, p) for n in AXES for p in LOG2_POINTS if not quick or (n, p) == MAIN or p == 14]
    metafunc.parametrize(("n", "log2_points", "name"), [(*s, w) for s in shapes for w in names(*s, quick)])


def test_encode(
    record: Record,
    pytestconfig: pytest.Config,
    contests: dict[Any, Contest],
    effort: Effort,
    n: int,
    log2_points: int,
    name: str,
) -> None:
    """Points a second, 16 levels, one thread."""
    key = ("encode", n, log2_points)
    if key not in contests:
        peers = peers_of(n, log2_points, pytestconfig.getoption("--quick"))
        slow = TORCH in peers[SIMPLEX] or log2_points == LOG2_POINTS[-1]
        spent = replace(effort, seconds=0.0 if slow else effort.seconds / 5, min_rounds=2 if slow else 3)
        contests[key] = run(list(competitors(Job(n, 1 << log2_points), peers)), spent)
    group = f"encode, n = {n}, 2^{log2_points} points"
    record(contests[key], name, group, **rates(contests[key], n, log2_points, name, 1))


@pytest.mark.gpu
def test_encode_cuda(
    record: Record, contests: dict[Any, Contest], effort: Effort, n: int, log2_points: int, name: str
) -> None:
    """Points a second on a GPU, 16 levels; beside the libraries that run there only."""
    key = ("encode", "cuda", n, log2_points)
    if key not in contests:
        job, peers = Job(n, 1 << log2_points, "cuda"), (GATHER, TORCH, COMPILED)
        everybody = [*competitors(job, {SIMPLEX: peers, CUBIC: peers[1:]}), *gpu_competitors(job)]
        contests[key] = run(everybody, effort, CudaClock())
    group = f"encode, n = {n}, 2^{log2_points} points, CUDA"
    record(contests[key], name, group, **rates(contests[key], n, log2_points, name, "cuda"))


def rates(contest: Contest, n: int, log2_points: int, name: str, on: int | str) -> dict[str, Any]:
    """What a competitor's time means."""
    if name not in contest.samples:
        return {}
    best = least(contest, name)
    own = f"{SIMPLEX}, {BOTH if name.endswith(BOTH) else FORWARD}"
    note = {**NOTES, **GPU_NOTES}.get(label(name))
    return {
        **case("encode", n, f"2^{log2_points}", on),
        "million_points_per_s": significant((1 << log2_points) / best * 1e-6),
        "ns_per_level": significant(best / (1 << log2_points) / LEVELS * 1e9),
        "times_simplex": significant(best / least(contest, own)),
        **({"note": note} if note else {}),
    }


def test_scaling(
    record: Record, contests: dict[Any, Contest], effort: Effort, n: int, log2_entries: int, name: str
) -> None:
    """One hashed level by dimension and table size."""
    key = ("scaling", n, log2_entries)
    points = 1 << LOG2_SCALING_POINTS
    if key not in contests:
        spent = replace(effort, seconds=effort.seconds / 10, min_rounds=4)
        contests[key] = run(list(scaling(n, log2_entries, points)), spent)
    contest = contests[key]
    best, entries = least(contest, name), n + 1 if name == SIMPLEX else 1 << n
    record(
        contest,
        name,
        f"encode, one level, n = {n}, 2^{log2_entries} entries",
        **case("encode scaling", n, f"2^{log2_entries}"),
        ns_per_point=significant(best / points * 1e9),
        gb_per_s=significant(entries * 64 * points / best * 1e-9),
        times_simplex=significant(best / least(contest, SIMPLEX)),
    )


def run(all_of_them: list[Any], effort: Effort, clock: Clock = THREAD_CPU) -> Contest:
    """Measure on one thread and let go of the tensors."""
    with threads(1):
        contest = measure(all_of_them, clock, effort)
    contest.competitors = {name: c.without_call() for name, c in contest.competitors.items()}
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return contest


def least(contest: Contest, name: str) -> float:
    """Seconds of the fastest turn: rounds are few and other programs share the caches."""
    return min(contest.samples[name])


def label(name: str) -> str:
    """The competitor without what it does."""
    return name.removesuffix(f", {BOTH}").removesuffix(f", {FORWARD}")


def case(job: str, n: int, shape: str, on: int | str = 1) -> dict[str, Any]:
    """What the report sorts by."""
    return {"job": job, "shape": f"{n} {shape}", "dtype": "float32", "threads": on}
