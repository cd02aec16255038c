"""Short tours, fast: heatmap-guided search for the travelling salesman problem.

>>> import torch
>>> from fastdiff_ops import tsp
>>> coords = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
>>> tours, lengths, stats = tsp.solve(coords, max_iterations=1000, seed=0)
>>> tours.shape, bool(tsp.is_tour(tours))
(torch.Size([200]), True)
"""

from ..ops import knn
from .compare import compare
from .config import ILSConfig
from .generate import generate
from .heatmaps import Heatmap
from .mcts import MCTSConfig
from .priors import fit_knn_prior, knn_prior_heatmap, knn_prior_table, softdist_heatmap
from .result import SearchStats, TSPResult
from .solve import solve
from .text_format import read_text, write_text
from .tours import greedy_decode, is_tour, tour_length, two_opt
from .tsplib import TSPInstance, read_tour, read_tsplib, write_tour, write_tsplib
from .tune import tune

__all__ = [
    "Heatmap",
    "ILSConfig",
    "MCTSConfig",
    "SearchStats",
    "TSPInstance",
    "TSPResult",
    "compare",
    "fit_knn_prior",
    "generate",
    "greedy_decode",
    "is_tour",
    "knn",
    "knn_prior_heatmap",
    "knn_prior_table",
    "read_text",
    "read_tour",
    "read_tsplib",
    "softdist_heatmap",
    "solve",
    "tour_length",
    "tune",
    "two_opt",
    "write_text",
    "write_tour",
    "write_tsplib",
]
