"""Typed wrappers of every operator in `torch.ops.fastdiff_ops`."""

from .._coefficients import Row, pack_coef
from .linear_step import solver_step, solver_step_
from .quantile import abs_quantile
from .random import PhiloxState, make_rng, rand, randn, resolve_seed

__all__ = [
    "PhiloxState",
    "Row",
    "abs_quantile",
    "make_rng",
    "pack_coef",
    "rand",
    "randn",
    "resolve_seed",
    "solver_step",
    "solver_step_",
]
