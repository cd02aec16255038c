"""Whole batches searched on a device, on CPU tensors too: limits, determinism, what ends `solve`."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest
import torch
from fastdiff_ops import tsp
from fastdiff_ops.tsp import _device, cuda, solve
from fastdiff_ops.tsp.cuda import DeviceSearch, copy_elites

MODULE = importlib.import_module("fastdiff_ops.tsp.solve")  # the package has a function of this name
N = 60


def points(batch: int = 2, n: int = N) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(5).random((batch, n, 2)))


def make(coords: torch.Tensor, **options) -> DeviceSearch:
    near = torch.cdist(coords, coords).topk(9, largest=False).indices[..., 1:]
    starts = torch.arange(coords.shape[1]).expand(coords.shape[:2])
    return DeviceSearch(coords, near, starts, **{"trajectories": 4, "seed": 3, **options})


def finish(search: DeviceSearch, seconds: float = 10.0) -> list[list[int]]:
    while not search.run(seconds):
        pass
    return [search.best(b).tolist() for b in range(len(search.lengths))]


@pytest.mark.emulated
def test_limited_kicks_end_where_they_should(backend) -> None:
    """However time is cut; elites are copied at their kicks."""
    coords = points(2, 20).to(backend.device)
    whole, parts = (make(coords, max_kicks=40, trajectories=4) for _ in range(2))
    tours = finish(whole)
    assert finish(parts, 1e-4) == tours
    assert whole.kicks == parts.kicks == 40
    assert np.array_equal(whole.accepted, parts.accepted)
    for b, tour in enumerate(tours):
        assert sorted(tour) == list(range(20))
        exact = float(tsp.tour_length(coords[b], torch.tensor(tour)))
        assert whole.lengths[b] == pytest.approx(exact, rel=1e-6)
    assert (whole.lengths <= whole.first_local_optimum).all()


def test_elites_are_copied_at_the_same_kicks(monkeypatch) -> None:
    monkeypatch.setattr(cuda, "ELITE", 1)
    calls = []
    monkeypatch.setattr(cuda, "copy_elites", lambda *state: calls.append(1) or copy_elites(*state))
    tours = finish(make(points(), max_kicks=10 * N + 7))
    assert len(calls) == 10
    assert finish(make(points(), max_kicks=10 * N + 7), 1e-4) == tours
    monkeypatch.setattr(cuda, "ELITE", 1000)
    alone = make(points(), max_kicks=10 * N + 7)
    finish(alone)
    assert len(calls) == 20


def test_elites() -> None:
    tours = torch.arange(8).repeat_interleave(3).reshape(1, 8, 3)
    state = torch.zeros(1, 8, 5, dtype=torch.int64)
    state[0, :, 0] = torch.tensor([5, 9, 1, 7, 1, 8, 9, 3])
    state[0, :, 1] = 100
    copy_elites(tours, state)
    assert tours[0, :, 0].tolist() == [0, 2, 2, 3, 4, 5, 4, 7]
    assert state[0, :, 0].tolist() == [5, 1, 1, 7, 1, 8, 1, 3]
    assert (state[0, :, 1] == 100).all()


def test_a_part_of_a_batch_is_what_it_is_in_the_whole() -> None:
    coords = points(3)
    whole = finish(make(coords, max_kicks=100))
    assert finish(make(coords[1:], max_kicks=100, first_instance=1)) == whole[1:]


def test_time_limit() -> None:
    search = make(points(1), time_limit=0.2)
    finish(search, 0.02)
    assert search.elapsed >= 0.2
    assert search.kicks > 0
    assert search.lengths[0] <= search.first_local_optimum[0]


def test_temperatures_fall_along_the_run_and_rise_along_the_ladder() -> None:
    counted = make(points(1), max_kicks=1000, hot=0.4, cold=0.1)
    values, span = counted.temperatures(10, 20)
    assert span == (0, 1000)
    assert values.shape == (4, cuda.KNOTS)
    assert values[:, 0].prod() ** 0.25 == pytest.approx(0.4)
    assert values[:, -1].prod() ** 0.25 == pytest.approx(0.1)
    assert (values.diff(dim=1) < 0).all()
    assert values[-1] / values[0] == pytest.approx(torch.full((cuda.KNOTS,), cuda.LADDER))
    timed = make(points(1), time_limit=1e3, hot=0.4, cold=0.1, trajectories=1)
    timed.run(0.01)
    values, span = timed.temperatures(10, 20)
    assert span == (10, 20)
    assert 0.39 < float(values[0, -1]) <= float(values[0, 0]) <= 0.4


@pytest.mark.parametrize("kind", ["copies", "line"])
def test_degenerate_points(kind: str) -> None:
    coords = points(1)
    if kind == "copies":
        coords[:] = coords[:, :1]
    else:
        coords[..., 1] = 2.0
    search = make(coords, max_kicks=50)
    (tour,) = finish(search)
    shortest = 0.0 if kind == "copies" else 2 * float(coords[0, :, 0].max() - coords[0, :, 0].min())
    assert sorted(tour) == list(range(N))
    assert float(tsp.tour_length(coords[0], torch.tensor(tour))) == pytest.approx(shortest, rel=1e-3)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="give `max_kicks`, `time_limit` or both"):
        make(points())
    with pytest.raises(ValueError, match="`starts` must hold permutations"):
        DeviceSearch(
            points(1), torch.zeros(1, N, 1).int(), torch.zeros(1, N), trajectories=1, seed=0, max_kicks=1
        )


# -- solve --


@pytest.fixture
def on_device(monkeypatch) -> list[str]:
    """Make `solve` search CPU tensors as it would search those of a GPU; return what ran."""
    ran = []

    def search(plan, driver):
        ran.append("device")
        return _device.search_on_device(plan, driver)

    monkeypatch.setattr(MODULE, "runs_on_device", lambda plan: plan.method == "ils")
    monkeypatch.setattr(MODULE, "search_on_device", search)
    return ran


def test_solve_with_counted_kicks(on_device) -> None:
    coords = points(3)
    options = {"max_iterations": 300, "trajectories": 4, "return_history": True}
    tours, lengths, stats = solve(coords, seed=1, **options)
    assert on_device == ["device"]
    assert stats.stopped_by == "iterations"
    assert stats.iterations.tolist() == [1200] * 3
    assert tsp.is_tour(tours).all()
    assert torch.allclose(lengths, tsp.tour_length(coords, tours), rtol=1e-12)
    assert (stats.lengths <= stats.first_local_optimum + 1e-6).all()
    assert torch.equal(solve(coords, seed=1, threads=2, **options).tours, tours)
    assert not torch.equal(solve(coords, seed=2, **{**options, "max_iterations": 1}).tours, tours)


def test_solve_goes_on_from_tours(on_device) -> None:
    coords = points(2)
    first = solve(coords, max_iterations=20, seed=0)
    again = solve(coords, max_iterations=20, seed=0, init=first)
    assert (again.lengths <= first.lengths).all()
    optimal = solve(coords, max_iterations=2000, trajectories=4, seed=0)
    assert torch.equal(solve(coords, max_iterations=1, init=optimal.tours, seed=0).lengths, optimal.lengths)


@pytest.mark.parametrize("reason", ["time", "gap", "stall", "callback", "interrupt"])
def test_solve_ends(on_device, reason: str) -> None:
    coords = points(2)

    def call(stats) -> bool:
        if reason == "interrupt":
            raise KeyboardInterrupt
        return reason == "callback"

    options = {
        "time": {"time_limit": 0.1},
        "gap": {"bound": 1e9, "stop_gap": 0.0},
        "stall": {"stop_seconds_without_improvement": 0.05},
        "callback": {"callback": call},
        "interrupt": {"callback": call},
    }[reason]
    tours, lengths, stats = solve(coords, **{"seed": 0, "time_limit": 60.0, **options})
    assert stats.stopped_by == reason
    assert tsp.is_tour(tours).all()
    assert lengths.isfinite().all()


@pytest.mark.parametrize(
    ("device", "options", "there"),
    [
        ("cuda", {}, True),
        ("cpu", {}, False),
        ("cuda", {"open_path": True}, False),
        ("cuda", {"fixed_edges": [[0, 1]]}, False),
        ("cuda", {"metric": "EUC_2D"}, False),
        ("cuda", {"method": "greedy"}, False),
    ],
)
def test_what_runs_on_a_device(monkeypatch, device: str, options: dict, there: bool) -> None:
    seen = []

    def ask(plan) -> bool:
        instances = dataclasses.replace(plan.instances, device=torch.device(device))
        seen.append(_device.runs_on_device(dataclasses.replace(plan, instances=instances)))
        return False

    monkeypatch.setattr(MODULE, "runs_on_device", ask)
    solve(points(1), max_iterations=1, seed=0, **options)
    assert seen == [there]


@pytest.mark.gpu
def test_solve_on_a_gpu() -> None:
    coords = points(4, 200).cuda()
    result = solve(coords, max_iterations=2000, trajectories=8, seed=0)
    assert result.tours.device.type == "cuda"
    again = solve(coords, max_iterations=2000, trajectories=8, seed=0)
    assert torch.equal(result.tours, again.tours)
    with torch.cuda.graph(torch.cuda.CUDAGraph()), pytest.raises(RuntimeError, match="cannot be captured"):
        cuda.refuse_capture(coords.device)
