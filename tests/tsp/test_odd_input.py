"""What the tour search takes although it looks odd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fastdiff_ops import tsp
from tsp.instances import awkward, circle, distances, uniform

N = 20
COORDS = uniform(N, 1)[0]


@pytest.mark.parametrize(
    "coords",
    [
        awkward(N, "one point", 0),
        awkward(500, "duplicates", 0),
        np.stack([np.arange(30), np.zeros(30)], -1),
        COORDS * 1e-300,
        COORDS * 1e150,
        COORDS + 1e9,
        np.float16(COORDS),
        np.int32(COORDS * 100),
        COORDS[::-1],
        COORDS.astype(np.longdouble),
        torch.from_numpy(COORDS)[:, [1, 0]].T.contiguous().T,
        COORDS.tolist(),
    ],
    ids=[
        "one point",
        "copies",
        "line",
        "tiny",
        "huge",
        "far",
        "half",
        "ints",
        "reversed",
        "long",
        "strided",
        "list",
    ],
)
def test_taken(coords) -> None:
    tour, length, _ = tsp.solve(coords, max_iterations=100, seed=0)
    assert bool(tsp.is_tour(tour, len(coords))) and math.isfinite(float(length))


def test_a_line_there_and_back() -> None:
    assert (
        float(tsp.solve(np.stack([np.arange(30), np.zeros(30)], -1), max_iterations=300, seed=0).lengths)
        == 58
    )
    assert float(tsp.solve(awkward(N, "one point", 0), max_iterations=300, seed=0).lengths) == 0


def test_many_copies_of_points_are_visited_together() -> None:
    """Neighbour lists that were full of copies would cut points off."""
    coords = np.repeat(circle(12), 100, axis=0)[np.random.default_rng(0).permutation(1200)]
    found = tsp.solve(coords, max_iterations=100, seed=0)
    assert float(found.lengths) == pytest.approx(24 * math.sin(math.pi / 12), rel=1e-9)


def test_diagonals_mean_nothing() -> None:
    d = distances(circle(16))
    for diagonal in (5.0, -5.0 * 0, 1e9):
        found = tsp.solve(dist=d + np.eye(16) * diagonal, max_iterations=200, seed=0)
        assert float(found.lengths) == pytest.approx(32 * math.sin(math.pi / 16), rel=1e-9)
    heat = tsp.Heatmap.from_any(np.eye(N))
    assert int(heat.rows_without_heat[0]) == N


def test_float_distances_may_differ_by_rounding() -> None:
    points = torch.rand(40, 2, generator=torch.Generator().manual_seed(0))
    assert bool(tsp.is_tour(tsp.solve(dist=torch.cdist(points, points), max_iterations=10).tours))


def test_an_empty_batch() -> None:
    result = tsp.solve(np.empty((0, N, 2)))
    assert result.tours.shape == (0, N) and result.lengths.shape == (0,)
