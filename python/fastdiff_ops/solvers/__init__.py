"""Diffusion solvers as tables of coefficients, and the loop that runs any of them.

`sample`, `resume`, `StepInfo` and `TrajectoryState` need the compiled library and are imported on first use;
tables, and all that a solver is written with, do without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._coefficients import Row

# importing a family registers its solvers
from . import ancestral, ddim, deis, dpm_multistep, dpm_singlestep, euler, momentum, unipc  # noqa: F401
from .dpm_singlestep import singlestep_times
from .grid import Grid, Node
from .registry import STORE_OUTPUT, Call, make_table, solver, solver_names
from .table import SolverTable, TableStep

if TYPE_CHECKING:
    from .observers import StepInfo
    from .sampling import resume, sample
    from .state import TrajectoryState

__all__ = [
    "STORE_OUTPUT",
    "Call",
    "Grid",
    "Node",
    "Row",
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

_SAMPLING = {"StepInfo": "observers", "TrajectoryState": "state", "resume": "sampling", "sample": "sampling"}


def __getattr__(name: str) -> Any:
    if name in _SAMPLING:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_SAMPLING[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
