"""``fastdiff-ops tsp solve``: instances of a file to tours, a report, pictures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastdiff_ops.cli import UsageError

from .files import Problem, load_heatmap, read_problems
from .result import History
from .solve import solve
from .text_format import TextInstance, write_text
from .tsplib import write_tour

__all__ = ["run_solve"]


@dataclass(frozen=True)
class Solution:
    """What came out for one instance."""

    problem: Problem
    tour: NDArray[np.int64]
    length: float
    target: float | None
    seconds: float
    iterations: int
    lower_bound: float
    stopped_by: str
    history: History

    @property
    def gap(self) -> float | None:
        """Percent above the optimum, as far as that is known."""
        return None if not self.target else 100 * (self.length / self.target - 1)

    def line(self) -> str:
        """One line for people."""
        instance = self.problem.instance
        parts = [f"{instance.name}: {instance.dimension} cities, length {self.length:.10g}"]
        if self.gap is not None:
            parts.append(f"{self.gap:.3f} % above {self.target:.10g}")
        elif self.problem.tour is not None:
            given = instance.tour_length(self.problem.tour)
            parts.append(f"{100 * (self.length / given - 1):+.3f} % of the file's tour")
        parts.append(f"{self.seconds:.2f} s, {self.iterations} iterations")
        return ", ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The same for programs, the tour apart."""
        instance = self.problem.instance
        return {
            "name": instance.name,
            "cities": instance.dimension,
            "length": self.length,
            "optimum": self.target,
            "gap_percent": self.gap,
            "lower_bound": None if np.isnan(self.lower_bound) else self.lower_bound,
            "seconds": self.seconds,
            "iterations": self.iterations,
            "stopped_by": self.stopped_by,
        }


def run_solve(args: argparse.Namespace) -> None:
    """Solve, and write what there is even after an interruption."""
    try:
        problems = read_problems(args.file)
        heatmap, edge_index = load_heatmap(args.heatmap) if args.heatmap else (None, None)
        config = _config(args)
        device = _device(args.device)
    except (ValueError, TypeError, OSError, NotImplementedError) as error:
        raise UsageError(f"{error}") from error
    _check(args, problems)
    solutions: list[Solution] = []
    interrupted = False
    cities = sum(problem.instance.dimension for problem in problems)
    for group in _groups(problems):
        share = sum(problem.instance.dimension for problem in group) / cities
        limits = {"time_limit": args.time and args.time * share, "max_iterations": args.iterations}
        try:
            found = _solve(group, heatmap, edge_index, config, device, limits, args)
        except (ValueError, TypeError) as error:  # the files contradict each other, or the options do
            raise UsageError(f"{error}") from error
        solutions += found
        interrupted = found[0].stopped_by == "interrupt"
        if interrupted:
            break
    _write(args, solutions)
    if interrupted:
        raise KeyboardInterrupt


def _solve(
    group: list[Problem],
    heatmap: Any,
    edge_index: Any,
    config: Any,
    device: torch.device,
    limits: dict[str, Any],
    args: argparse.Namespace,
) -> list[Solution]:
    """Solve instances of one size and metric in one call."""
    arguments = [problem.arguments() for problem in group]
    merged = dict(arguments[0])
    if len(group) > 1:  # of the text format, which knows coordinates only
        merged["coords"] = np.stack([found["coords"] for found in arguments])
    for key in ("coords", "dist"):
        if merged.get(key) is not None:
            merged[key] = torch.from_numpy(np.ascontiguousarray(merged[key])).to(device)
    targets = [_target(args.opt, problem) for problem in group]
    known = [target for target in targets if target is not None]
    if len(known) == len(group):
        merged |= {"bound": known if len(group) > 1 else known[0], "stop_gap": 0.0}
    result = solve(
        heatmap=heatmap,
        edge_index=edge_index,
        method=args.method,
        seed=args.seed,
        threads=args.threads,
        trajectories=args.trajectories,
        config=config,
        progress=sys.stderr.isatty(),
        return_history=args.curve is not None,
        **merged,
        **limits,
    )
    stats = result.stats
    tours = result.tours.reshape(len(group), -1).cpu().numpy()
    lengths = result.lengths.reshape(-1).tolist()
    histories: Any = stats.history if len(group) > 1 else [stats.history]
    return [
        Solution(
            problem,
            tours[b],
            lengths[b],
            targets[b],
            stats.seconds,
            int(stats.iterations[b]),
            float("nan") if targets[b] is not None else float(stats.lower_bound[b]),
            stats.stopped_by,
            histories[b] if histories else [],
        )
        for b, problem in enumerate(group)
    ]


