"""Races of solvers: the clock that they get, what is counted, what is left out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastdiff_ops import tsp
from fastdiff_ops.cli import main
from fastdiff_ops.tsp import peers
from fastdiff_ops.tsp.compare import CPU, Comparison, Run, compile_clock

SLEEPER = """
import os, time, threading
def clocks():
    return os.times().elapsed, time.monotonic(), time.time(), time.perf_counter()
begin = clocks()
if {wait}:
    threading.Event().wait(0.3)
else:
    time.sleep(0.3)
print(*(b - a for a, b in zip(begin, clocks())))
begin = clocks()
while time.process_time() < {until}:
    pass
print(*(b - a for a, b in zip(begin, clocks())), time.process_time())
"""


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = compile_clock(tmp_path_factory.mktemp("clock"))
    if found is None:
        pytest.skip("needs Linux and a C compiler")
    return found


@pytest.mark.parametrize("wait", [False, True])
def test_clocks_tell_processor_time(clock: Path, wait: bool) -> None:
    """A sleeping process's clocks stand still, a busy one's do not; waits wait, and do not spin."""
    script = SLEEPER.format(wait=wait, until=1.0)
    environment = {**os.environ, "LD_PRELOAD": str(clock)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    asleep, busy = ([float(v) for v in line.split()] for line in done.stdout.splitlines())
    real, *told = asleep
    assert real >= 0.28
    assert max(told) < 0.1
    *told, processor = busy[1:]
    assert max(told) - min(told) < 1e-3
    assert 0 < told[0] <= processor


@pytest.mark.parametrize("solver", ["ils", "fast-tsp", "LKH", "OR-tools"])
def test_every_solver_finds_short_tours(solver: str) -> None:
    module = peers.SOLVERS[solver].module
    pytest.importorskip(module, reason=f"races against {module}")
    points = tsp.generate(60, 2)
    known = [float(tsp.solve(xy, max_iterations=20_000, seed=0).lengths) for xy in points]
    calls: list[Run] = []
    found = tsp.compare(points, [0.05, 0.2], solvers=[solver], known=known, on_run=calls.append)
    runs = 1 if peers.SOLVERS[solver].once else 2
    assert found.runs == calls
    assert len(calls) == 2 * runs
    assert [run.instance for run in calls] == [0] * runs + [1] * runs
    assert found.clock == CPU
    for run in calls:
        assert -1e-9 <= found.gap(run) < 10
        assert run.cpu > 0
    for curve in found.curves(60).values():
        assert len(curve) == runs


def test_ours_get_the_processor_time_that_was_asked_for() -> None:
    found = tsp.compare(tsp.generate(100), [0.1, 0.3], solvers=["ils"])
    for run in found.runs:
        assert run.budget <= run.cpu < run.budget + 0.1


def test_figures() -> None:
    runs = [
        Run("a", 0, 1.0, 0.9, 2.0, 11.0),
        Run("a", 1, 1.0, 1.1, 2.0, 20.0),
        Run("b", 0, 0.5, 0.5, 1, 10.0),
    ]
    found = Comparison([7, 7], [10.0, 20.0], CPU, runs)
    b, a = found.summaries()
    assert (b.solver, b.budget, b.mean, b.deviation, b.instances) == ("b", 0.5, 0.0, 0.0, 1)
    assert (a.solver, a.cpu, a.instances) == ("a", 1.0, 2)
    np.testing.assert_allclose([a.mean, a.deviation, a.worst], [5.0, np.sqrt(50), 10.0])
    assert found.table().splitlines()[-1] == "| 7 | 1 | a | 1 | 5.000 | 7.071 | 10.000 | 2 |"
    assert found.curves(7) == {"b": [(0.5, 0.0)], "a": [(1.0, pytest.approx(5.0))]}
    assert found.as_dict()["runs"][0]["solver"] == "a"


def test_gaps_are_against_the_shortest_that_is_known() -> None:
    points = tsp.generate(30)
    found = tsp.compare([points[0]] * 2, [0.05], solvers=["ils"], known=[1.0, 100.0])
    assert found.best == [1.0, found.runs[1].length]
    assert found.gap(found.runs[0]) > 100
    assert found.gap(found.runs[1]) == 0


def test_what_cannot_run_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = peers.Solver("absent", lambda coords: pytest.fail("runs"), "no_such_module")
    small = peers.Solver("small", lambda coords: pytest.fail("runs"), most_cities=10)
    monkeypatch.setattr(peers, "SOLVERS", peers.SOLVERS)
    monkeypatch.setitem(peers.SOLVERS, "absent", absent)
    monkeypatch.setitem(peers.SOLVERS, "small", small)
    found = tsp.compare(tsp.generate(11), [0.01], solvers=["absent", "small"], known=[1.0])
    assert found.left_out == {
        "absent": "no_such_module is not installed",
        "small": "more than 10 cities",
    }
    assert found.runs == []


def test_a_failing_solver_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"ils failed: .*finite"):
        tsp.compare([np.full((12, 2), np.nan)], [0.01], solvers=["ils"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solvers": ["oracle"]}, "'oracle'; known are ils"),
        ({"budgets": []}, "must not be empty"),
        ({"budgets": [0.0]}, "above zero"),
        ({"instances": []}, "must not be empty"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tsp.compare(**{"instances": tsp.generate(5), "budgets": [0.01], **arguments})


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="draws a picture")
    monkeypatch.chdir(tmp_path)
    arguments = ["--n", "20", "30", "--count", "2", "--time", "0.02", "--solvers", "ils"]
    assert main(["tsp", "compare", *arguments]) == 0
    out = capsys.readouterr().out
    assert [line.split(" | ")[:3] for line in out.splitlines()[2:4]] == [
        ["| 20", "0.02", "ils"],
        ["| 30", "0.02", "ils"],
    ]
    written = {path.name for path in Path("tsp-compare").iterdir()}
    assert written == {"compare.json", "compare.md", "gap-20.png", "gap-30.png"}
