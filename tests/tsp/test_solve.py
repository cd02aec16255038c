"""What `solve` promises: limits, reproducibility, starts, stops, reports."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from fastdiff_ops import tsp
from fastdiff_ops.ops import PhiloxState
from fastdiff_ops.tsp import _drive, _engines
from tsp.instances import BEST_KNOWN, distances, summed, uniform

MANY = uniform(60, 5)
ONE = uniform(200, 1)[0]
LARGE = uniform(500, 1)[0]  # of which a few kicks do not find the shortest tour


def tours(coords=MANY, **options):
    return tsp.solve(coords, **{"max_iterations": 300, "seed": 0, **options}).tours


# -- results -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int32])
@pytest.mark.parametrize("batched", [False, True])
def test_shapes_and_dtypes(dtype, batched) -> None:
    coords = (torch.from_numpy(MANY) * 1000).to(dtype)
    coords = coords if batched else coords[0]
    result = tsp.solve(coords, max_iterations=10, seed=0)
    assert result.tours.dtype == torch.int64 and result.tours.shape == coords.shape[:-1]
    assert result.lengths.dtype == torch.float64 and result.lengths.shape == coords.shape[:-2]
    assert torch.equal(result.lengths, tsp.tour_length(coords, result.tours))
    np.testing.assert_array_equal(result.stats.lengths, result.lengths.numpy().reshape(-1))


def test_gradients_stay_out() -> None:
    coords = torch.rand(20, 2, requires_grad=True)
    result = tsp.solve(coords, max_iterations=5)
    assert not result.lengths.requires_grad


def test_a_closed_tour_begins_with_city_0_and_its_smaller_neighbour() -> None:
    found = tours()
    assert bool((found[:, 0] == 0).all()) and bool((found[:, 1] < found[:, -1]).all())


def test_greedy_is_only_the_start() -> None:
    result = tsp.solve(MANY, method="greedy")
    assert result.stats.stopped_by == "construction" and not result.stats.iterations.any()
    assert float(result.lengths.mean()) > float(tsp.solve(MANY, max_iterations=0).lengths.mean())


@pytest.mark.parametrize("metric", ["EUC_2D", "CEIL_2D", "MAN_2D", "MAX_2D", "ATT", "GEO"])
def test_metrics(metric) -> None:
    """The search sees the metric itself, not the distance on paper."""
    coords = (uniform(40, 1)[0] * 50).round(2)
    d = tsp.tour_length(np.stack([coords] * 2), [[*range(40)]] * 2, metric=metric)
    assert float(d[0]) == round(float(d[0]))
    found = tsp.solve(coords, metric=metric, max_iterations=3000, seed=0)
    plain = tsp.solve(coords, max_iterations=3000, seed=0)
    assert float(found.lengths) == float(tsp.tour_length(coords, found.tours, metric=metric))
    assert float(found.lengths) <= float(tsp.tour_length(coords, plain.tours, metric=metric))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_explicit_distances(dtype) -> None:
    dist = (torch.from_numpy(np.stack([distances(c) for c in MANY])) * 1000).to(dtype)
    found, lengths, _ = tsp.solve(dist=dist, max_iterations=300, seed=0)
    for d, tour, length in zip(dist.double().numpy(), found, lengths.tolist(), strict=True):
        assert length == pytest.approx(summed(d, tour), rel=1e-12)
    assert float(lengths.mean()) == pytest.approx(
        1000 * float(tsp.solve(MANY, max_iterations=300, seed=0).lengths.mean()), rel=0.02
    )


def test_forbidden_edges_cost_others_no_resolution() -> None:
    """People forbid edges by huge distances."""
    d = distances(ONE)
    barred = d.copy()
    worst = np.argsort(d, axis=1)[:, 40:]
    np.put_along_axis(barred, worst, 1e12, axis=1)
    barred = np.maximum(barred, barred.T)
    assert float(tsp.solve(dist=barred, max_iterations=3000, seed=0).lengths) < 1.02 * BEST_KNOWN[200][0]


# -- reproducibility -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ils", "mcts"])
@pytest.mark.parametrize("trajectories", [1, 3])
def test_threads_change_nothing(method, trajectories) -> None:
    first = tours(threads=1, trajectories=trajectories, method=method)
    for threads in (1, 2, 5):
        assert torch.equal(first, tours(threads=threads, trajectories=trajectories, method=method))


def test_neither_do_slices(monkeypatch) -> None:
    """Whatever the clock says; with a budget that is spent in several stages."""
    coords = uniform(200, 2)
    first = tours(coords, max_iterations=2000)
    assert torch.equal(first, tours(coords, max_iterations=2000, threads=2))
    monkeypatch.setattr(_drive, "SLICE", 0.001)
    assert torch.equal(first, tours(coords, max_iterations=2000))


def test_seeds_matter() -> None:
    runs = [tours(LARGE, seed=seed, max_iterations=50).tolist() for seed in (0, 1, None, None)]
    assert len({tuple(run) for run in runs}) == 4


def test_instances_and_trajectories_have_streams_of_their_own() -> None:
    twice = tours(np.stack([LARGE, LARGE]), max_iterations=50)
    assert not torch.equal(twice[0], twice[1])
    one, eight = (tsp.solve(LARGE, seed=0, max_iterations=50, trajectories=p).lengths for p in (1, 8))
    assert float(eight) < float(one)


def test_a_stream_state_is_used_up() -> None:
    state = PhiloxState(0)
    few = {"max_iterations": 50}
    first, second = tours(LARGE, seed=state, **few), tours(LARGE, seed=state, **few)
    assert state.offset == 2 and not torch.equal(first, second)
    assert torch.equal(first, tours(LARGE, seed=0, **few))
    assert torch.equal(second, tours(LARGE, seed=PhiloxState(0, 1), **few))


# -- limits and starts ---------------------------------------------------------------------------------------


def test_iterations_are_counted() -> None:
    stats = tsp.solve(MANY, max_iterations=70, trajectories=2, seed=0).stats
    assert stats.stopped_by == "iterations" and (stats.iterations == 140).all()
    assert (stats.accepted > 0).all() and (stats.accepted <= 140).all()
    assert (stats.first_local_optimum >= stats.lengths * (1 - 1e-6)).all()


def test_more_iterations_find_shorter_tours() -> None:
    lengths = [float(tsp.solve(LARGE, max_iterations=k, seed=0).lengths) for k in (0, 50, 2000)]
    assert lengths[0] > lengths[1] > lengths[2]
    assert lengths[2] < 1.01 * BEST_KNOWN[500][0]


def test_time_ends_it() -> None:
    stats = tsp.solve(ONE, time_limit=0.1, seed=0).stats
    assert stats.stopped_by == "time" and stats.seconds > 0.05 and stats.iterations[0] > 0


def test_whatever_is_spent_first_ends_it() -> None:
    assert tsp.solve(ONE, time_limit=60, max_iterations=10).stats.stopped_by == "iterations"
    assert tsp.solve(ONE, time_limit=0.05, max_iterations=10**9).stats.stopped_by == "time"


def test_a_batch_larger_than_its_time_still_gets_tours() -> None:
    result = tsp.solve(uniform(30, 40), time_limit=1e-6, seed=0, threads=2)
    assert bool(tsp.is_tour(result.tours, 30).all()) and not result.stats.iterations.any()


def test_a_start_is_kept_or_improved() -> None:
    good = tsp.solve(ONE, max_iterations=5000, seed=0)
    same = tsp.solve(ONE, init=good.tours, max_iterations=0)
    assert torch.equal(same.tours, good.tours)
    assert float(tsp.solve(ONE, init=good.tours.numpy(), max_iterations=10, seed=3).lengths) <= float(
        good.lengths
    )


def test_a_start_is_not_given_up_for_what_rounding_makes_shorter(monkeypatch) -> None:
    good = tsp.solve(ONE, max_iterations=100, seed=0)
    monkeypatch.setattr(_engines.HostSearch, "order", lambda search: np.arange(200, dtype=np.int32))
    assert torch.equal(tsp.solve(ONE, init=good, max_iterations=1).tours, good.tours)


def test_a_result_goes_on() -> None:
    """With the same seed, but not with the same random numbers."""
    coords = uniform(500, 2)
    first = tsp.solve(coords, max_iterations=30, seed=0)
    second = tsp.solve(coords, max_iterations=30, seed=0, init=first)
    third = tsp.solve(coords, max_iterations=30, seed=0, init=second)
    assert [r.stats.runs for r in (first, second, third)] == [1, 2, 3]
    assert bool((second.lengths <= first.lengths).all()) and bool((third.lengths <= second.lengths).all())
    again = tsp.solve(coords, max_iterations=30, seed=0, init=first.tours)
    assert not torch.equal(again.tours, second.tours)


# -- stops and reports ---------------------------------------------------------------------------------------


def test_a_gap_ends_it() -> None:
    bound = BEST_KNOWN[200][0]
    stats = tsp.solve(ONE, bound=bound, stop_gap=0.03, time_limit=60, seed=0).stats
    assert stats.stopped_by == "gap" and stats.gap[0] <= 0.03 and stats.lower_bound[0] == bound


def test_a_known_optimum_ends_it_exactly_there() -> None:
    """Also where the search's rounded lengths lie on the wrong side of it."""
    best = tsp.solve(MANY, max_iterations=5000, seed=0).lengths
    result = tsp.solve(MANY, bound=best, stop_gap=0, time_limit=60, seed=1)
    assert result.stats.stopped_by == "gap"
    assert bool((result.lengths <= best * (1 + 1e-9)).all())


