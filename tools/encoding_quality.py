#!/usr/bin/env python3
"""Fit fields on simplices and on cubes to the same functions, and compare their PSNR.

    OMP_NUM_THREADS=1 python tools/encoding_quality.py            # an hour or so on a core; Ctrl-C and go on
    python tools/encoding_quality.py --report                     # the tables of what is there

Every run is written to the results at once and never repeated, seed after seed, so that an interrupted study
is a study of fewer seeds. Runs of a seed share initial networks and points, so differences are paired.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fastdiff_ops.encoding.fit_image import procedural_colours, psnr
from fastdiff_ops.encoding.fitting import LATTICES, Clock, new_field, train
from torch import Tensor
from tqdm import tqdm

RESULTS = Path(__file__).parent.parent / "bench" / "results" / "encoding_quality.json"
BATCH, TEST_POINTS, TEST_SEED = 4096, 30000, 1 << 20
CUBIC = "cubic"
# Arm: lattice, resolution mode, and whose number of entries it may not exceed.
ARMS: dict[str, tuple[str, str | None, str | None]] = {
    CUBIC: ("grid", None, None),
    "axis": ("simplex", "axis", None),
    "density": ("simplex", "density", None),
    "axis, equal parameters": ("simplex", "axis", CUBIC),
    "density, equal parameters": ("simplex", "density", CUBIC),
    "cubic, growth of axis": ("grid", None, "axis, equal parameters"),
}


def picture(points: Tensor) -> Tensor:
    """Zone plate, checker, disc and texture: a window of the picture that `fit-image` draws."""
    return procedural_colours(0.2 + 0.75 * points)


def volume(points: Tensor) -> Tensor:
    """Shells, a soft torus and a wave."""
    p = 0.25 + 0.5 * points
    shells = 0.5 + 0.5 * torch.sin(50 * (p - torch.tensor([0.4, 0.45, 0.5])).norm(dim=1))
    x, y, z = p.unbind(1)
    torus = 0.5 + 0.5 * torch.tanh(25 * (torch.hypot(torch.hypot(x - 0.5, y - 0.5) - 0.28, z - 0.5) - 0.12))
    wave = 0.5 + 0.5 * torch.sin(14 * x + 4 * torch.sin(9 * y)) * torch.cos(11 * z + 5 * x * y)
    return torch.stack([shells, torus, wave], -1)


def moving_volume(points: Tensor) -> Tensor:
    """A ball on a path, moving shells, and a wave; the last coordinate is time."""
    x, y, z, t = (0.15 + 0.7 * points).unbind(1)
    turn = 2 * math.pi * t
    path = torch.stack([0.5 + 0.25 * turn.cos(), 0.5 + 0.25 * turn.sin(), 0.3 + 0.4 * t], -1)
    place = torch.stack([x, y, z], -1)
    ball = 0.5 + 0.5 * torch.tanh(18 * ((place - path).norm(dim=1) - 0.2))
    shells = 0.5 + 0.5 * torch.sin(22 * (place - 0.5).norm(dim=1) - 9 * t)
    wave = 0.5 + 0.5 * torch.sin(9 * x + 6 * t) * torch.cos(8 * y - 5 * z * t)
    return torch.stack([ball, shells, wave], -1)


@dataclass(frozen=True)
class Task:
    """A function of the unit cube, the keys that its encodings share, and the tables that they get."""

    name: str
    function: Callable[[Tensor], Tensor]
    steps: int
    n_levels: int
    base_resolution: int
    per_level_scale: float
    tables: tuple[int, ...]


TASKS = {
    2: Task("image", picture, 400, 8, 8, 1.5, (10, 12, 14)),
    3: Task("volume", volume, 300, 6, 4, 1.6, (12, 14, 16)),
    4: Task("moving volume", moving_volume, 200, 5, 3, 1.5, (12, 14, 16)),
}


def options_of(n: int, log2_table: int, arm: str) -> dict[str, Any]:
    """Return the arguments of an arm's encoding; at equal parameters the levels grow more slowly."""
    _, mode, limit = ARMS[arm]
    task = TASKS[n]
    options: dict[str, Any] = {
        "n_levels": task.n_levels,
        "base_resolution": task.base_resolution,
        "log2_hashmap_size": log2_table,
        "per_level_scale": task.per_level_scale,
    }
    if mode is not None:
        options["resolution_mode"] = mode
    if limit == CUBIC:
        most = entries(n, CUBIC, options_of(n, log2_table, CUBIC))
        low, high = 1.0, task.per_level_scale
        for _ in range(12):
            middle = round((low + high) / 2, 4)
            fits = entries(n, arm, options | {"per_level_scale": middle}) <= most
            low, high = (middle, high) if fits else (low, middle)
        options["per_level_scale"] = low
    elif limit is not None:
        options["per_level_scale"] = options_of(n, log2_table, limit)["per_level_scale"]
    return options


def entries(n: int, arm: str, options: dict[str, Any]) -> int:
    """Return how many entries the encoding has."""
    return int(LATTICES[ARMS[arm][0]](n, device="meta", **options).levels.n_entries)


