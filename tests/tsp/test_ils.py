"""The iterated local search behind its binding: determinism, slices, known optima, wrong input."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from fastdiff_ops import _host
from numpy.typing import NDArray

Order = NDArray[np.int32]


def points(n: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).random((n, 2))


def searched(problem: _host.TourProblem, **options: Any) -> _host.IlsSearch:
    search = _host.IlsSearch(problem, **options)
    assert search.run(60.0)
    order = search.best()
    assert sorted(order) == list(range(problem.n))
    assert problem.tour_length(order) == search.best_length
    return search


def exact(lengths: NDArray[np.float64]) -> float:
    """Return the shortest tour's length, by Held and Karp's dynamic programme."""
    n = len(lengths)
    best = {(1 << k, k): lengths[n - 1, k] for k in range(n - 1)}
    for size in range(2, n):
        for chosen in itertools.combinations(range(n - 1), size):
            bits = sum(1 << k for k in chosen)
            for k in chosen:
                rest = bits ^ (1 << k)
                best[bits, k] = min(best[rest, j] + lengths[j, k] for j in chosen if j != k)
    return float(min(best[(1 << (n - 1)) - 1, k] + lengths[k, n - 1] for k in range(n - 1)))


@pytest.mark.parametrize("open_path", [False, True])
def test_the_same_kicks_give_the_same_tour(open_path: bool) -> None:
    problem = _host.TourProblem(coords=points(300), open_path=open_path)
    first, again = (searched(problem, seed=7, max_kicks=400) for _ in range(2))
    other = searched(problem, seed=8, max_kicks=400)
    assert (first.best() == again.best()).all()
    assert (first.kicks, first.accepted) == (again.kicks, again.accepted)
    assert first.accepted != other.accepted


def test_trajectories_and_instances_have_streams_of_their_own() -> None:
    problem = _host.TourProblem(coords=points(300))
    runs = [searched(problem, max_kicks=400, trajectory=t, instance=i) for t, i in [(0, 0), (1, 0), (0, 1)]]
    assert len({run.accepted for run in runs}) > 1


def test_where_slices_end_changes_nothing() -> None:
    problem = _host.TourProblem(coords=points(400))
    whole = searched(problem, max_kicks=500)
    sliced = _host.IlsSearch(problem, max_kicks=500)
    slices = 1
    while not sliced.run(1e-4):
        slices += 1
    assert slices > 5
    assert (sliced.best() == whole.best()).all()
    assert (sliced.kicks, sliced.accepted) == (whole.kicks, whole.accepted)


def test_a_search_without_kicks_ends_with_its_descent() -> None:
    problem = _host.TourProblem(coords=points(20_000))
    whole = searched(problem, max_kicks=0)
    sliced = _host.IlsSearch(problem, max_kicks=0)
    slices = 1
    while not sliced.run(1e-4):
        slices += 1
    assert slices > 2
    assert sliced.best_length == whole.best_length == whole.first_local_optimum


def test_an_interrupted_descent_has_a_tour() -> None:
    problem = _host.TourProblem(coords=points(5000))
    search = _host.IlsSearch(problem, max_kicks=10**9)
    before = search.best_length
    assert not search.run(1e-4)
    assert search.first_local_optimum == 0
    assert problem.tour_length(search.best()) == search.best_length <= before


def test_cities_on_a_circle() -> None:
    angles = np.random.default_rng(1).permutation(200) * 2 * np.pi / 200
    problem = _host.TourProblem(coords=np.stack([np.cos(angles), np.sin(angles)], 1))
    turned = np.argsort(angles).astype(np.int32)
    assert searched(problem, max_kicks=500).best_length == problem.tour_length(turned)


def test_a_lattice_has_a_tour_of_unit_steps() -> None:
    lattice = np.stack(np.meshgrid(np.arange(12.0), np.arange(12.0)), -1).reshape(-1, 2)
    problem = _host.TourProblem(coords=lattice, metric="euc_2d")
    assert searched(problem, max_kicks=3000).best_length == 144


@pytest.mark.parametrize("n", [8, 9, 10, 11])
def test_few_cities_are_solved_exactly(n: int) -> None:
    coords = np.round(points(n, n) * 1000)
    matrix = np.rint(np.linalg.norm(coords[:, None] - coords, axis=-1)).astype(np.int32)
    problem = _host.TourProblem(matrix=matrix, candidates=n - 1)
    assert searched(problem, max_kicks=500).best_length == exact(matrix)


def test_more_kicks_are_better_and_the_first_optimum_is_kept() -> None:
    problem = _host.TourProblem(coords=points(500), candidates=5, alpha=True)
    none, some = (searched(problem, max_kicks=k) for k in (0, 2000))
    assert none.best_length == none.first_local_optimum == some.first_local_optimum
    assert some.best_length < none.best_length


def test_fixed_edges_are_in_the_tour() -> None:
    pairs = np.array([[0, 17], [17, 40], [3, 90]], np.int32)
    order = list(searched(_host.TourProblem(coords=points(100), fixed=pairs), max_kicks=500).best())
    for a, b in pairs:
        assert abs(order.index(a) - order.index(b)) in (1, 99)


def test_a_depot_makes_a_path() -> None:
    coords = np.stack([np.random.default_rng(2).permutation(50), np.zeros(50)], 1)
    problem = _host.TourProblem(coords=coords, open_path=True, metric="euc_2d")
    search = searched(problem, max_kicks=200)
    along = coords[search.best(), 0]
    assert search.best_length == 49
    assert (np.abs(np.diff(along)) == 1).all()


def test_a_descent_improves_a_given_tour() -> None:
    problem = _host.TourProblem(coords=points(200))
    start = np.arange(200, dtype=np.int32)
    order = problem.optimise(start)
    assert problem.tour_length(order) < 0.3 * problem.tour_length(start)
    assert problem.tour_length(problem.optimise(order)) <= problem.tour_length(order)
    assert searched(problem, start=order, max_kicks=0).best_length <= problem.tour_length(order)


@pytest.mark.parametrize(
    ("start", "text"),
    [
        (np.zeros(20, np.int32), "0 comes twice"),
        (np.arange(1, 21, dtype=np.int32), "20 comes twice or is no city"),
        (np.arange(19, dtype=np.int32), r"shape \[20\]"),
    ],
)
def test_a_start_must_be_a_tour(start: Order, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        _host.IlsSearch(_host.TourProblem(coords=points(20)), start=start, max_kicks=1)


def test_too_few_cities() -> None:
    with pytest.raises(ValueError, match="at least 8"):
        _host.IlsSearch(_host.TourProblem(coords=points(7)), max_kicks=1)
