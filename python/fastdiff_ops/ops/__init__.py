"""Typed wrappers of every operator in `torch.ops.fastdiff_ops`."""

from .._coefficients import Row, pack_coef
from .categorical import SampledTokens, gumbel_argmax, gumbel_topk, sample_with_scores
from .first_hitting_step import first_hitting_step, first_hitting_step_
from .gumbel_noise import gumbel_noise
from .hitting import HittingTimes, first_hitting_times, remask, remask_, reveal_steps
from .inverse_cdf import inverse_cdf
from .linear_step import solver_step, solver_step_
from .quantile import abs_quantile
from .random import PhiloxState, make_rng, rand, randn, resolve_seed
from .sample import CategoricalSample, categorical_sample
from .simplex import GridLevels, SimplexLevels, grid_encode, simplex_encode
from .threshold import sampling_threshold
from .tour_search import pack_candidates, tsp_search_slice
from .transfer import select_transfer
from .tsp import knn

__all__ = [
    "CategoricalSample",
    "GridLevels",
    "HittingTimes",
    "PhiloxState",
    "Row",
    "SampledTokens",
    "SimplexLevels",
    "abs_quantile",
    "categorical_sample",
    "first_hitting_step",
    "first_hitting_step_",
    "first_hitting_times",
    "grid_encode",
    "gumbel_argmax",
    "gumbel_noise",
    "gumbel_topk",
    "inverse_cdf",
    "knn",
    "make_rng",
    "pack_candidates",
    "pack_coef",
    "rand",
    "randn",
    "remask",
    "remask_",
    "resolve_seed",
    "reveal_steps",
    "sample_with_scores",
    "sampling_threshold",
    "select_transfer",
    "simplex_encode",
    "solver_step",
    "solver_step_",
    "tsp_search_slice",
]