def test_a_gap_to_the_estimated_bound_ends_it() -> None:
    stats = tsp.solve(ONE, stop_gap=0.03, time_limit=60, seed=0).stats
    assert stats.stopped_by == "gap" and 0 < stats.gap[0] <= 0.03


def test_a_gap_ends_instances_one_by_one() -> None:
    bound = np.array([100.0, 0.001, 100.0, 0.001, 100.0])  # met at once, and never
    stats = tsp.solve(MANY, bound=bound, stop_gap=0, max_iterations=50_000, seed=0, threads=1).stats
    assert (stats.iterations[[1, 3]] >= 50_000).all() and (stats.iterations[[0, 2, 4]] < 50_000).all()


def test_no_improvement_ends_it() -> None:
    stats = tsp.solve(uniform(20, 1)[0], stop_seconds_without_improvement=0.1, time_limit=60, seed=0).stats
    assert stats.stopped_by == "stall" and stats.seconds < 30


def test_the_callback_sees_and_stops() -> None:
    seen = []

    def callback(stats):
        seen.append((stats.seconds, float(stats.lengths[0]), int(stats.iterations[0])))
        return len(seen) == 3

    result = tsp.solve(ONE, callback=callback, time_limit=60, seed=0)
    assert result.stats.stopped_by == "callback" and not result.stats.interrupted and len(seen) == 3
    for before, after in itertools.pairwise(seen):
        assert after[0] > before[0] and after[1] <= before[1] and after[2] > before[2]
    assert float(result.lengths) <= seen[-1][1] * (1 + 1e-5)


