"""Measurements of draws that need a process of their own: other SIMD levels, and memory.

Both print JSON:

python -m bench.draw_child simd bfloat16 0.5    # seconds per draw in each round, and a checksum of the tokens
python -m bench.draw_child memory bfloat16      # MiB that a draw adds to the resident memory
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .draws import BLOCK16, ELEMENT, OURS, PEERS, Rows, ours
from .interleave import THREAD_CPU, Competitor, Effort, measure

ROOT = Path(__file__).parent.parent
SIMD_ROWS = (64, 50257)
MEMORY_ROWS = (256, 126464)


def child(*arguments: str, **environment: str) -> Any:
    """What this module prints, run in a process with these variables."""
    command = [sys.executable, "-m", "bench.draw_child", *arguments]
    variables = {**os.environ, **environment}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def simd(dtype: torch.dtype, seconds: float) -> dict[str, Any]:
    """Both streams at this process's SIMD level."""
    rows = Rows(*SIMD_ROWS, dtype, "LLM-like")
    logits = rows.logits()
    calls = {name: ours(name, logits) for name in (BLOCK16, ELEMENT)}
    checksum = {name: [int(call().sum()) for _ in range(8)] for name, call in calls.items()}
    contest = measure(
        [Competitor(name, call) for name, call in calls.items()], THREAD_CPU, Effort(seconds, 3, 100)
    )
    return {"samples": contest.samples, "checksum": checksum}


def memory(dtype: torch.dtype) -> dict[str, float]:
    """How far the resident memory rises during one draw from all rows."""
    logits = Rows(*MEMORY_ROWS, dtype, "flat").logits()
    result = {}
    for name in (*OURS, *PEERS):
        if name.endswith("all noise"):
            continue
        sampler: Callable[[torch.Tensor], object]
        sampler = PEERS.get(name) or partial(draw_once, name)
        sampler(logits[:1])  # what is set up once is not counted
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        before = _status("VmRSS")
        sampler(logits)
        result[name] = (_status("VmHWM") - before) / 1024
    return result


def draw_once(name: str, logits: torch.Tensor) -> None:
    """Ours, with fresh noise."""
    ours(name, logits)()


def _status(key: str) -> int:
    """KiB of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def main() -> None:
    """Measure and print."""
    job, dtype = sys.argv[1], getattr(torch, sys.argv[2])
    torch.set_num_threads(1)
    with torch.no_grad():
        print(json.dumps(simd(dtype, float(sys.argv[3])) if job == "simd" else memory(dtype)))


if __name__ == "__main__":
    main()
