"""One fused DPM-Solver++(2M) update against everybody else's."""

from __future__ import annotations

import gc
import statistics
from typing import Any

import pytest
import torch

from .conftest import Record, all_threads, threads
from .interleave import THREAD_CPU, WALL, Clock, Contest, CudaClock, Effort, measure
from .update import COPY, FUSED, FUSED_SDE, MEMCPY, Case, Update

SHAPES = {
    "4": (1, 4),
    "1x4x64x64": (1, 4, 64, 64),
    "1x4x128x128": (1, 4, 128, 128),
    "8x4x128x128": (8, 4, 128, 128),
    "64x3x256x256": (64, 3, 256, 256),
}
CUDA_SHAPES = {"2^18": (4, 4, 128, 128), "2^26": (64, 16, 256, 256), "2^27": (128, 16, 256, 256)}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
MANY = 1 << 14  # elements, of which the cost of one can be told
COMPETITORS = (
    FUSED,
    "fused, checked",
    "fused, float32 history",
    "eager",
    "eager, given outputs",
    "torch.compile",
    "torch.compile, given outputs",
    "diffusers",
    "k-diffusion",
    "bare loop",
    "bare loop, streaming",
    COPY,
    MEMCPY,
    FUSED_SDE,
    "diffusers SDE",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    quick = metafunc.config.getoption("--quick")
    cuda = metafunc.function is test_update_cuda
    if cuda:
        shapes = ["2^18", "2^26"] if quick else list(CUDA_SHAPES)
    else:
        shapes = ["4", "1x4x64x64", "8x4x128x128", "64x3x256x256"] if quick else list(SHAPES)
        metafunc.parametrize("n_threads", sorted({1, all_threads()}), ids=lambda n: f"{n}t")
    metafunc.parametrize("shape", shapes)
    metafunc.parametrize("dtype", ["float32", "bfloat16"] if quick else list(DTYPES))
    metafunc.parametrize("competitor", COMPETITORS)


def test_update(
    record: Record,
    contests: dict[Any, Contest],
    effort: Effort,
    n_threads: int,
    shape: str,
    dtype: str,
    competitor: str,
) -> None:
    """On the CPU."""
    key = ("update", n_threads, shape, dtype)
    case = Case(SHAPES[shape], DTYPES[dtype], torch.device("cpu"))
    if key not in contests:
        with threads(n_threads):
            contests[key] = run(case, THREAD_CPU if n_threads == 1 else WALL, effort)
    group = f"update {list(case.shape)} {dtype}, threads: {n_threads}"
    info = {"job": "update", "shape": shape, "dtype": dtype, "threads": n_threads}
    record(contests[key], competitor, group, **info, **judged(contests[key], competitor, case))


@pytest.mark.gpu
def test_update_cuda(
    record: Record, contests: dict[Any, Contest], effort: Effort, shape: str, dtype: str, competitor: str
) -> None:
    """On a GPU: fused steps and copies replayed from CUDA graphs."""
    key = ("update", "cuda", shape, dtype)
    case = Case(CUDA_SHAPES[shape], DTYPES[dtype], torch.device("cuda"))
    if key not in contests:
        with threads(torch.get_num_threads()):
            contests[key] = run(case, CudaClock(), effort)
    info = {"job": "update", "shape": shape, "dtype": dtype, "threads": "cuda"}
    record(
        contests[key],
        competitor,
        f"update {shape} elements {dtype}, CUDA",
        **info,
        **judged(contests[key], competitor, case),
    )


def run(case: Case, clock: Clock, effort: Effort) -> Contest:
    """Measure all competitors on one case and let go of their tensors."""
    contest = measure(list(Update(case).competitors()), clock, effort)
    contest.competitors = {name: c.without_call() for name, c in contest.competitors.items()}
    gc.collect()
    if case.device.type == "cuda":
        torch.cuda.empty_cache()
    return contest


def judged(contest: Contest, name: str, case: Case) -> dict[str, Any]:
    """What the figures of a competitor mean beside the others'."""
    if name not in contest.samples:
        return {}
    moved = contest.competitors[name].bytes_moved
    info: dict[str, Any] = {"bytes": moved, "gb_per_s": significant(contest.bandwidth(name) * 1e-9)}
    for copy, label in ((COPY, "of_copy_"), (MEMCPY, "of_memcpy")):
        if copy in contest.samples:
            info[label] = significant(contest.bandwidth(name) / contest.bandwidth(copy))
    quartiles = statistics.quantiles(contest.ratios(name, FUSED), n=4)
    info["times_fused"] = significant(quartiles[1])
    info["times_fused_quartiles"] = [significant(q) for q in quartiles[::2]]
    if name == FUSED_SDE and case.numel >= MANY:
        pairs = zip(contest.samples[FUSED_SDE], contest.samples[FUSED], strict=True)
        info["ns_per_normal"] = significant(statistics.median(a - b for a, b in pairs) / case.numel * 1e9)
    if contest.competitors[name].note:
        info["note"] = contest.competitors[name].note
    return info


def significant(value: float) -> float:
    """Three digits: the fourth is noise."""
    return float(f"{value:.3g}")