def test_a_callback_may_stop_before_every_instance_has_a_tour() -> None:
    coords = uniform(2000, 60)
    result = tsp.solve(coords, callback=lambda stats: True, time_limit=60, threads=1, fixed_edges=[[0, 1999]])
    assert bool(tsp.is_tour(result.tours, 2000).all()) and result.stats.stopped_by == "callback"
    assert bool((result.tours[:, -1] == 1999).all() or (result.tours[:, 1] == 1999).all())
    assert not result.stats.iterations[-1]


def test_errors_of_callbacks_come_out() -> None:
    def callback(stats):
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        tsp.solve(ONE, callback=callback, time_limit=60)


@pytest.mark.parametrize("coords", [ONE, MANY], ids=["single", "batch"])
def test_history(coords) -> None:
    result = tsp.solve(coords, time_limit=0.2, seed=0, return_history=True)
    histories = [result.stats.history] if coords is ONE else result.stats.history
    assert len(histories) == len(result.stats.lengths)
    for history, length in zip(histories, result.stats.lengths, strict=True):
        seconds, lengths = zip(*history, strict=True)
        assert list(seconds) == sorted(seconds) and seconds[-1] <= result.stats.seconds
        assert lengths[-1] == length and all(a > b for a, b in itertools.pairwise(lengths))
    assert tsp.solve(coords, max_iterations=1).stats.history == []
    assert tsp.solve(uniform(5, 1)[0], return_history=True).stats.history[0][1] > 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"time_limit": 0.3}, "/0.3 s"),
        ({"max_iterations": 10_000}, "10.0k/10.0k"),
        ({"time_limit": math.inf, "stop_seconds_without_improvement": 0.3}, "length"),
        ({"time_limit": 0.3, "bound": 7.0}, "gap"),
    ],
)
def test_progress(capsys, options, expected) -> None:
    tsp.solve(ONE, progress=True, seed=0, **options)
    shown = capsys.readouterr().err
    assert expected in shown and "length 10." in shown
    tsp.solve(ONE, seed=0, max_iterations=5)
    assert capsys.readouterr().err == ""


def test_trajectories_share_their_better_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    coords = uniform(400, 2)
    options = {"trajectories": 4, "max_iterations": 60, "seed": 0}
    together = tsp.solve(coords, threads=2, **options)
    assert torch.equal(together.tours, tsp.solve(coords, threads=1, **options).tours)
    assert bool(tsp.is_tour(together.tours).all())
    monkeypatch.setattr("fastdiff_ops.tsp._plan.Plan._combined", lambda plan, jobs: [])
    best = tsp.solve(coords, **options)
    assert bool((together.lengths <= best.lengths).all()) and bool((together.lengths < best.lengths).any())