def _write(args: argparse.Namespace, solutions: list[Solution]) -> None:
    """Files, pictures, and the report."""
    from .pictures import draw_curves, draw_tour

    if args.out is not None and _is_text(args.out):
        lines: Iterator[Any] = (TextInstance(_coords(s.problem), s.tour) for s in solutions)
        write_text(args.out, lines)
    elif args.out is not None:
        first = solutions[0]
        write_tour(args.out, first.tour, name=first.problem.instance.name, length=first.length)
    if args.plot is not None:
        first = solutions[0]
        draw_tour(args.plot, first.problem.points, first.tour, title=first.line())  # type: ignore[arg-type]
    if args.curve is not None:
        curves = {s.problem.instance.name: [*s.history, (s.seconds, s.length)] for s in solutions}
        draw_curves(args.curve, curves, ylabel="length of the best tour", title=f"method {args.method}")
    if args.json:
        with_tours = args.out is None
        print(
            json.dumps([s.as_dict() | ({"tour": s.tour.tolist()} if with_tours else {}) for s in solutions])
        )
        return
    for solution in solutions:
        print(solution.line())
    if len(solutions) > 1:
        gaps = [s.gap for s in solutions if s.gap is not None]
        mean = f"mean of {len(solutions)}: length {np.mean([s.length for s in solutions]):.10g}"
        print(mean + (f", {np.mean(gaps):.3f} % above" if gaps else ""))
    for path in (args.out, args.plot, args.curve):
        if path is not None:
            print(f"wrote {path}")


def _check(args: argparse.Namespace, problems: list[Problem]) -> None:
    """Refuse before the search what could not be written after it."""
    if args.out is not None:
        if _is_text(args.out):
            if any(problem.instance.coords is None for problem in problems):
                raise UsageError(
                    f"--out {args.out}: the text format holds coordinates, which the file has not"
                )
        elif len(problems) > 1:
            raise UsageError(f"--out {args.out}: {len(problems)} tours need a .txt file")
    if args.plot is not None:
        if len(problems) > 1:
            raise UsageError(f"--plot draws one instance, the file has {len(problems)}")
        if problems[0].points is None:
            raise UsageError("--plot: the file does not say where the cities are")
    if len(problems) > 1 and args.opt != "auto":
        raise UsageError(f"--opt {args.opt:g} is for one instance, the file has {len(problems)}")
    if args.plot is not None or args.curve is not None:
        from fastdiff_ops._environment import require_matplotlib

        require_matplotlib()
    for path in (args.out, args.plot, args.curve):
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"{path}: there is no such folder")


def _groups(problems: list[Problem]) -> Iterator[list[Problem]]:
    """Instances in a row that one call can solve."""
    for _, group in groupby(problems, lambda problem: problem.instance.dimension):
        yield list(group)


def _target(opt: str | float, problem: Problem) -> float | None:
    return problem.instance.optimum if opt == "auto" else float(opt)


def _config(args: argparse.Namespace) -> Any:
    if args.config is None:
        return None
    from .tune import config_kind

    settings = json.loads(args.config.read_text(encoding="utf-8"))
    if not isinstance(settings, dict):
        raise ValueError(f"{args.config}: expected an object of settings")
    return config_kind(args.method)(**settings)


def _device(name: str) -> torch.device:
    from fastdiff_ops._environment import pick_device

    return pick_device(name)


def _coords(problem: Problem) -> NDArray[np.float64]:
    assert problem.instance.coords is not None
    return problem.instance.coords


def _is_text(path: Path) -> bool:
    return path.suffix == ".txt"
