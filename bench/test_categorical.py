"""One exact draw per row of logits against everybody else's."""

from __future__ import annotations

import gc
import statistics
from dataclasses import replace
from typing import Any

import pytest
import torch

from .conftest import Record, threads
from .draw_child import MEMORY_ROWS, SIMD_ROWS, child
from .draws import (
    ARGMAX,
    BLOCK16,
    COMPILED,
    ELEMENT,
    FULL,
    LOGITS,
    NAMES,
    NOTES,
    READING,
    Rows,
    competitors,
)
from .interleave import THREAD_CPU, Clock, Contest, CudaClock, Effort, measure
from .test_linear_step import significant

SHAPES = {"1x126464": (1, 126464), "256x50257": (256, 50257), "256x126464": (256, 126464)}
CUDA_SHAPES = {"1x126464": (1, 126464), "1024x126464": (1024, 126464)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PEERS_ON = "LLM-like"  # the peers' times do not depend on the logits: they are measured on these
QUICK_LOGITS = (PEERS_ON, "flat")
ALONE = (BLOCK16, ELEMENT, ARGMAX, READING)
LEVELS = ("avx512", "avx2", "scalar")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    quick = metafunc.config.getoption("--quick")
    if metafunc.function is test_simd:
        dtypes = ["float32"] if quick else list(DTYPES)
        simd_cases = [
            (dtype, level, name) for dtype in dtypes for level in LEVELS for name in (BLOCK16, ELEMENT)
        ]
        metafunc.parametrize(("dtype", "level", "name"), simd_cases)
        return
    cuda = metafunc.function is test_draw_cuda
    shapes = list(CUDA_SHAPES if cuda else SHAPES)
    kinds = QUICK_LOGITS if quick else tuple(LOGITS)
    cases = [
        (shape, dtype, kind, name)
        for shape in (shapes[:2] if quick else shapes)
        for dtype in (["bfloat16"] if cuda else DTYPES)
        for kind in kinds
        for name in names(SHAPES.get(shape, CUDA_SHAPES.get(shape, (0, 0)))[0], kind, quick)
    ]
    metafunc.parametrize(("shape", "dtype", "kind", "name"), cases)


def names(rows: int, kind: str, quick: bool) -> tuple[str, ...]:
    """Who is measured: everybody, but on one kind of logits only, and the definition on one row only."""
    if kind != PEERS_ON:
        return ALONE
    left_out = {FULL} if rows > 1 else set()
    return tuple(n for n in NAMES if n not in left_out and not (quick and n.endswith(COMPILED)))


def test_draw(
    record: Record,
    pytestconfig: pytest.Config,
    contests: dict[Any, Contest],
    effort: Effort,
    shape: str,
    dtype: str,
    kind: str,
    name: str,
) -> None:
    """On one thread."""
    rows = Rows(*SHAPES[shape], DTYPES[dtype], kind)
    key = ("draw", shape, dtype, kind)
    if key not in contests:
        with threads(1):
            who = names(rows.rows, kind, pytestconfig.getoption("--quick"))
            contests[key] = run(rows, who, THREAD_CPU, effort)
    info = judged(contests[key], name, rows)
    if (rows.rows, rows.vocabulary) == MEMORY_ROWS and kind == PEERS_ON and not name.endswith(COMPILED):
        info |= extra_memory(contests, dtype, name)
    record(contests[key], name, f"draw {shape} {dtype} {kind}", **case(shape, dtype, kind, 1), **info)


@pytest.mark.gpu
def test_draw_cuda(
    record: Record,
    pytestconfig: pytest.Config,
    contests: dict[Any, Contest],
    effort: Effort,
    shape: str,
    dtype: str,
    kind: str,
    name: str,
) -> None:
    """On a GPU."""
    rows = Rows(*CUDA_SHAPES[shape], DTYPES[dtype], kind, torch.device("cuda"))
    key = ("draw", "cuda", shape, dtype, kind)
    if key not in contests:
        with threads(torch.get_num_threads()):
            who = names(rows.rows, kind, pytestconfig.getoption("--quick"))
            contests[key] = run(rows, who, CudaClock(), effort)
    info = case(shape, dtype, kind, "cuda") | judged(contests[key], name, rows)
    record(contests[key], name, f"draw {shape} {dtype} {kind}, CUDA", **info)


def test_simd(
    record: Record, contests: dict[Any, Contest], effort: Effort, dtype: str, level: str, name: str
) -> None:
    """Other instruction sets, each in a process of its own: the same tokens."""
    for each in LEVELS:
        key = ("simd", dtype, each)
        if key not in contests:
            found = child("simd", dtype, str(effort.seconds / 5), FASTDIFF_OPS_SIMD=each)
            contests[key] = Contest(THREAD_CPU.name, {}, found["samples"])
            contests["tokens", dtype, each] = found["checksum"]
        assert contests["tokens", dtype, each] == contests["tokens", dtype, LEVELS[0]]
    contest = contests["simd", dtype, level]
    rows, vocabulary = SIMD_ROWS
    shape = f"{rows}x{vocabulary}"
    info = {"job": "simd", "shape": f"{shape} {level}", "dtype": dtype, "threads": 1}
    info["ns_per_logit"] = significant(contest.median(name) / (rows * vocabulary) * 1e9)
    record(contest, name, f"draw {shape} {dtype}, {level}", **info)


def run(rows: Rows, who: tuple[str, ...], clock: Clock, effort: Effort) -> Contest:
    """Measure some competitors on these logits and let go of the tensors."""
    if rows.bytes > 1 << 24 and len(who) > len(ALONE):  # a round takes many seconds
        effort = replace(effort, seconds=0.0, min_rounds=3 if effort.min_rounds > 4 else 2)
    elif len(who) <= len(ALONE):
        effort = replace(effort, seconds=effort.seconds / 5)
    contest = measure(list(competitors(rows, who)), clock, effort)
    contest.competitors = {name: c.without_call() for name, c in contest.competitors.items()}
    gc.collect()
    if rows.device.type == "cuda":
        torch.cuda.empty_cache()
    return contest


def case(shape: str, dtype: str, kind: str, count: int | str) -> dict[str, Any]:
    """What the report sorts by."""
    return {"job": "draw", "shape": f"{shape} {kind}", "dtype": dtype, "threads": count}


def judged(contest: Contest, name: str, rows: Rows) -> dict[str, Any]:
    """What the figures of a competitor mean beside the others'."""
    if name not in contest.samples:
        return {}
    logits = rows.rows * rows.vocabulary
    quartiles = statistics.quantiles(contest.ratios(name, BLOCK16), n=4)
    info: dict[str, Any] = {
        "ns_per_logit": significant(contest.median(name) / logits * 1e9),
        "gb_per_s": significant(contest.bandwidth(name) * 1e-9),
        "times_block16": significant(quartiles[1]),
        "times_block16_quartiles": [significant(q) for q in quartiles[::2]],
        "times_reading": significant(statistics.median(contest.ratios(name, READING))),
    }
    if name in NOTES:
        info["note"] = NOTES[name]
    return info


def extra_memory(contests: dict[Any, Any], dtype: str, name: str) -> dict[str, float]:
    """MiB that one call adds, from a process of its own."""
    key = ("memory", dtype)
    if key not in contests:
        contests[key] = child("memory", dtype)
    return {"extra_mib": significant(contests[key][name])} if name in contests[key] else {}
