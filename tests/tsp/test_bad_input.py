"""What the tour search refuses, by name."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from fastdiff_ops import tsp
from tsp.instances import distances, uniform

N = 20
COORDS = uniform(N, 1)[0]
BATCH = uniform(N, 3)
DIST = distances(COORDS)
TOUR = list(range(N))
EDGES = np.stack([TOUR, np.roll(TOUR, 1)])


def changed(array, index, value):
    other = np.array(array, dtype=float)
    other[index] = value
    return other


ILS, GREEDY = tsp.ILSConfig(), {"method": "greedy"}
LOPSIDED = changed(DIST, (3, 8), 7.0)
RESULT = tsp.TSPResult(torch.zeros(N, dtype=torch.int64), torch.zeros(()), tsp.SearchStats.empty(1))

REFUSED = [
    # instances
    ({"coords": None}, ValueError, "give either `coords` or `dist`, got none"),
    ({"dist": DIST}, ValueError, "give either `coords` or `dist`, got both"),
    (
        {"coords": changed(COORDS, (3, 1), np.nan)},
        ValueError,
        "`coords` must be finite, got nan at index [3, 1]",
    ),
    (
        {"coords": changed(BATCH, (2, 0, 1), -np.inf)},
        ValueError,
        "`coords` must be finite, got -inf at index [2, 0, 1]",
    ),
    ({"coords": COORDS[0]}, ValueError, "`coords` must have shape [N, 2] or [B, N, 2], got (2,)"),
    ({"coords": uniform(3, 4).transpose(0, 2, 1)}, ValueError, "got (4, 2, 3)"),
    ({"coords": COORDS[:0]}, ValueError, "`coords` must hold at least one city, got shape (0, 2)"),
    ({"coords": BATCH[:, :0]}, ValueError, "`coords` must hold at least one city, got shape (3, 0, 2)"),
    ({"coords": COORDS + 0j}, TypeError, "`coords` must hold real numbers, got dtype complex128"),
    ({"coords": torch.zeros(5, 2, dtype=torch.complex64)}, TypeError, "`coords` must hold real numbers"),
    ({"coords": COORDS.astype(object)}, TypeError, "`coords` must hold real numbers, got dtype object"),
    ({"coords": [[0.0, 1.0], [2.0]]}, TypeError, "`coords` must be a rectangular array of numbers"),
    ({"coords": "berlin52"}, TypeError, "`coords` must be a Tensor or an ndarray, got str"),
    ({"coords": torch.zeros(5, 2).to_sparse()}, TypeError, "`coords` must be a dense tensor"),
    ({"coords": COORDS * 1e9, "metric": "EUC_2D"}, ValueError, "`coords` span more than the 134217728 units"),
    ({"metric": "EUC_3D"}, ValueError, "`metric` must be one of euclidean, euc_2d, ceil_2d"),
    ({"metric": "explicit"}, ValueError, "`metric` must be one of"),
    ({"metric": 2}, TypeError, "`metric` must be a str, got int"),
    ({"coords": None, "dist": COORDS}, ValueError, "`dist` must have shape [N, N] or [B, N, N], got (20, 2)"),
    (
        {"coords": None, "dist": changed(DIST, (2, 5), np.nan)},
        ValueError,
        "`dist` must be finite, got nan at index [2, 5]",
    ),
    ({"coords": None, "dist": -DIST}, ValueError, "`dist` must not be negative"),
    (
        {"coords": None, "dist": LOPSIDED},
        ValueError,
        f"|d_ij - d_ji| is up to {7 - DIST[3, 8]:g}: cities 3 and 8",
    ),
    ({"coords": None, "dist": DIST > 0}, TypeError, "`dist` must hold numbers, got torch.bool"),
    (
        {"coords": None, "dist": torch.zeros(1).expand(20_001, 20_001)},
        ValueError,
        "at most 20000 cities, got 20001",
    ),
    # heatmaps
    (
        {"heatmap": np.zeros((N, N - 1))},
        ValueError,
        "`heatmap` must have shape [N, N] or [B, N, N], got (20, 19)",
    ),
    (
        {"heatmap": np.zeros((N + 1, N + 1))},
        ValueError,
        "`heatmap` must fit 1 instances of 20 cities, got shape (21, 21)",
    ),
    (
        {"coords": BATCH, "heatmap": np.zeros((2, N, N))},
        ValueError,
        "must fit 3 instances of 20 cities, got shape (2, 20, 20)",
    ),
    (
        {"coords": BATCH, "heatmap": np.zeros((N, N))},
        ValueError,
        "must fit 3 instances of 20 cities, got shape (20, 20)",
    ),
    (
        {"heatmap": changed(np.zeros((N, N)), (4, 1), -1)},
        ValueError,
        "got -1.0 at index [4, 1]: for logits say `logits=True`",
    ),
    (
        {"heatmap": changed(np.zeros((N, N)), (4, 1), np.inf)},
        ValueError,
        "`heatmap` must be finite, got inf at index [4, 1]",
    ),
    (
        {"heatmap": changed(np.zeros((N, N)), (4, 1), np.nan), "logits": True},
        ValueError,
        "`heatmap` must not be NaN, got nan",
    ),
    ({"heatmap": np.zeros((N, N), complex)}, TypeError, "`heatmap` must hold real numbers"),
    ({"heatmap": "gnn"}, ValueError, "`heatmap` must be one of knn, softdist, zero, or numbers, got 'gnn'"),
    ({"heatmap": "knn", "logits": True}, ValueError, "`logits` needs a heatmap of numbers, got 'knn'"),
    ({"logits": 1}, TypeError, "`logits` must be a bool, got int"),
    (
        {"heatmap": (np.zeros((N, 3), int), np.zeros((N, 2)))},
        ValueError,
        "must both have shape [N, K] or [B, N, K], got (20, 3) and (20, 2)",
    ),
    (
        {"heatmap": (np.full((N, 1), N), np.ones((N, 1)))},
        ValueError,
        "`heatmap ids` must be in [0, 20), got 20",
    ),
    (
        {"heatmap": (np.full((N, 1), -2), np.ones((N, 1)))},
        ValueError,
        "`heatmap` ids must be in [-1, 20), got -2",
    ),
    (
        {"heatmap": (np.zeros((N, 1)), np.ones((N, 1)))},
        TypeError,
        "`heatmap ids` must hold integers, got torch.float64",
    ),
    (
        {"heatmap": (np.zeros((9, 1), int), np.ones((9, 1)))},
        ValueError,
        "must fit 1 instances of 20 cities, got shape (9, 1)",
    ),
    (
        {"heatmap": (np.zeros((N, 1), int), -np.ones((N, 1)))},
        ValueError,
        "`heatmap` must not be negative, got -1.0 at index [0, 0]",
    ),
    (
        {"heatmap": (1, 2, 3, 4)},
        TypeError,
        "`heatmap` must be (ids, weights) or (indptr, indices, data) when a tuple, got 4",
    ),
    (
        {"heatmap": (np.arange(N + 1), np.zeros(N, int), np.zeros(3))},
        ValueError,
        "must have shapes [N + 1], [E], [E]",
    ),
    (
        {"heatmap": (np.arange(N + 1)[::-1].copy(), np.zeros(N, int), np.zeros(N))},
        ValueError,
        "indptr must rise from 0 to the number of entries, 20",
    ),
    (
        {"heatmap": (np.arange(N + 1), np.full(N, N), np.ones(N))},
        ValueError,
        "`heatmap ids` must be in [0, 20), got 20",
    ),
    (
        {"heatmap": torch.zeros(N, N + 1).to_sparse()},
        ValueError,
        "`heatmap` must have shape [N, N] when sparse, got (20, 21)",
    ),
    (
        {"heatmap": [np.zeros((N, N))] * 2},
        ValueError,
        "`heatmap` must hold one for each of 1 instances, got 2",
    ),
    ({"heatmap": {}}, TypeError, "`heatmap` must be a Tensor or an ndarray, got dict"),
    (
        {"heatmap": np.ones(N), "edge_index": EDGES[:, 1:]},
        ValueError,
        "`edge_index` must have a column for each weight of (20,), got (2, 19)",
    ),
    ({"heatmap": np.ones(N), "edge_index": EDGES + 1}, ValueError, "`edge_index` must be in [0, 20), got 20"),
    ({"heatmap": np.ones(N), "edge_index": EDGES * 1.0}, TypeError, "`edge_index` must hold integers"),
    (
        {"heatmap": np.ones(N), "edge_index": EDGES.T},
        ValueError,
        "`edge_index` [2, E] or [B, 2, E], got (20,) and (20, 2)",
    ),
    (
        {"heatmap": np.ones((2, N)), "edge_index": EDGES},
        ValueError,
        "must fit 1 instances of 20 cities, got shape (2, 20)",
    ),
    ({"edge_index": EDGES}, TypeError, "`heatmap` must be a Tensor or an ndarray, got NoneType"),
    # limits and choices
    ({"time_limit": 0}, ValueError, "`time_limit` must be positive, got 0"),
    ({"time_limit": -1.0}, ValueError, "`time_limit` must be positive, got -1.0"),
    ({"time_limit": math.nan}, ValueError, "`time_limit` must be positive, got nan"),
    ({"time_limit": "1s"}, TypeError, "`time_limit` must be a number, got str"),
    ({"max_iterations": -1}, ValueError, "`max_iterations` must be at least 0, got -1"),
    ({"max_iterations": 1.5}, TypeError, "`max_iterations` must be an int, got 1.5"),
    ({"trajectories": 0}, ValueError, "`trajectories` must be at least 1, got 0"),
    ({"threads": 0}, ValueError, "`threads` must be at least 1, got 0"),
    ({"candidates": 0}, ValueError, "`candidates` must be at least 1, got 0"),
    ({"candidates": 17}, ValueError, "`candidates` must be at most 16, got 17"),
    ({"method": "lkh"}, ValueError, "`method` must be one of ils, mcts, greedy, got 'lkh'"),
    ({"config": {"segment": 3}}, TypeError, "`config` of method 'ils' must be a ILSConfig, got dict"),
    ({"config": tsp.MCTSConfig()}, TypeError, "`config` of method 'ils' must be a ILSConfig, got MCTSConfig"),
    ({"config": ILS, **GREEDY}, TypeError, "`config` of method 'greedy' must be None, got ILSConfig"),
    ({"seed": 1.5}, TypeError, "`seed` must be"),
    ({"callback": 3}, TypeError, "`callback` must be callable, got int"),
    ({"bound": [1.0, 2.0]}, ValueError, "`bound` must be a number, or one for each of 1 instances, got 2"),
    ({"bound": -1.0}, ValueError, "`bound` must be finite and at least 0, got [-1.0]"),
    ({"bound": math.inf}, ValueError, "`bound` must be finite and at least 0"),
    ({"stop_gap": 0.1, "method": "mcts"}, ValueError, "`stop_gap` needs `bound` with method 'mcts'"),
    ({"stop_gap": -0.1, "bound": 1.0}, ValueError, "`stop_gap` must be finite and at least 0, got -0.1"),
    (
        {"stop_seconds_without_improvement": 0},
        ValueError,
        "`stop_seconds_without_improvement` must be positive, got 0",
    ),
    # starts and routes
    ({"init": TOUR[1:]}, ValueError, "`init` must have shape [20], got (19,)"),
    ({"init": [0, *TOUR[:-1]]}, ValueError, "`init` must visit every city once, but tour 0 does not"),
    ({"init": [float(c) for c in TOUR]}, TypeError, "`init` must hold integers, got torch.float64"),
    ({"init": RESULT}, ValueError, "`init` must visit every city once, but tour 0 does not"),
    ({"coords": BATCH, "init": TOUR}, ValueError, "`init` must have shape [3, 20], got (20,)"),
    (
        {"init": TOUR, "fixed_edges": [[3, 7]]},
        ValueError,
        "`init` must keep to the route, but tour 0 lacks the fixed edge (3, 7)",
    ),
    (
        {"init": TOUR, "open_path": True, "ends": (5, None)},
        ValueError,
        "tour 0 goes from 0 to 19, but `ends` is (5, None)",
    ),
    ({"open_path": 1}, TypeError, "`open_path` must be a bool, got int"),
    ({"ends": (0, 1)}, ValueError, "`ends` needs `open_path=True`"),
    ({"open_path": True, "ends": (0, N)}, ValueError, "`ends` must be in [0, 20), got 20"),
    ({"open_path": True, "ends": (4, 4)}, ValueError, "`ends` must differ, got 4 twice"),
    ({"open_path": True, "ends": (4,)}, TypeError, "`ends` must be a pair (first, last)"),
    ({"open_path": True, "ends": (0.5, 1)}, TypeError, "`ends` must hold ints or None, got 0.5"),
    (
        {"fixed_edges": [[0, 1, 2]]},
        ValueError,
        "`fixed_edges` must have shape [M, 2] or [B, M, 2], got (1, 3)",
    ),
    ({"fixed_edges": [[0, N]]}, ValueError, "`fixed_edges` must be in [0, 20), got 20"),
    ({"fixed_edges": [[0, -1]]}, ValueError, "`fixed_edges` must be in [0, 20), got -1"),
    ({"fixed_edges": [[3, 3]]}, ValueError, "`fixed_edges` must join different cities, got [3, 3]"),
    ({"fixed_edges": [[3, 4], [4, 3]]}, ValueError, "`fixed_edges` must hold every edge once"),
    (
        {"fixed_edges": [[0, 1], [0, 2], [0, 3]]},
        ValueError,
        "`fixed_edges` must give a city at most two edges: 0 has more",
    ),
    (
        {"fixed_edges": [[0, 1], [1, 2], [2, 0]]},
        ValueError,
        "`fixed_edges` must be pieces of one tour, but close a cycle",
    ),
    (
        {"coords": BATCH, "fixed_edges": [[[0, 1]]] * 2},
        ValueError,
        "`fixed_edges` must be [M, 2] or [3, M, 2], got (2, 1, 2)",
    ),
    (
        {"fixed_edges": [[0, 1], [0, 2]], "open_path": True, "ends": (0, None)},
        ValueError,
        "`fixed_edges` must give a city at most two edges, its end of the path included: 0 has more",
    ),
    (
        {"fixed_edges": [[0, 1], [1, 2]], "open_path": True, "ends": (0, 2)},
        ValueError,
        "`fixed_edges` must be pieces of one tour, but close a cycle",
    ),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED, ids=[m[:60] for *_, m in REFUSED])
def test_solve_refuses(options, error, message) -> None:
    with pytest.raises(error, match=re.escape(message)):
        tsp.solve(**{"coords": COORDS, "max_iterations": 1, **options})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tsp.knn_prior_heatmap(COORDS, k=0), ValueError, "`k` must be at least 1, got 0"),
        (
            lambda: tsp.knn_prior_heatmap(COORDS, table=[-1.0, 2.0]),
            ValueError,
            "`table` must hold probabilities",
        ),
        (lambda: tsp.knn_prior_heatmap(COORDS, table=[]), ValueError, "`table` must have shape [K], K >= 1"),
        (
            lambda: tsp.softdist_heatmap(COORDS, tau=0.0),
            ValueError,
            "`tau` must be finite and positive, got 0.0",
        ),
        (lambda: tsp.softdist_heatmap(COORDS, tau="hot"), TypeError, "`tau` must be a number"),
        (
            lambda: tsp.softdist_heatmap(np.zeros((20_001, 2)), dense=True),
            ValueError,
            "`dense` heatmaps have at most 20000",
        ),
        (
            lambda: tsp.fit_knn_prior(COORDS, TOUR[:-1]),
            ValueError,
            "`tours` must have shape (1, 20) like `coords`",
        ),
        (lambda: tsp.fit_knn_prior(COORDS, [0] * N), ValueError, "`tours` must visit every city once"),
        (lambda: tsp.tour_length(COORDS, [0] * N), ValueError, "`tours` must visit every city once"),
        (lambda: tsp.tour_length(BATCH, TOUR), ValueError, "`tours` must have shape [3, ..., N] with N = 20"),
        (lambda: tsp.tour_length(COORDS, TOUR, metric="XRAY1"), ValueError, "`metric` must be one of"),
        (lambda: tsp.is_tour(np.int64(3)), ValueError, "`tours` must have shape [..., N], got ()"),
        (lambda: tsp.is_tour([0.0]), TypeError, "`tours` must hold integers"),
        (
            lambda: tsp.two_opt(COORDS, [0] * N),
            ValueError,
            "`tours` must visit every city once, but tour 0 does not",
        ),
        (lambda: tsp.greedy_decode(-DIST, COORDS), ValueError, "`heatmap` must not be negative"),
        (lambda: tsp.ILSConfig(segment=0), ValueError, "`segment` must be at least 1, got 0"),
        (lambda: tsp.ILSConfig(hot=-1.0), ValueError, "`hot` must be finite and positive, got -1.0"),
        (lambda: tsp.Heatmap.from_any("knn"), ValueError, "`heatmap` 'knn' is made from `coords` or `dist`"),
        (
            lambda: tsp.Heatmap.from_any(torch.empty(20_001, 20_001, device="meta")),
            ValueError,
            "at most 20000 cities when dense, got 20001: give lists",
        ),
        (
            lambda: tsp.Heatmap.from_any(np.ones(3), edge_index=EDGES[:, :3]),
            ValueError,
            "`edge_index` needs `coords` or `n`",
        ),
    ],
)
def test_others_refuse(call, error, message) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()
