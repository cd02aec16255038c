"""Tuning: the default is tried first, the best is returned, hopeless trials are given up."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastdiff_ops import tsp
from fastdiff_ops.cli import main

optuna = pytest.importorskip("optuna", reason="tuning is optuna's")
module = importlib.import_module("fastdiff_ops.tsp.tune")
POINTS = np.zeros((6, 12, 2))


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Replace the search by a function of its configuration; returns the list of its calls."""

    def install(length: Callable[[Any], float]) -> list[Any]:
        calls: list[Any] = []

        def solve(coords: Any, heatmap: Any, **options: Any) -> Any:
            calls.append(options["config"])
            stats = SimpleNamespace(interrupted=False)
            return SimpleNamespace(lengths=length(options["config"]), stats=stats)

        monkeypatch.setattr(module, "solve", solve)
        return calls

    return install


def segments(config: Any) -> float:
    """Best at 30; the default counts as 50."""
    return 100 + abs((config.segment or 50) - 30)


def test_the_best_is_found_and_the_default_comes_first(pretend: Any) -> None:
    calls = pretend(segments)
    trials: list[Any] = []
    config, study = tsp.tune(POINTS, method="ils", time_limit=1.0, n_trials=40, on_trial=trials.append)
    assert calls[:6] == [tsp.ILSConfig()] * 6
    assert study.trials[0].value == 120
    assert config.segment == 30 and study.best_value == 100
    assert len(trials) == len(study.trials) == 40


def test_hopeless_trials_are_given_up(pretend: Any) -> None:
    calls = pretend(segments)
    _, study = tsp.tune(POINTS, method="ils", time_limit=1.0, n_trials=30)
    pruned = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.PRUNED]
    assert pruned
    assert len(calls) < 30 * len(POINTS)


def test_never_worse_than_the_default(pretend: Any) -> None:
    """Nor is the default of `mcts` one of the space: it belongs to size, time and heatmap."""
    for method, start in (("ils", tsp.ILSConfig()), ("mcts", tsp.MCTSConfig.tuned(12, time_per_city=0.1))):
        pretend(lambda config, start=start: 1.0 if config == start else 2.0)
        config, study = tsp.tune(POINTS, method=method, time_limit=1.2, n_trials=8)
        assert config == start
        assert study.best_value == 1.0


def test_a_seed_gives_the_same_trials(pretend: Any) -> None:
    pretend(segments)
    runs = [tsp.tune(POINTS, method="ils", time_limit=1.0, n_trials=9, seed=seed)[1] for seed in (3, 3, 4)]
    first, same, other = ([trial.params for trial in study.trials] for study in runs)
    assert first == same != other


def test_space_and_sampler_may_be_given(pretend: Any) -> None:
    pretend(segments)
    sampler = optuna.samplers.RandomSampler(seed=0)
    space = {"segment": (29, 60)}
    config, study = tsp.tune(POINTS, method="ils", time_limit=1.0, n_trials=9, space=space, sampler=sampler)
    assert config == tsp.ILSConfig(segment=29)
    assert {tuple(trial.params) for trial in study.trials[1:]} == {("segment",)}


def test_interruption_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = SimpleNamespace(lengths=1.0, stats=SimpleNamespace(interrupted=True))
    monkeypatch.setattr(module, "solve", lambda *arguments, **options: stopped)
    with pytest.raises(KeyboardInterrupt):
        tsp.tune(POINTS, method="ils", time_limit=1.0, n_trials=3)


def test_lengths_are_those_of_the_search() -> None:
    points = tsp.generate(30, 3)
    for found, xy in zip(module.evaluate(points, method="ils", time_limit=0.05), points, strict=True):
        assert found <= float(tsp.tour_length(xy, tsp.two_opt(xy, np.arange(30)))) * 1.001


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "greedy"}, ValueError, "ils"),
        ({"n_trials": 0}, ValueError, "`n_trials`"),
        ({"sampler": "smac"}, TypeError, "`sampler`"),
        ({"space": {"colour": (1, 2)}, "n_trials": 2}, TypeError, "colour"),
    ],
)
def test_bad_arguments(pretend: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    pretend(segments)
    with pytest.raises(error, match=message):
        tsp.tune(POINTS, **{"method": "ils", "time_limit": 1.0, **arguments})


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = ["--n", "20", "--instances", "2", "--held-out", "2", "--trials", "2", "--time", "0.01"]
    assert main(["tsp", "tune", *sizes, "--method", "ils"]) == 0
    out = capsys.readouterr().out
    assert "trained on 2 instances" in out and "held out, 2" in out
    settings = json.loads(Path("tuned.json").read_text())
    assert tsp.ILSConfig(**settings)
    tsp.write_text("x.txt", [(tsp.generate(20)[0], None)])
    assert main(["tsp", "solve", "x.txt", "--config", "tuned.json", "--iterations", "9"]) == 0
