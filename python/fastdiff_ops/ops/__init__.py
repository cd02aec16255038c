"""Typed wrappers of every operator in `torch.ops.fastdiff_ops`."""

from .._coefficients import Row, pack_coef
from .categorical import SampledTokens, gumbel_argmax, gumbel_topk, sample_with_scores
from .first_hitting_step import first_hitting_step, first_hitting_step_
from .gumbel_noise import gumbel_noise
from .linear_step import solver_step, solver_step_
from .quantile import abs_quantile
from .random import PhiloxState, make_rng, rand, randn, resolve_seed

__all__ = [
    "PhiloxState",
    "Row",
    "SampledTokens",
    "abs_quantile",
    "first_hitting_step",
    "first_hitting_step_",
    "gumbel_argmax",
    "gumbel_noise",
    "gumbel_topk",
    "make_rng",
    "pack_coef",
    "rand",
    "randn",
    "resolve_seed",
    "sample_with_scores",
    "solver_step",
    "solver_step_",
]
