"""Heatmaps in every form say the same; priors; decoding."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from fastdiff_ops import tsp
from fastdiff_ops.tsp import Heatmap
from hypothesis import given, settings
from hypothesis import strategies as st
from tsp.instances import circle, distances, uniform

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks"),
]
N = 70


def sparse_heat(batch: int = 1, n: int = N, seed: int = 0):
    """Dense arrays [batch, n, n] with few entries."""
    rng = np.random.default_rng(seed)
    return rng.random((batch, n, n)) * (rng.random((batch, n, n)) < 0.2)


def plain(dense) -> list[list[tuple[int, float]]]:
    """What a heatmap says of one instance, by plain loops: neighbours of each city and (H + H^T) / 2."""
    rows = []
    for i in range(len(dense)):
        both = [(j, (dense[i][j] + dense[j][i]) / 2) for j in range(len(dense)) if j != i]
        rows.append(sorted([(j, w) for j, w in both if w > 0], key=lambda e: -e[1])[:32])
    return rows


def assert_says(heat: Heatmap, dense, rtol: float = 1e-6) -> None:
    for b, rows in enumerate(plain(d) for d in dense):
        for i, row in enumerate(rows):
            k = len(row)
            assert heat.ids[b, i, :k].tolist() == [j for j, _ in row]
            np.testing.assert_allclose(heat.weights[b, i, :k], [w for _, w in row], rtol=rtol)
            assert (heat.ids[b, i, k:] == -1).all() and not heat.weights[b, i, k:].any()


# -- formats -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
def test_dense(batch) -> None:
    dense = sparse_heat(batch)
    assert_says(Heatmap.from_any(dense), dense)
    assert_says(Heatmap.from_any(torch.from_numpy(dense).float()), dense)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.int64, torch.bool])
def test_dense_dtypes(dtype) -> None:
    dense = torch.from_numpy(sparse_heat()).mul(64).round().to(dtype)
    heat = Heatmap.from_any(dense)
    expected = Heatmap.from_any(dense.double())
    np.testing.assert_array_equal(heat.ids, expected.ids)
    np.testing.assert_array_equal(heat.weights, expected.weights)


def test_dense_in_blocks(monkeypatch) -> None:
    import fastdiff_ops.tsp.heatmaps as module

    dense = sparse_heat(3)
    monkeypatch.setattr(module, "_ROWS", 16)
    monkeypatch.setattr(module, "_BLOCK", 2 * N * N)
    assert_says(Heatmap.from_any(dense), dense)
    dense[2, 41, 7] = np.nan
    with pytest.raises(ValueError, match=r"`heatmap` must be finite, got nan at index \[2, 41, 7\]"):
        Heatmap.from_any(dense)
    dense[2, 41, 7] = -2.0
    with pytest.raises(ValueError, match=r"not be negative, got -2.0 at index \[2, 41, 7\]: for logits say"):
        Heatmap.from_any(dense)


def test_neighbour_lists() -> None:
    dense = sparse_heat(2)
    ids = np.argsort(-dense, axis=-1)[..., :20]
    weights = np.take_along_axis(dense, ids, axis=-1)
    kept = np.zeros_like(dense)
    np.put_along_axis(kept, ids, weights, axis=-1)
    ids = np.where(weights > 0, ids, -1)
    weights = np.where(weights > 0, weights, np.nan)  # what is in empty slots does not matter
    assert_says(Heatmap.from_any((ids, weights)), kept)
    assert_says(Heatmap.from_any((torch.from_numpy(ids[0]).int(), torch.from_numpy(weights[0]))), kept[:1])


def csr_arrays(matrix):
    csr = scipy.sparse.csr_array(matrix)
    return csr.indptr, csr.indices, csr.data


@pytest.mark.parametrize(
    "form",
    [
        scipy.sparse.csr_matrix,
        scipy.sparse.coo_array,
        lambda m: torch.from_numpy(m).to_sparse_csr(),
        lambda m: torch.from_numpy(m).to_sparse_coo(),
        csr_arrays,
        lambda m: tuple(map(torch.from_numpy, csr_arrays(m))),
    ],
    ids=["csr", "coo", "torch csr", "torch coo", "three arrays", "three tensors"],
)
def test_sparse_matrices(form) -> None:
    dense = sparse_heat()
    assert_says(Heatmap.from_any(form(dense[0])), dense)


@pytest.mark.parametrize("shared", [True, False])
def test_edge_weights(shared) -> None:
    dense = sparse_heat(2)
    if shared:
        dense[1] = np.where(dense[0] > 0, dense[1] + 0.1, 0)
    index = [np.stack(np.nonzero(d)) for d in dense]
    most = min(i.shape[1] for i in index)
    index = [i[:, :most] for i in index]
    for d, (i, j) in zip(dense, index, strict=True):
        there = np.zeros_like(d, dtype=bool)
        there[i, j] = True
        d[~there] = 0
    weights = np.stack([d[i, j] for d, (i, j) in zip(dense, index, strict=True)])
    both = torch.from_numpy(index[0] if shared else np.stack(index))
    assert_says(Heatmap.from_any(torch.from_numpy(weights), n=N, edge_index=both), dense)
    assert_says(Heatmap.from_any(weights[0], uniform(N, 1)[0], edge_index=index[0]), dense[:1])


def test_one_form_for_each_instance() -> None:
    dense = sparse_heat(3)
    forms = [dense[0], scipy.sparse.csr_array(dense[1]), torch.from_numpy(dense[2]).to_sparse_coo()]
    assert_says(Heatmap.from_any(forms, uniform(N, 3)), dense)


def test_a_heatmap_is_one() -> None:
    heat = Heatmap.from_any(sparse_heat())
    assert Heatmap.from_any(heat, uniform(N, 1)[0]) is heat


def test_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(1, N, N)).astype(np.float32)
    logits[0, 3] = -np.inf
    dense = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert_says(Heatmap.from_any(logits, logits=True), dense)
    there = np.random.default_rng(1).random((N, N)) < 0.2
    i, j = np.nonzero(there)
    some = Heatmap.from_any(logits[0, i, j], n=N, edge_index=np.stack([i, j]), logits=True)
    assert_says(some, np.where(there, dense, 0))
    ids = np.full((N, 2), -1)
    ids[0, 0] = 5
    assert int(Heatmap.from_any((ids, np.zeros((N, 2))), logits=True).rows_without_heat[0]) == N - 2


def test_repeated_entries_count_by_their_maximum() -> None:
    i, j, w = [0, 0, 0, 1, 2, 2], [1, 1, 1, 0, 2, 0], [0.5, 0.9, 0.1, 0.3, 7.0, 0.0]
    heat = Heatmap.from_any(np.array(w), n=3, edge_index=np.array([i, j]))
    assert heat.ids[0].tolist() == [[1], [0], [-1]] and heat.rows_without_heat.tolist() == [1]
    np.testing.assert_allclose(heat.weights[0].ravel(), [0.6, 0.6, 0])
    coo = torch.sparse_coo_tensor([i, j], w, (3, 3))
    np.testing.assert_array_equal(Heatmap.from_any(coo).weights, heat.weights)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10**6), st.integers(1, 40))
def test_sparse_and_dense_agree(n, seed, width) -> None:
    dense = sparse_heat(1, n, seed)
    one, other = (
        Heatmap.from_any(dense, width=width),
        Heatmap.from_any(scipy.sparse.csr_array(dense[0]), width=width),
    )
    k = other.ids.shape[-1]
    np.testing.assert_array_equal(one.ids[..., :k], other.ids)
    assert (one.ids[..., k:] == -1).all()
    np.testing.assert_allclose(one.weights[..., :k], other.weights, rtol=1e-6)


@pytest.mark.gpu
def test_devices() -> None:
    dense = torch.from_numpy(sparse_heat(2)).cuda()
    assert_says(Heatmap.from_any(dense), dense.cpu().numpy())
    coords = torch.from_numpy(uniform(N, 2)).cuda()
    found = tsp.solve(coords, dense, max_iterations=10, seed=0)
    assert found.tours.device == found.lengths.device == coords.device
    with pytest.warns(UserWarning, match="`heatmap` is on the CPU"):
        tsp.solve(coords, dense.cpu(), max_iterations=10, seed=0)


# -- priors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 10, 40])
@pytest.mark.parametrize("batched", [False, True])
def test_knn_prior(n, batched) -> None:
    coords = uniform(n, 2)
    table = tsp.knn_prior_table(n)[: n - 1]
    ids, weights = tsp.knn_prior_heatmap(coords if batched else coords[0])
    dense = tsp.knn_prior_heatmap(torch.from_numpy(coords if batched else coords[0]), dense=True)
    assert ids.dtype == torch.int32 and weights.dtype == dense.dtype == torch.float32
    assert ids.shape == weights.shape == (*dense.shape[:-1], len(table))
    for b in range(2 if batched else 1):
        order = np.argsort(distances(coords[b]), axis=1)[:, 1:]
        np.testing.assert_array_equal(ids[b] if batched else ids, order[:, : len(table)])
        full = (dense[b] if batched else dense).numpy()
        np.testing.assert_allclose(
            np.take_along_axis(full, order[:, : len(table)], 1), table.expand(n, -1), rtol=1e-6
        )
        assert np.count_nonzero(full) == n * len(table)


def test_knn_prior_tables() -> None:
    for n, length, first in ((749, 24, 0.440), (750, 23, 0.437), (4999, 23, 0.437), (5000, 30, 0.4417)):
        table = tsp.knn_prior_table(n)
        assert (
            len(table) == length
            and float(table.sum()) == pytest.approx(1)
            and float(table[0]) == pytest.approx(first, abs=1e-3)
        )
    ids, weights = tsp.knn_prior_heatmap(uniform(20, 1)[0], k=3, table=[6.0, 3.0, 1.0, 0.0])
    assert ids.shape == (20, 3) and weights[0].tolist() == pytest.approx([0.6, 0.3, 0.1])


def test_the_table_is_what_our_tours_say() -> None:
    """Ranks of neighbours in good tours of 16 instances: within 0.01 of the published table."""
    coords = uniform(500, 16)
    tours = tsp.solve(coords, max_iterations=1000, seed=0).tours
    table = tsp.fit_knn_prior(coords, tours)
    assert float(table.sum()) == pytest.approx(1, abs=1e-12) and len(table) == 30
    np.testing.assert_allclose(table[:5], tsp.knn_prior_table(500)[:5], atol=0.01)


def test_fit_knn_prior_counts() -> None:
    coords = uniform(15, 1)[0]
    tour = np.random.default_rng(0).permutation(15)
    rank = np.argsort(np.argsort(distances(coords), axis=1), axis=1)
    counts = np.bincount([rank[a, b] for k, a in enumerate(tour) for b in (tour[k - 1], tour[(k + 1) % 15])])[
        1:
    ]
    found = tsp.fit_knn_prior(coords, tour, k_max=20)
    np.testing.assert_allclose(found[: len(counts)], counts / 30)
    assert not found[len(counts) :].any()


@pytest.mark.parametrize("tau", [None, 0.05])
def test_softdist(tau) -> None:
    coords = uniform(100, 2)
    coords[1] *= [5.0, 2.0]
    ids, weights = tsp.softdist_heatmap(coords, tau)
    dense = tsp.softdist_heatmap(coords, tau, dense=True)
    np.testing.assert_allclose(dense.sum(-1), 1, atol=1e-5)
    for b in range(2):
        scale = tau or 0.16 * np.sqrt(np.ptp(coords[b], axis=0).prod() / 100)
        heat = np.exp(-distances(coords[b]) / scale)
        np.fill_diagonal(heat, 0)
        np.testing.assert_allclose(dense[b], heat / heat.sum(1, keepdims=True), rtol=1e-5, atol=1e-30)
        few = np.take_along_axis(heat, ids[b].numpy(), 1)
        np.testing.assert_allclose(weights[b], few / few.sum(1, keepdims=True), rtol=1e-5)


def test_softdist_of_points_far_apart_and_of_one_point() -> None:
    """exp(-d / tau) of the nearest city alone would be 0."""
    far = np.array([[0.0, 0.0], [1e6, 0.0], [0.0, 1e6], [1e-3, 1e-3]])
    assert tsp.softdist_heatmap(far, tau=1e-4)[1].sum(-1).tolist() == pytest.approx([1.0] * 4)
    same = tsp.softdist_heatmap(np.zeros((10, 2)), k=4)[1]
    np.testing.assert_allclose(same, 0.25)
    assert bool(tsp.softdist_heatmap(np.stack([np.arange(50.0), np.zeros(50)], -1))[1].isfinite().all())


@pytest.mark.parametrize("heatmap", ["knn", "softdist", "zero"])
def test_built_in_heatmaps_of_distances(heatmap) -> None:
    coords = uniform(40, 2)
    dist = np.stack([distances(c) for c in coords])
    one, other = Heatmap.from_any(heatmap, coords), Heatmap.from_any(heatmap, dist=dist)
    if heatmap == "knn":  # the temperature of SoftDist comes from the area, which distances do not tell
        np.testing.assert_array_equal(one.ids, other.ids)
    assert bool(tsp.is_tour(tsp.solve(dist=dist, heatmap=heatmap, max_iterations=5).tours).all())


# -- what heat is for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["random", "inverted", "all zero", "one city", "huge", "tiny"])
@pytest.mark.parametrize("method", ["ils", "greedy"])
def test_bad_heatmaps_still_give_tours(kind, method) -> None:
    n = 100
    coords = uniform(n, 1)[0]
    heat = {
        "random": np.random.default_rng(0).random((n, n)),
        "inverted": distances(coords),
        "all zero": np.zeros((n, n)),
        "one city": np.tile(np.eye(n)[0], (n, 1)),
        "huge": np.random.default_rng(0).random((n, n)) * 1e38,
        "tiny": np.random.default_rng(0).random((n, n)) * 1e-38,
    }[kind]
    tour, length, stats = tsp.solve(coords, heat, method=method, max_iterations=2000, seed=0)
    assert bool(tsp.is_tour(tour, n)) and stats.rows_without_heat[0] == (n if kind == "all zero" else 0)
    if method == "ils":
        assert float(length) < 1.03 * float(tsp.solve(coords, max_iterations=2000, seed=0).lengths)


def test_greedy_decode_follows_the_heat() -> None:
    n = 300
    tour = np.random.default_rng(3).permutation(n)
    coords = uniform(n, 1)[0]
    edges = np.stack([tour, np.roll(tour, -1)])
    heat = Heatmap.from_any(np.ones(n), coords, edge_index=edges)
    found = tsp.greedy_decode(heat, coords)
    around = set(map(frozenset, zip(tour.tolist(), np.roll(tour, -1).tolist(), strict=True)))
    stops = found.tolist()
    assert {frozenset(e) for e in zip(stops, stops[1:] + stops[:1], strict=True)} == around


@pytest.mark.parametrize("n", [1, 2, 5, 12, 13, 60])
@pytest.mark.parametrize("heatmap", ["zero", "knn", "softdist"])
def test_greedy_decode_gives_tours(n, heatmap) -> None:
    coords = uniform(n, 3)
    tours = tsp.greedy_decode(heatmap, coords)
    assert tours.shape == (3, n) and bool(tsp.is_tour(tours, n).all())
    assert torch.equal(tsp.greedy_decode(heatmap, torch.from_numpy(coords[1])), tours[1])


def test_greedy_decode_takes_edges_by_weight_over_length() -> None:
    """Three cities in a row, of which the far one has four times the weight and three times the distance."""
    coords = circle(20) * 0.01
    coords[:4] = [[0.0, 0.0], [1.0, 0.0], [3.0, 0.1], [0.0, 1.1]]
    heat = np.zeros((20, 20))
    heat[0, 1], heat[0, 2], heat[0, 3] = 0.3, 1.0, 0.25
    stops = tsp.greedy_decode(heat, coords).tolist()
    beside = {stops[1], stops[-1]}
    assert beside == {1, 2}