def fit(n: int, log2_table: int, arm: str, seed: int, rate: float, steps: int) -> dict[str, Any]:
    """Train a field and return what is kept of the run."""
    task, options = TASKS[n], options_of(n, log2_table, arm)
    started = time.process_time()
    field = new_field(ARMS[arm][0], n, 3, seed=seed, width=32, n_hidden=2, **options)
    generator = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        x = torch.rand(BATCH, n, generator=generator)
        found: Tensor = field(x)
        return (found - task.function(x)).square().mean()

    def after_step(step: int, last: bool, clock: Clock) -> None:
        pass

    train(field, loss, after_step, steps=steps, seconds=None, learning_rate=rate)
    x = torch.rand(TEST_POINTS, n, generator=torch.Generator().manual_seed(TEST_SEED))
    with torch.no_grad():
        quality = psnr(field(x).clamp(0, 1), task.function(x))
    return {
        "n": n,
        "log2_table": log2_table,
        "arm": arm,
        "seed": seed,
        "rate": rate,
        "steps": steps,
        "psnr": round(quality, 3),
        "parameters": field.encoding.table.numel(),
        "growth": options["per_level_scale"],
        "cpu_s": round(time.process_time() - started, 2),
    }


def key(run: dict[str, Any]) -> tuple[Any, ...]:
    """What makes two runs the same."""
    return tuple(run[name] for name in ("n", "log2_table", "arm", "seed", "rate", "steps"))


def read(path: Path) -> list[dict[str, Any]]:
    """Return the runs in a file, none if there is no file."""
    return list(json.loads(path.read_text())["runs"]) if path.exists() else []


def write(path: Path, runs: list[dict[str, Any]]) -> None:
    """Replace the file, a run a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
    lines = ",\n".join(json.dumps(run, separators=(",", ":")) for run in runs)
    part = path.with_suffix(".part")
    part.write_text(f'{{"machine": {json.dumps(machine)},\n"runs": [\n{lines}\n]}}\n')
    os.replace(part, path)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error."""
    t = torch.tensor(values, dtype=torch.float64)
    return float(t.mean()), float(t.std() / math.sqrt(len(t))) if len(t) > 1 else math.nan


def report(runs: list[dict[str, Any]]) -> str:
    """Return a table for each learning rate and length of training."""
    settings = sorted({(run["rate"], run["steps"] / TASKS[run["n"]].steps) for run in runs})
    parts = []
    for rate, share in settings:
        some = [run for run in runs if (run["rate"], run["steps"] / TASKS[run["n"]].steps) == (rate, share)]
        title = f"Learning rate {rate:g}" + (f", {share:g} of the steps" if share != 1 else "")
        parts.append(f"{title}:\n\n{table_of(some)}\n")
    return "\n".join(parts)


def table_of(runs: list[dict[str, Any]]) -> str:
    """Return the PSNR of the cubic grid and what others have more, in dB, over the seeds that both ran.

    In brackets: thousands of parameters, and the growth of the resolution where it is not the task's.
    """
    found = {key(run): run for run in runs}
    lines = ["| n | entries | seeds | " + " | ".join(ARMS) + " |", "|---" * (3 + len(ARMS)) + "|"]
    for n, table in sorted({(run["n"], run["log2_table"]) for run in runs}):
        cells = []
        for arm in ARMS:
            mine = [run for run in runs if (run["n"], run["log2_table"], run["arm"]) == (n, table, arm)]
            pairs = [
                (run, found[key(run | {"arm": CUBIC})]) for run in mine if key(run | {"arm": CUBIC}) in found
            ]
            if not pairs:
                cells.append("")
                continue
            gain = [run["psnr"] - (0 if arm == CUBIC else peer["psnr"]) for run, peer in pairs]
            middle, error = mean_and_error(gain)
            size, growth = pairs[0][0]["parameters"] / 1000, pairs[0][0]["growth"]
            about = f"{size:.1f}" + (f", {growth:.2f}" if growth != TASKS[n].per_level_scale else "")
            spread = f" ± {error:.2f}" if len(gain) > 1 else ""
            cells.append(f"{middle:{'' if arm == CUBIC else '+'}.2f}{spread} ({about})")
        seeds = len({run["seed"] for run in runs if (run["n"], run["log2_table"]) == (n, table)})
        lines.append(f"| {n} | 2^{table} | {seeds} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file that grows")
    parser.add_argument("--report", action="store_true", help="only print the tables")
    parser.add_argument("--dimensions", type=int, nargs="+", choices=TASKS, default=list(TASKS), metavar="N")
    parser.add_argument(
        "--log2-tables", type=int, nargs="+", metavar="T", help="other tables, for every task"
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM")
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=2e-2)
    parser.add_argument("--steps", type=float, default=1.0, help="as a multiple of the task's own number")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Run what is missing, and print the tables."""
    args = arguments(given)
    runs = read(args.results)
    done = {key(run) for run in runs}
    wanted = [
        (n, table, arm, seed, args.learning_rate, max(1, round(TASKS[n].steps * args.steps)))
        for seed in range(args.first_seed, args.first_seed + args.seeds)
        for n in args.dimensions
        for table in args.log2_tables or TASKS[n].tables
        for arm in args.arms
    ]
    missing = [] if args.report else [run for run in wanted if run not in done]
    try:
        for run in tqdm(missing, desc="fits", unit="fit", disable=not sys.stderr.isatty()):
            runs.append(fit(*run))
            write(args.results, runs)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
    print(report(runs))


if __name__ == "__main__":
    main()
