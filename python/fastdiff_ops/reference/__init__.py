"""Slow and plainly right: one PyTorch function per operator, with the operator's own arguments.

Every kernel is tested against these. They also run where no kernel exists (MPS, XPU), and everywhere when
`FASTDIFF_OPS_REFERENCE=1` is set. Nothing here needs the compiled library.
"""

from .categorical import first_hitting_step_, gumbel_argmax, gumbel_topk
from .linear_step import solver_step, solver_step_
from .linear_step_backward import solver_step_backward
from .quantile import abs_quantile
from .random import random_normal, random_uniform

__all__ = [
    "abs_quantile",
    "first_hitting_step_",
    "gumbel_argmax",
    "gumbel_topk",
    "random_normal",
    "random_uniform",
    "solver_step",
    "solver_step_",
    "solver_step_backward",
]
