"""What holds for every instance: tours are permutations, lengths are true, nothing gets worse."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from fastdiff_ops import tsp
from hypothesis import given, settings
from tsp.instances import circle, distances, lattice, points, summed

RTOL = 1e-12


@settings(max_examples=80, deadline=None)
@given(points(), st.integers(0, 3), st.sampled_from(["ils", "mcts", "greedy"]))
def test_permutation_length_and_no_worse_than_greedy(coords, seed, method) -> None:
    tour, length, stats = tsp.solve(coords, method=method, max_iterations=50, seed=seed)
    assert sorted(tour.tolist()) == list(range(len(coords)))
    assert float(length) == pytest.approx(summed(distances(coords), tour), rel=RTOL, abs=1e-300)
    if method == "ils":
        assert float(length) <= float(tsp.solve(coords, method="greedy").lengths) * (1 + 1e-6)
    assert stats.lengths[0] == float(length)


@settings(max_examples=60, deadline=None)
@given(points(), st.randoms(use_true_random=False))
def test_never_longer_than_where_it_starts(coords, random) -> None:
    start = random.sample(range(len(coords)), len(coords))
    before = summed(distances(coords), start)
    descended = tsp.two_opt(coords, start)
    assert sorted(descended.tolist()) == list(range(len(coords)))
    assert float(tsp.tour_length(coords, descended)) <= before
    assert float(tsp.solve(coords, init=start, max_iterations=20, seed=0).lengths) <= before


@settings(max_examples=60, deadline=None)
@given(points(smallest=10, largest=30), st.data())
def test_routes_are_kept(coords, data) -> None:
    n = len(coords)
    cities = data.draw(st.permutations(range(n)))
    edges = [
        (cities[k], cities[k + 1]) for k in sorted(data.draw(st.sets(st.integers(1, n - 3), max_size=6)))
    ]
    ends = data.draw(
        st.sampled_from([(None, None), (cities[0], None), (None, cities[-1]), (cities[0], cities[-1])])
    )
    tour, length, _ = tsp.solve(
        coords, open_path=True, ends=ends, fixed_edges=edges, max_iterations=30, seed=0
    )
    path = tour.tolist()
    assert sorted(path) == list(range(n))
    assert all(end in (None, city) for end, city in zip(ends, (path[0], path[-1]), strict=True))
    beside = {frozenset(path[k : k + 2]) for k in range(n - 1)}
    assert all(frozenset(edge) in beside for edge in edges)
    assert float(length) == pytest.approx(
        summed(distances(coords), path, open_path=True), rel=RTOL, abs=1e-300
    )


@settings(max_examples=40, deadline=None)
@given(points(smallest=10), st.integers(0, 100))
def test_explicit_distances_are_the_same_problem(coords, seed) -> None:
    by_points = tsp.solve(coords, max_iterations=400, seed=seed).lengths
    d = distances(coords)
    tour, length, _ = tsp.solve(dist=d, max_iterations=400, seed=seed)
    assert float(length) == pytest.approx(summed(d, tour), rel=RTOL, abs=1e-300)
    assert float(length) <= float(by_points) * 1.1 + 1e-9


@pytest.mark.parametrize("n", [100, 400, 1000])
def test_circle(n) -> None:
    found = tsp.solve(circle(n), max_iterations=4 * n, seed=0)
    assert float(found.lengths) == pytest.approx(2 * n * np.sin(np.pi / n), rel=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(10, 10), (10, 21), (20, 25)])
def test_even_lattice(rows, columns) -> None:
    found = tsp.solve(lattice(rows, columns), max_iterations=10 * rows * columns, seed=0)
    assert float(found.lengths) == rows * columns


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_units_do_not_matter(scale) -> None:
    coords = torch.rand(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = tsp.solve(coords, max_iterations=500, seed=0)
    scaled = tsp.solve(coords * scale, max_iterations=500, seed=0)
    assert float(scaled.lengths) == pytest.approx(float(plain.lengths) * scale, rel=1e-3)
