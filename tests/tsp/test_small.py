"""Few cities are solved exactly: against all permutations. The search, against dynamic programming."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest
from fastdiff_ops import tsp
from fastdiff_ops.tsp.small import held_karp
from tsp.instances import awkward, distances, keeps, shortest, summed, uniform


@pytest.mark.parametrize("n", range(4, 9))
def test_equals_all_permutations(n) -> None:
    coords = uniform(n, 5)
    _, lengths, stats = tsp.solve(coords)
    assert stats.stopped_by == "exact" and (stats.lower_bound == lengths.numpy()).all()
    for instance, length in zip(coords, lengths.tolist(), strict=True):
        assert length == pytest.approx(shortest(distances(instance)), rel=1e-12)


@pytest.mark.parametrize("ends", [(None, None), (2, None), (None, 0), (4, 1)])
@pytest.mark.parametrize("edges", [[], [(0, 3)], [(0, 3), (3, 1), (2, 5)]])
def test_paths_and_fixed_edges(ends, edges) -> None:
    coords = uniform(6, 4)
    tours, lengths, _ = tsp.solve(coords, open_path=True, ends=ends, fixed_edges=edges)
    for instance, tour, length in zip(coords, tours.tolist(), lengths.tolist(), strict=True):
        assert all(e in (None, c) for e, c in zip(ends, (tour[0], tour[-1]), strict=True))
        assert keeps(tour, edges, open_path=True)
        best = shortest(distances(instance), open_path=True, ends=ends, edges=edges)
        assert length == pytest.approx(best, rel=1e-12)


def test_fixed_edges_of_each_instance() -> None:
    coords = uniform(6, 2)
    edges = [[(0, 1), (2, 3)], [(5, 3), (3, 4)]]
    tours, lengths, _ = tsp.solve(coords, fixed_edges=edges)
    for b in range(2):
        assert keeps(tours[b], edges[b])
        assert float(lengths[b]) == pytest.approx(shortest(distances(coords[b]), edges=edges[b]), rel=1e-12)


def test_the_whole_tour_may_be_fixed() -> None:
    order = [3, 0, 4, 1, 5, 2]
    edges = list(itertools.pairwise([*order, 3]))
    assert tsp.solve(uniform(6, 1)[0], fixed_edges=edges).tours.tolist() == [0, 3, 2, 5, 1, 4]


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("open_path", [False, True])
def test_trivial(n, open_path) -> None:
    coords = uniform(n, 2)
    tours, lengths, _ = tsp.solve(coords, open_path=open_path, method="greedy")
    assert bool(tsp.is_tour(tours, n).all())
    for b in range(2):
        expected = shortest(distances(coords[b]), open_path=open_path)
        assert float(lengths[b]) == pytest.approx(expected, abs=1e-12)


def test_one_city_by_itself() -> None:
    assert tsp.solve([[2.0, 3.0]], metric="GEO", open_path=True, ends=(0, 0)).lengths.item() == 0.0


@pytest.fixture
def searched(monkeypatch) -> None:
    """Few cities go to the search, as many do."""
    monkeypatch.setattr(importlib.import_module("fastdiff_ops.tsp.solve"), "MOST_CITIES", 9)


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("kind", ["uniform", "duplicates", "collinear", "clusters"])
@pytest.mark.parametrize("n", [10, 11, 12])
def test_the_search_finds_what_dynamic_programming_finds(n, kind) -> None:
    coords = np.stack([awkward(n, kind, seed) for seed in range(6)])
    lengths = np.stack([distances(c) for c in coords])
    best = [summed(d, tour) for d, tour in zip(lengths, held_karp(lengths), strict=True)]
    found = tsp.solve(coords, max_iterations=3000, seed=0)
    assert found.stats.stopped_by == "iterations"
    np.testing.assert_allclose(found.lengths, best, rtol=1e-6)


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("ends", [(None, None), (7, None), (None, 7), (7, 3)])
@pytest.mark.parametrize("edges", [[], [(7, 1), (1, 4), (0, 9)]])
def test_searched_paths(ends, edges) -> None:
    """Against dynamic programming over distances that enforce the same route."""
    coords = uniform(10, 6)
    tours, lengths, _ = tsp.solve(
        coords, open_path=True, ends=ends, fixed_edges=edges, max_iterations=1000, seed=1
    )
    gaps = []
    for b in range(6):
        d = distances(coords[b])
        enforced = np.pad(d, (0, 1))
        for end in ends:
            if end is not None:
                enforced[[10, end], [end, 10]] -= 100
        for u, v in edges:
            enforced[[u, v], [v, u]] -= 100
        path = held_karp(enforced[None])[0][:-1]
        assert keeps(tours[b], edges, open_path=True)
        assert all(e in (None, c) for e, c in zip(ends, tours[b].tolist()[::9], strict=True))
        gaps.append(float(lengths[b]) / summed(d, path, open_path=True) - 1)
    assert min(gaps) >= -1e-12
    assert sum(gap > 1e-6 for gap in gaps) <= 1 and max(gaps) < 0.01
