"""Ctrl-C returns what has been found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
    import json, sys, time
    import numpy as np
    from fastdiff_ops import tsp
    def ready(stats):
        print("searching", flush=True)
    def report(result):
        print(json.dumps({
            "interrupted": result.stats.interrupted,
            "tours": bool(tsp.is_tour(result.tours).all()),
            "iterations": result.stats.iterations.tolist(),
            "lengths": result.lengths.reshape(-1).tolist(),
        }), flush=True)
"""


def interrupted(program: str) -> dict:
    """Run a program, send SIGINT once it says that it is searching, and read its report."""
    code = textwrap.dedent(PRELUDE) + textwrap.dedent(program)

    def listen() -> None:  # a test run in the background of a shell inherits deafness to SIGINT
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ, preexec_fn=listen
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip() == "searching"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("threads", [1, 2])
def test_the_best_tour_comes_back(threads) -> None:
    result = interrupted(f"""
        coords = np.random.default_rng(0).random((200, 2))
        report(tsp.solve(coords, time_limit=1000, callback=ready, trajectories=2, threads={threads}))
    """)
    assert result["interrupted"] and result["tours"] and result["iterations"][0] > 0
    assert result["lengths"][0] < 11.5


def test_instances_without_a_tour_get_a_rough_one() -> None:
    result = interrupted("""
        coords = np.random.default_rng(0).random((8, 500, 2))
        report(tsp.solve(coords, time_limit=1000, callback=ready, threads=1))
    """)
    assert result["interrupted"] and result["tours"]
    assert result["iterations"][0] > 0 and result["iterations"][-1] == 0
    assert result["lengths"][0] < 17.5 and 17 < result["lengths"][-1] < 26


def test_a_problem_being_built_is_left_alone() -> None:
    """Neighbours of many cities take longer than anybody wants to wait after Ctrl-C."""
    result = interrupted("""
        import os
        from fastdiff_ops import _host
        def TourProblem(**options):
            ready(None)
            time.sleep(1000)
        _host.TourProblem = TourProblem
        report(tsp.solve(np.random.default_rng(0).random((500, 2)), time_limit=1000))
        os._exit(0)
    """)
    assert result["interrupted"] and result["tours"] and result["iterations"] == [0]
    assert 17 < result["lengths"][0] < 26
