"""Runs everything that needs a GPU: tests, compute-sanitizer on small shapes, benchmarks.

    python tools/gpu_check.py     # writes build/gpu-check/report.txt and report.json; under 8 minutes

Exit code: 0 all good, 1 something failed, 2 no CUDA device, or a package without CUDA kernels.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent.resolve()
OUT = ROOT / "build" / "gpu-check"
BUDGET = 460.0  # seconds for all stages together
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
SANITIZER_FAILED = 86  # an exit code that pytest does not use
# How many times as long as reading the logits a draw may take, by shape: the kernels are bound by memory.
DRAW_AIMS = {"1024x126464": 1.4}


class Stage(NamedTuple):
    """One row of the report; `status` is passed, failed or skipped."""

    name: str
    status: str
    seconds: float
    detail: str


def junit_counts(path: Path) -> dict[str, int]:
    """Return how many tests ran, failed (errors included) and were skipped, from pytest's report."""
    suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    total = {
        key: sum(int(s.get(key, 0)) for s in suites) for key in ("tests", "failures", "errors", "skipped")
    }
    return {
        "run": total["tests"] - total["skipped"],
        "failed": total["failures"] + total["errors"],
        "skipped": total["skipped"],
    }


def run_pytest(name: str, prefix: Sequence[str], arguments: Sequence[str], limit: float) -> Stage:
    """Run pytest, possibly under another program, and judge it by its report: no test run is a failure."""
    report, log = OUT / f"{name}.xml", OUT / f"{name}.log"
    report.unlink(missing_ok=True)
    command = [
        *prefix,
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        *arguments,
    ]
    # without torch's caching every overrun of a tensor leaves its allocation
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} if prefix else dict(os.environ)
    start = time.monotonic()
    with log.open("w") as out:
        try:
            code = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=max(limit, 1.0),
            ).returncode
        except subprocess.TimeoutExpired:
            return Stage(name, "failed", time.monotonic() - start, f"stopped after {limit:.0f} s, see {log}")
    seconds = time.monotonic() - start
    if not report.exists():
        return Stage(name, "failed", seconds, f"exit code {code} without a report, see {log}")
    counts = junit_counts(report)
    detail = f"{counts['run']} run, {counts['failed']} failed, {counts['skipped']} skipped"
    if prefix and code == SANITIZER_FAILED:
        detail += f"; errors reported, see {log}"
    elif code != 0:
        detail += f"; exit code {code}, see {log}"
    return Stage(name, "passed" if code == 0 and counts["run"] > 0 else "failed", seconds, detail)


def sanitize(tool: str, limit: float) -> Stage:
    """Run the small-shape tests of the CUDA kernels under one of compute-sanitizer's tools."""
    exe = shutil.which("compute-sanitizer")
    if exe is None:
        return Stage(tool, "skipped", 0.0, "compute-sanitizer is not on PATH (part of the CUDA toolkit)")
    # only this library's kernels, all of which are in namespace fd, are instrumented
    prefix = [exe, "--tool", tool, "--kernel-regex", "kns=2fd", "--target-processes", "all"]
    prefix += ["--error-exitcode", str(SANITIZER_FAILED)]
    return run_pytest(tool, prefix, ["-q", "-m", "gpu and emulated", "tests"], limit)


def benchmark(limit: float) -> tuple[Stage, list[dict[str, Any]]]:
    """Run the benchmarks that use the GPU; return the stage and one dictionary a benchmark."""
    results = OUT / "bench_results.json"
    results.unlink(missing_ok=True)
    arguments = ["-q", "-m", "gpu", "--quick", f"--benchmark-json={results}", "bench"]
    stage = run_pytest("bench", [], arguments, limit)
    if not results.exists() or results.stat().st_size == 0:
        return stage, []
    return stage, [
        {"name": b["name"], "median_us": 1e6 * b["stats"]["median"], **b["extra_info"]}
        for b in json.loads(results.read_text())["benchmarks"]
    ]


def judge_draws(results: list[dict[str, Any]]) -> list[str]:
    """Return a line for each benchmark of a draw that has an aim; nothing fails by it."""
    lines = []
    for r in results:
        shape, _, kind = str(r.get("shape", "")).partition(" ")
        if r.get("competitor") == "block16" and r.get("job") == "draw" and shape in DRAW_AIMS:
            times, aim = r["times_reading"], DRAW_AIMS[shape]
            verdict = "reached" if times <= aim else "missed"
            lines.append(f"draw {shape} {r['dtype']} {kind}: {times} x reading, aim {aim}: {verdict}")
    return lines


def table(stages: list[Stage], results: list[dict[str, Any]]) -> str:
    """Lay the report out as text."""
    lines = [f"{'stage':<12} {'status':<8} {'seconds':>8}  detail"]
    lines += [f"{s.name:<12} {s.status:<8} {s.seconds:8.1f}  {s.detail}" for s in stages]
    if results:
        width = max(len(r["name"]) for r in results)
        lines += ["", f"{'benchmark':<{width}} {'median us':>12}  more"]
    for r in results:
        more = ", ".join(f"{key} {value}" for key, value in r.items() if key not in ("name", "median_us"))
        lines.append(f"{r['name']:<{width}} {r['median_us']:12.2f}  {more}")
    return "\n".join([*lines, "", *judge_draws(results)]).rstrip() + "\n"


def obstacle(found: dict[str, Any]) -> str | None:
    """Return why nothing here can be checked, or None."""
    if not found["build"]["built"]:
        return str(found["build"]["reason"])
    if not found["build"]["cuda_archs"]:
        return "the package has no CUDA kernels: put nvcc on PATH, then FASTDIFF_OPS_CUDA=1 make build"
    if found["torch"]["cuda"] is None:
        return (
            f"torch {found['torch']['version']} is a CPU build: name one with CUDA, make gpu-check TORCH=..."
        )
    if not found["gpus"]:
        return "torch sees no CUDA device: is there a GPU and its driver (nvidia-smi)?"
    return None


def main() -> int:
    from fastdiff_ops.show_versions import show_versions, versions

    found = versions()
    reason = obstacle(found)
    if reason:
        print(f"gpu-check: nothing was checked. {reason}")
        return 2
    OUT.mkdir(parents=True, exist_ok=True)
    show_versions()
    end = time.monotonic() + BUDGET
    stages: list[Stage] = []

    def add(stage: Stage) -> None:
        stages.append(stage)
        print(f"{stage.name}: {stage.status} in {stage.seconds:.0f} s, {stage.detail}", flush=True)

    add(run_pytest("tests", [], ["-q", "-m", "gpu", "tests"], min(150.0, end - time.monotonic())))
    for tool in TOOLS:
        add(sanitize(tool, min(60.0, end - time.monotonic())))
    stage, results = benchmark(end - time.monotonic())
    add(stage)
    text = table(stages, results)
    (OUT / "report.txt").write_text(text)
    report = {"versions": found, "stages": [s._asdict() for s in stages], "benchmarks": results}
    (OUT / "report.json").write_text(json.dumps(report, indent=1))
    print(f"\n{text}\nwritten to {OUT}/report.txt and report.json")
    return int(any(s.status == "failed" for s in stages))


if __name__ == "__main__":
    sys.exit(main())
