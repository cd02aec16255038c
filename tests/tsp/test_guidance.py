"""What heat is good for: the gap with the best heatmap, with priors, with none, with a wrong one."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from fastdiff_ops import tsp
from tsp.instances import BEST_KNOWN, distances, uniform

N = 200
COORDS = uniform(N)
BEST = np.array(BEST_KNOWN[N])
KICKS = 20


@functools.cache
def optimal_edges() -> list[tsp.Heatmap]:
    """Heat on the edges of tours as short as the shortest known."""
    found = tsp.solve(COORDS, max_iterations=2000, seed=1)
    np.testing.assert_allclose(found.lengths, BEST, rtol=3e-4)
    tours = found.tours.numpy()
    index = np.stack([tours, np.roll(tours, -1, axis=1)], axis=1)
    return [tsp.Heatmap.from_any(np.ones(N), n=N, edge_index=edges) for edges in index]


def heatmap(kind: str):
    return {
        "none": lambda: None,
        "optimal": optimal_edges,
        "prior": lambda: "knn",
        "softdist": lambda: "softdist",
        "random": lambda: np.random.default_rng(0).random((len(COORDS), N, N)),
        "inverted": lambda: np.stack([distances(c) for c in COORDS]),
        "zero": lambda: "zero",
    }[kind]()


@functools.cache
def gap(kind: str, method: str = "ils", **options) -> float:
    """Mean gap after a few kicks, in percent."""
    found = tsp.solve(COORDS, heatmap(kind), method=method, seed=0, **{"max_iterations": KICKS, **options})
    assert bool(tsp.is_tour(found.tours, N).all())
    return float(100 * (found.lengths.numpy() / BEST - 1).mean())


def test_the_best_heatmap_leads_to_the_optimum_at_once() -> None:
    print(f"optimal: {gap('optimal'):.3f} %, none: {gap('none'):.3f} % after {KICKS} kicks")
    assert gap("optimal") < 0.2 < gap("none")
    assert gap("optimal", candidates=3) < 0.05
    assert gap("optimal", method="greedy") < 0.4 * gap("none", method="greedy")
    tours = torch.stack([tsp.greedy_decode(h, c) for h, c in zip(optimal_edges(), COORDS, strict=True)])
    np.testing.assert_allclose(tsp.tour_length(COORDS, tours), BEST, rtol=3e-4)


@pytest.mark.parametrize("kind", ["prior", "softdist", "zero", "random", "inverted"])
def test_no_heatmap_does_much_harm(kind) -> None:
    """Candidates are never those of the heatmap alone."""
    more = {"max_iterations": 600}
    print(f"{kind}: {gap(kind):.3f} % after {KICKS} kicks, {gap(kind, **more):.3f} % after 600")
    assert gap(kind, **more) < gap("none", **more) + 0.3


def test_zero_is_none() -> None:
    assert gap("zero") == gap("none") and gap("zero", max_iterations=400) == gap("none", max_iterations=400)


def test_the_published_search_needs_its_prior() -> None:
    gaps = {kind: gap(kind, "mcts", max_iterations=3000) for kind in ("prior", "softdist", "random")}
    print({kind: round(value, 3) for kind, value in gaps.items()})
    assert max(gaps["prior"], gaps["softdist"]) < 5 < gaps["random"]


def test_the_published_search_returns_a_random_state_that_nothing_improves() -> None:
    """With all heat on the optimal edges the first state is the optimum."""
    assert gap("optimal", "mcts", max_iterations=500) < 0.5
