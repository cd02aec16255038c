"""The published search: the same decisions as a plain model of it, determinism, and the tuned settings."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fastdiff_ops import _host
from fastdiff_ops.tsp import knn_prior_heatmap
from fastdiff_ops.tsp.mcts import MCTSConfig
from tsp.mcts_model import Model

N = 30
SEED = 0x1234_5678_9ABC


def instance(n=N, b=0):
    """Coordinates for which rounded distances have no ties, and their distances."""
    x = np.random.default_rng([b, n]).random((n, 2)) * 1e6
    d = np.floor(np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1)) + 0.5).astype(np.int32)
    return x, d


def lists_of(heat):
    """Sparse lists of a dense heatmap, with empty slots."""
    n = len(heat)
    ids = np.where(heat > 0, np.arange(n), -1).astype(np.int32)
    return ids, heat.astype(np.float32)


def prior(d):
    """A heatmap that is not symmetric: by rank of distance."""
    n = len(d)
    ranks = np.argsort(np.argsort(d + np.eye(n) * 1e9, 1), 1)
    heat = np.where(ranks < 8, np.float32(0.5) ** (ranks + 1), 0)
    return heat.astype(np.float32)


# alpha, beta, param_h, max_candidates, candidates_from_heatmap, max_depth
SETTINGS = {
    "tuned": MCTSConfig(0, 10, 2, 5, True, 14),
    "default": MCTSConfig(1, 10, 4, 1000, True, 10),
    "explore": MCTSConfig(2, 100, 1, 4, False, 3),
    "deep": MCTSConfig(0.5, 500, 0.5, 12, False, 60),
    "zero": MCTSConfig(0, 1, 3, 5, False, 14),
    "zero_explore": MCTSConfig(1, 50, 2, 9, False, 5),
    "matrix": MCTSConfig(1, 10, 1, 3, False, 8),
}


def model_of(name, d, x, heat):
    options = SETTINGS[name].host_options(N)
    most, by_heat = options.pop("max_candidates"), options.pop("candidates_from_heatmap")
    symmetric = (heat.astype(np.float64) + heat.T) / 2
    hot = [[int(c) for c in np.argsort(-row, kind="stable") if row[c] >= 1e-4] for row in symmetric]
    near = [[int(c) for c in np.argsort(row) if c != a] for a, row in enumerate(d)]
    lists = [row[:most] for row in (hot if by_heat else near)]

    def nearest(here, left):
        return min(left, key=lambda c: d[here, c] if name == "matrix" else np.hypot(*(x[here] - x[c])))

    return Model(d, symmetric, lists, nearest, seed=SEED, row=(3 << 32) | 7, **options)


def search_of(name, d, x, heat, **limits):
    coords = None if name == "matrix" else x
    problem = _host.TourProblem(
        coords=coords, matrix=d if name == "matrix" else None, metric="euc_2d", candidates=5
    )
    ids, weights = (None, None) if name.startswith("zero") else lists_of(heat)
    options = {"heat_ids": ids, "heat": weights, "exact_ucb": True, **limits}
    return _host.MctsSearch(problem, SEED, 3, 7, **options, **SETTINGS[name].host_options(N))


@pytest.mark.parametrize("name", SETTINGS)
def test_every_action_is_that_of_the_plain_model(name):
    x, d = instance()
    heat = np.zeros((N, N), np.float32) if name.startswith("zero") else prior(d)
    model = model_of(name, d, x, heat)
    run = model.run()
    for actions in range(1, 501):
        next(run)
        if actions % 10 and actions > 50:
            continue
        search = search_of(name, d, x, heat, max_actions=actions)
        assert search.run(math.inf)
        got = (search.actions, search.accepted, search.restarts, search.best_length)
        assert got == (actions, model.accepted, model.restarts, model.best_length)
        k = model.best.index(0)
        assert list(search.best()) == model.best[k:] + model.best[:k]
    assert model.accepted > 0 and model.restarts > 1


def knn_search(n, b, config, **options):
    x = np.random.default_rng([1234, n]).random((16, n, 2))[b]
    ids, weights = knn_prior_heatmap(x)
    problem = _host.TourProblem(coords=x)
    search = _host.MctsSearch(
        problem, heat_ids=ids.int().numpy(), heat=weights.numpy(), **config.host_options(n), **options
    )
    return search, problem.unit


def outcome(search):
    return search.best_length, search.actions, search.accepted, search.restarts, list(search.best())


@pytest.mark.parametrize("config", [MCTSConfig(), MCTSConfig.tuned(200, time_per_city=0.05)])
def test_slices_change_nothing_and_seeds_do(config):
    whole, _ = knn_search(200, 0, config, seed=5, max_actions=3000)
    assert whole.run(math.inf)
    sliced, _ = knn_search(200, 0, config, seed=5, max_actions=3000)
    while not sliced.run(0.0003):
        assert sorted(sliced.best()) == list(range(200))
    assert outcome(sliced) == outcome(whole)
    for change in ({"seed": 6}, {"seed": 5, "instance": 1}, {"seed": 5, "trajectory": 1}):
        other, _ = knn_search(200, 0, config, max_actions=3000, **change)
        other.run(math.inf)
        assert outcome(other) != outcome(whole)


@pytest.mark.parametrize("level", ["scalar", "avx2", "avx512"])
def test_simd_levels_decide_alike(level):
    program = (
        "import math; from tsp.test_mcts import *\n"
        "for c in (MCTSConfig(), MCTSConfig.tuned(500)):\n"
        "    s, _ = knn_search(500, 1, c, max_actions=800); s.run(math.inf); print(outcome(s))"
    )
    tests = str(Path(__file__).parents[1])
    environment = {**os.environ, "FASTDIFF_OPS_SIMD": level}
    environment["PYTHONPATH"] = os.pathsep.join([tests, environment.get("PYTHONPATH", "")])
    got = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout
    for config, line in zip((MCTSConfig(), MCTSConfig.tuned(500)), got.splitlines(), strict=True):
        search, _ = knn_search(500, 1, config, max_actions=800)
        search.run(math.inf)
        assert line == repr(outcome(search))


def test_reported_length_is_that_of_the_tour():
    search, unit = knn_search(200, 3, MCTSConfig(), max_actions=2000)
    search.run(math.inf)
    x = np.random.default_rng([1234, 200]).random((16, 200, 2))[3][search.best()]
    length = np.linalg.norm(x - np.roll(x, 1, 0), axis=1).sum()
    assert search.best_length * unit == pytest.approx(length, rel=1e-5)


def test_tuned_settings_are_half_a_point_better_after_equal_actions():
    best_known = [16.035376, 16.621987, 16.613957, 16.605897]
    gaps = {}
    for config in (MCTSConfig(), MCTSConfig.tuned(500, time_per_city=0.01)):
        gap = []
        for b, best in enumerate(best_known):
            search, unit = knn_search(500, b, config, max_actions=8000)
            search.run(math.inf)
            gap.append(100 * (search.best_length * unit / best - 1))
        gaps[config] = np.mean(gap)
    default, tuned = gaps.values()
    assert default - tuned >= 0.5, gaps
    assert tuned < 3


def test_a_run_ends_inside_of_a_descent():
    x = np.random.default_rng(0).random((100000, 2))
    problem = _host.TourProblem(coords=x)
    options = {"alpha": 0, "max_candidates": 10, "candidates_from_heatmap": False}
    search = _host.MctsSearch(problem, **options)
    for _ in range(3):
        assert not search.run(0.002)
    assert search.first_local_optimum == search.actions == 0
    assert sorted(search.best()) == list(range(100000))


@pytest.mark.parametrize("fixed", [[[0, 9], [9, 4], [4, 17]], [[k, k + 1] for k in range(20)]])
def test_fixed_edges_stay(fixed):
    x, _ = instance()
    problem = _host.TourProblem(coords=x, fixed=np.array(fixed, np.int32))
    search = _host.MctsSearch(problem, max_actions=3000, candidates_from_heatmap=False, max_candidates=6)
    search.run(math.inf)
    tour = list(search.best())
    edges = {frozenset(e) for e in zip(tour, tour[1:] + tour[:1], strict=True)}
    assert sorted(tour) == list(range(N))
    assert all(frozenset(e) in edges for e in fixed)
    assert search.restarts > 0 or search.accepted > 0


@pytest.mark.parametrize("end", [None, 11])
def test_open_paths(end):
    x, d = instance()
    fixed = None if end is None else np.array([[N, end]], np.int32)
    problem = _host.TourProblem(coords=x, metric="euc_2d", open_path=True, fixed=fixed)
    search = _host.MctsSearch(problem, max_actions=20000, candidates_from_heatmap=False, max_candidates=6)
    search.run(math.inf)
    path = search.best()
    assert sorted(path) == list(range(N))
    assert search.best_length == d[path[1:], path[:-1]].sum()
    assert end is None or end in (path[0], path[-1])
    ils = _host.IlsSearch(problem, max_kicks=3000)
    ils.run(math.inf)
    assert search.best_length <= 1.05 * ils.best_length


def test_rows_without_heat_fall_back_to_the_nearest():
    x, d = instance()
    heat = prior(d)
    heat[:, 5] = heat[5] = 0
    search = search_of("tuned", d, x, heat, max_actions=500)
    assert search.rows_without_heat == 1
    assert search.run(math.inf)


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"alpha": -1.0}, ValueError),
        ({"beta": math.nan}, ValueError),
        ({"param_h": 0}, ValueError),
        ({"max_candidates": 0}, ValueError),
        ({"max_candidates": 2.5}, TypeError),
        ({"candidates_from_heatmap": 1}, TypeError),
        ({"max_depth": 0}, ValueError),
    ],
)
def test_settings_are_checked(option, error):
    with pytest.raises(error, match=next(iter(option))):
        MCTSConfig(**option)


def test_what_the_search_itself_refuses():
    x, _ = instance()
    with pytest.raises(ValueError, match="5 cities"):
        _host.MctsSearch(_host.TourProblem(coords=x[:4]))
    for option in ("max_candidates", "max_depth"):
        with pytest.raises(ValueError, match=option):
            _host.MctsSearch(_host.TourProblem(coords=x), **{option: 0})


def test_tuned_settings_of_other_sizes():
    def tuned(n, **options):
        c = MCTSConfig.tuned(n, **options)
        return (c.alpha, c.beta, c.param_h, c.max_candidates, c.candidates_from_heatmap, c.max_depth)

    assert tuned(749, time_per_city=0.05) == (2, 10, 2, 5, True, 200)
    assert tuned(750, time_per_city=0.05) == (0, 10, 2, 5, True, 200)
    assert tuned(3000, time_per_city=0.05) == (0, 10, 10, 20, True, 200)
    assert tuned(200, time_per_city=1) == (0, 10, 5, 5, True, 99)
    assert tuned(10**6, heatmap="utsp") == (1, 100, 5, 5, False, 50)
    assert tuned(500, heatmap="softdist") == (1, 100, 2, None, True, 200)
    assert MCTSConfig.tuned(500, heatmap="softdist").host_options(500)["max_candidates"] == 500
    with pytest.raises(ValueError, match="heatmap"):
        MCTSConfig.tuned(500, heatmap="none")
    with pytest.raises(ValueError, match="time_per_city"):
        MCTSConfig.tuned(500, time_per_city=0.0)
