"""Typed wrappers of every operator in `torch.ops.fastdiff_ops`."""

from .._coefficients import Row, pack_coef
from .linear_step import solver_step, solver_step_

__all__ = ["Row", "pack_coef", "solver_step", "solver_step_"]
