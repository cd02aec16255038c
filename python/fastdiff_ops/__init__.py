"""Fast sampling for PyTorch: a step of a diffusion solver, a draw of tokens: one fused operator call each.

Most names below are imported on first use: `fastdiff_ops.reference` and `show_versions` also work without the
compiled library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .show_versions import show_versions

if TYPE_CHECKING:
    from . import encoding, masked, ops, reference, schedules, solvers, tsp
    from .solvers import SolverTable, make_table, sample

__all__ = [
    "SolverTable",
    "__version__",
    "encoding",
    "make_table",
    "masked",
    "ops",
    "reference",
    "sample",
    "schedules",
    "show_versions",
    "solvers",
    "tsp",
]

_MODULES = ("encoding", "masked", "ops", "reference", "schedules", "solvers", "tsp")
_HOMES = {"SolverTable": "solvers", "make_table": "solvers", "sample": "solvers"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
