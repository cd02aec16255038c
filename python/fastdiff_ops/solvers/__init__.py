"""Diffusion solvers as tables of coefficients, and the loop that runs any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# importing a family registers its solvers
from . import ddim, dpm_multistep, dpm_singlestep, euler  # noqa: F401
from .dpm_singlestep import singlestep_times
from .registry import Call, make_table, solver, solver_names
from .table import SolverTable, TableStep

if TYPE_CHECKING:
    from .observers import StepInfo
    from .sampling import resume, sample
    from .state import TrajectoryState

__all__ = [
    "Call",
    "SolverTable",
    "StepInfo",
    "TableStep",
    "TrajectoryState",
    "make_table",
    "resume",
    "sample",
    "singlestep_times",
    "solver",
    "solver_names",
]

# these need the compiled library; tables do not
_SAMPLING = {"StepInfo": "observers", "TrajectoryState": "state", "resume": "sampling", "sample": "sampling"}


def __getattr__(name: str) -> Any:
    if name in _SAMPLING:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_SAMPLING[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
