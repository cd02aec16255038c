"""Instances that the tests of the tour search share."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

# Shortest tours known of `uniform(n)`: by LKH and by another solver; for 200 cities they agree.
BEST_KNOWN = {
    200: (10.451862, 10.553992, 10.769151, 10.573962, 10.409837, 10.419124, 10.802699, 10.656037),
    500: (16.035376, 16.621987, 16.613957, 16.605897, 16.502802, 16.383414, 16.765902, 16.609078),
}


def uniform(n: int, count: int = 8) -> Points:
    return np.random.default_rng([1234, n]).random((count, n, 2))


def circle(n: int, seed: int = 0) -> Points:
    """Points on a circle of radius 1, in random order."""
    angles = 2 * np.pi * np.random.default_rng(seed).permutation(n) / n
    return np.stack([np.cos(angles), np.sin(angles)], -1)


def lattice(rows: int, columns: int, seed: int = 0) -> Points:
    """Points one apart, in random order; with an even number of rows the shortest tour has no longer edge."""
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns)), -1).reshape(-1, 2)
    return np.random.default_rng(seed).permutation(grid.astype(float))


def awkward(n: int, kind: str, seed: int) -> Points:
    """Points of the kinds that break neighbour lists."""
    rng = np.random.default_rng([n, seed])
    if kind == "duplicates":
        return rng.integers(0, 3, (n, 2)).astype(float)
    if kind == "one point":
        return np.full((n, 2), 3.25)
    if kind == "collinear":
        return np.stack([rng.random(n), np.zeros(n)], -1) @ np.array([[0.6, 0.8], [-0.8, 0.6]])
    if kind == "clusters":
        return rng.integers(0, 3, (n, 1)) * 100.0 + rng.normal(size=(n, 2))
    if kind == "far away":
        return 1e6 + rng.random((n, 2))
    return rng.random((n, 2))


KINDS = ("uniform", "duplicates", "one point", "collinear", "clusters", "far away")


@st.composite
def points(draw: st.DrawFn, smallest: int = 5, largest: int = 50) -> Points:
    """Instances of any kind, and small ones that hypothesis makes up point by point."""
    kind = draw(st.sampled_from((*KINDS, "any")))
    n = draw(st.integers(smallest, largest))
    if kind != "any":
        return awkward(n, kind, draw(st.integers(0, 1000)))
    values = st.floats(-1e3, 1e3, width=32)
    return np.array(draw(st.lists(st.tuples(values, values), min_size=n, max_size=n)))


def distances(coords: Points) -> Points:
    return np.linalg.norm(coords[:, None] - coords, axis=-1)


def summed(lengths: Points, tour, *, open_path: bool = False) -> float:
    """The length of a tour by plain Python."""
    stops = [int(c) for c in tour]
    back = 0.0 if open_path else float(lengths[stops[-1], stops[0]])
    return sum(float(lengths[a, b]) for a, b in itertools.pairwise(stops)) + back


def keeps(tour, edges, *, open_path: bool = False) -> bool:
    """Whether a tour has all of some edges."""
    stops = [int(c) for c in tour]
    around = itertools.pairwise(stops if open_path else [*stops, stops[0]])
    there = {frozenset(edge) for edge in around}
    return all(frozenset(map(int, edge)) in there for edge in edges)


def shortest(lengths: Points, *, open_path: bool = False, ends=(None, None), edges=()) -> float:
    """The length of the shortest tour, by trying all."""
    cities = range(len(lengths))
    orders = (
        itertools.permutations(cities) if open_path else ((0, *p) for p in itertools.permutations(cities[1:]))
    )
    best = np.inf
    for order in orders:
        if open_path and any(e not in (None, c) for e, c in zip(ends, (order[0], order[-1]), strict=True)):
            continue
        if keeps(order, edges, open_path=open_path):
            best = min(best, summed(lengths, order, open_path=open_path))
    return best
