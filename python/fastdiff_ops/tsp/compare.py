"""Our searches against other solvers in the same run, at equal processor time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .peers import SOLVERS
from .text_format import check_tour
from .tours import tour_length

__all__ = ["Comparison", "Run", "compare"]

CPU, WALL = "processor time of the process", "wall time"


class Run(NamedTuple):
    """One run of a solver; times in seconds."""

    solver: str
    instance: int
    budget: float
    cpu: float
    wall: float
    length: float


class Summary(NamedTuple):
    """A solver at a budget over instances of one size; gaps in percent."""

    n: int
    solver: str
    budget: float
    cpu: float
    mean: float
    deviation: float
    worst: float
    instances: int


@dataclass
class Comparison:
    """What came out.

    Attributes
    ----------
    sizes : list of int
        Cities of each instance.
    best : list of float
        The shortest length that is known of each: gaps are against it.
    clock : str
        What budgets are seconds of.
    runs : list of Run
    left_out : dict of str to str
        Why a solver did not run.
    """

    sizes: list[int]
    best: list[float]
    clock: str
    runs: list[Run] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def summaries(self) -> list[Summary]:
        """By size and budget, solvers as given."""
        groups: dict[tuple[int, float, str], list[Run]] = {}
        for run in self.runs:
            groups.setdefault((self.sizes[run.instance], run.budget, run.solver), []).append(run)
        found = []
        for (n, budget, solver), runs in groups.items():
            gaps = np.array([self.gap(run) for run in runs])
            spread = float(gaps.std(ddof=1)) if len(gaps) > 1 else 0.0
            cpu = float(np.mean([run.cpu for run in runs]))
            found.append(Summary(n, solver, budget, cpu, gaps.mean(), spread, gaps.max(), len(runs)))
        return sorted(found, key=lambda s: (s.n, s.budget))

    def gap(self, run: Run) -> float:
        """Percent above the best known length."""
        return 100 * (run.length / self.best[run.instance] - 1)

    def table(self) -> str:
        """Markdown."""
        head = ["N", "budget, s", "solver", "CPU s", "mean gap, %", "sd", "worst", "instances"]
        rows: list[list[object]] = [
            [s.n, f"{s.budget:g}", s.solver, f"{s.cpu:.3g}", *(f"{v:.3f}" for v in s[4:7]), s.instances]
            for s in self.summaries()
        ]
        lines: list[list[object]] = [[*head], ["---"] * len(head), *rows]
        return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)

    def curves(self, n: int) -> dict[str, list[tuple[float, float]]]:
        """Mean processor seconds and mean gaps of each solver on instances of one size."""
        found: dict[str, list[tuple[float, float]]] = {}
        for s in self.summaries():
            if s.n == n:
                found.setdefault(s.solver, []).append((s.cpu, s.mean))
        return found

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self) | {"runs": [run._asdict() for run in self.runs]}


def compare(
    instances: Iterable[ArrayLike],
    budgets: Sequence[float],
    *,
    solvers: Sequence[str] | None = None,
    known: Sequence[float | None] | None = None,
    seed: int = 0,
    on_run: Callable[[Run], object] | None = None,
) -> Comparison:
    """Let solvers race, each on one thread, in a process of its own, one after another.

    A small library is compiled and preloaded into these processes; it makes every clock tell processor time,
    so all get equally much of it, however busy the machine is. Without a C compiler budgets are wall time.

    Parameters
    ----------
    instances : iterable of array_like, float [N, 2]
        Euclidean.
    budgets : sequence of float
        Seconds; each is a run of its own.
    solvers : sequence of str, optional
        Names in `peers.SOLVERS`; default all that are installed.
    known : sequence of float or None, optional
        Lengths known from elsewhere. A gap is that to the shortest of these and of all runs.
    seed : int
        Of the solvers that take one.
    on_run : callable, optional
        Called after each run.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If a solver is unknown, or there is no instance or budget.
    RuntimeError
        If a solver fails.
    """
    names = list(SOLVERS) if solvers is None else list(solvers)
    for name in names:
        if name not in SOLVERS:
            raise ValueError(f"unknown solver {name!r}; known are {', '.join(SOLVERS)}")
    coords = [np.asarray(instance, dtype=np.float64) for instance in instances]
    if not coords or len(budgets) == 0 or min(budgets) <= 0:
        raise ValueError("`instances` and `budgets` must not be empty, and budgets above zero")
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{k}.npy" for k in range(len(coords))]
        for file, points in zip(files, coords, strict=True):
            np.save(file, points)
        clock = compile_clock(Path(folder))
        found = Comparison([len(points) for points in coords], [], CPU if clock else WALL)
        for name in names:
            if not SOLVERS[name].available:
                found.left_out[name] = f"{SOLVERS[name].module} is not installed"
                continue
            fitting = [k for k, n in enumerate(found.sizes) if n <= SOLVERS[name].most_cities]
            if not fitting:
                found.left_out[name] = f"more than {SOLVERS[name].most_cities} cities"
                continue
            request = {
                "solver": name,
                "files": [files[k] for k in fitting],
                "budgets": list(budgets),
                "seed": seed,
            }
            for line in _lines(request, clock):
                k = fitting[line["instance"]]
                tour = check_tour(line["tour"], len(coords[k]))
                length = float(tour_length(coords[k], tour))
                found.runs.append(Run(name, k, line["budget"], line["cpu"], line["wall"], length))
                if on_run is not None:
                    on_run(found.runs[-1])
    for k in range(len(coords)):
        lengths = [run.length for run in found.runs if run.instance == k]
        outside = known[k] if known is not None else None
        found.best.append(min([*lengths, *([outside] if outside is not None else [])]))
    return found


def _lines(request: dict[str, Any], clock: Path | None) -> Any:
    """What the process of a solver prints, as it comes."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    if clock is not None:
        variables["LD_PRELOAD"] = " ".join(filter(None, [str(clock), os.environ.get("LD_PRELOAD")]))
    command = [sys.executable, "-m", "fastdiff_ops.tsp.race"]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables
        ) as child,
    ):
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(json.dumps(request))
            child.stdin.close()
            for line in child.stdout:
                yield json.loads(line)
            if child.wait():
                errors.seek(0)
                said = " ".join(errors.read().split())
                raise RuntimeError(f"{request['solver']} failed: {said[-500:] or child.returncode}")
        finally:
            child.kill()


def compile_clock(folder: Path) -> Path | None:
    """The preloadable clock, None where it cannot be made."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if not sys.platform.startswith("linux") or compiler is None:
        warnings.warn(
            "no C compiler: budgets are wall time, which other work on the machine shortens", stacklevel=3
        )
        return None
    source, library = Path(__file__).with_name("cpu_clock.c"), folder / "cpu_clock.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    return library
