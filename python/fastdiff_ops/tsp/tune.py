"""Settings of a search for instances of one kind and one time, found by optuna."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from ._arguments import Config, default_config
from .config import ILSConfig
from .instance import Instances
from .mcts import MCTSConfig
from .solve import solve

__all__ = ["SPACES", "evaluate", "tune"]

Method = Literal["ils", "mcts"]

SPACES: dict[str, dict[str, tuple[Any, ...]]] = {
    # the search space of arXiv 2411.09238
    "mcts": {
        "alpha": (0.0, 1.0, 2.0),
        "beta": (10.0, 100.0, 150.0),
        "param_h": (2.0, 5.0, 10.0),
        "max_candidates": (5, 20, 50, None),
        "candidates_from_heatmap": (True, False),
        "max_depth": (10, 50, 100, 200),
    },
    "ils": {
        "segment": (10, 20, 30, 50, 75, 100),
        "hot": (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15),
        "cold": (0.001, 0.002, 0.003, 0.005, 0.007, 0.01),
        "alpha": (True, False),
    },
}


def tune(
    coords: Any,
    heatmap: Any = None,
    *,
    method: Method = "mcts",
    time_limit: float,
    n_trials: int = 50,
    space: Mapping[str, Sequence[Any]] | None = None,
    sampler: Any = "tpe",
    seed: int = 0,
    on_trial: Callable[[Any], object] | None = None,
) -> tuple[Config, Any]:
    """Find settings with which tours of given instances get shortest in a given time.

    The protocol of arXiv 2411.09238: the objective is the mean length over the training instances, which
    are solved one after another on one thread, at the target time. The first trial is the default
    configuration, so the result is never worse than it on these instances; hold others out to judge it. A
    trial that falls behind the median of the earlier ones on its first instances is given up.

    Parameters
    ----------
    coords : float Tensor or ndarray [B, N, 2]
        Instances to train on; the paper takes 16.
    heatmap
        As in `solve`; one that is given in numbers is a list of B.
    method : "mcts" or "ils"
    time_limit : float
        Seconds of each run.
    n_trials : int
        Configurations to try.
    space : mapping of str to sequence, optional
        Values that fields of `MCTSConfig` or `ILSConfig` may take. Default: `SPACES[method]`.
    sampler : "tpe" or optuna sampler
        The tree-structured Parzen estimator, or any other that optuna or an extension of it offers.
    seed : int
        Of the sampler and of the searches.
    on_trial : callable, optional
        Called after each trial with optuna's record of it.

    Returns
    -------
    config : MCTSConfig or ILSConfig
    study : optuna.Study
        Every trial.

    Raises
    ------
    ImportError
        If optuna is not installed.
    ValueError, TypeError
        If an argument is out of range.

    Examples
    --------
    >>> from fastdiff_ops.tsp import generate
    >>> space = {"max_depth": (10, 50)}
    >>> config, study = tune(generate(50, 2), time_limit=0.01, n_trials=2, space=space)
    >>> len(study.trials)
    2
    """
    optuna = _optuna()
    kind = config_kind(method)
    points = _points(coords)
    if n_trials < 1:
        raise ValueError(f"`n_trials` must be at least 1, got {n_trials}")
    if sampler == "tpe":
        sampler = optuna.samplers.TPESampler(seed=seed)
    elif not isinstance(sampler, optuna.samplers.BaseSampler):
        raise TypeError(f"`sampler` must be 'tpe' or an optuna sampler, got {sampler!r}")
    choices = dict(SPACES[method] if space is None else space)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize", sampler=sampler, pruner=pruner)
    study.enqueue_trial({}, user_attrs={"default": True})

    default = default_config(method, heatmap, points.shape[1], time_limit)

    def objective(trial: Any) -> float:
        config: Config = default
        if not trial.user_attrs.get("default"):
            config = kind(**{k: trial.suggest_categorical(k, v) for k, v in choices.items()})
        lengths: list[float] = []
        for length in _lengths(points, heatmap, method, time_limit, seed, config):
            lengths.append(length)
            trial.report(sum(lengths) / len(lengths), len(lengths))
            if trial.should_prune():
                raise optuna.TrialPruned
        return sum(lengths) / len(lengths)

    callbacks: list[Any] = [] if on_trial is None else [lambda _, trial: on_trial(trial)]
    study.optimize(objective, n_trials=n_trials, callbacks=callbacks)
    best = study.best_trial
    return (default if best.user_attrs.get("default") else kind(**best.params)), study


def config_kind(method: str) -> type[Any]:
    """The class of a method's settings."""
    if method not in SPACES:
        raise ValueError(f"`method` must be one of {', '.join(SPACES)}, got {method!r}")
    return {"ils": ILSConfig, "mcts": MCTSConfig}[method]


def evaluate(
    coords: Any,
    heatmap: Any = None,
    *,
    method: Method = "mcts",
    time_limit: float,
    seed: int = 0,
    config: Config | None = None,
) -> list[float]:
    """Lengths of tours that a configuration finds, one instance after another on one thread; see `tune`."""
    return list(_lengths(_points(coords), heatmap, method, time_limit, seed, config))


def _points(coords: Any) -> Tensor:
    """Instances [B, N, 2] of `tune`."""
    points = Instances.read(coords, None, "euclidean").coords
    assert points is not None
    return points


def _lengths(
    points: Tensor, heatmap: Any, method: Method, time_limit: float, seed: int, config: Config | None
) -> Iterator[float]:
    for b, cities in enumerate(points):
        heat = heatmap[b] if isinstance(heatmap, list) else heatmap
        found = solve(cities, heat, method=method, time_limit=time_limit, seed=seed, threads=1, config=config)
        if found.stats.interrupted:
            raise KeyboardInterrupt
        yield float(found.lengths)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError("tuning needs optuna: pip install 'fastdiff-ops[tune]'") from error
    return optuna
