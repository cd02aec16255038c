"""What a solver table must satisfy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastdiff_ops._coefficients import (
    CORRECTED,
    ELEMENT_POSITIONS,
    HISTORY,
    MAX_HISTORY,
    N_COLUMNS,
    N_ROWS,
    ROW_A,
    ROW_S0,
)
from fastdiff_ops.schedules import PREDICTION_TYPES, NoiseSchedule

if TYPE_CHECKING:
    from .table import SolverTable

TARGETS = ("x0", "eps", "velocity")
MAX_EVALUATIONS = (1 << 24) - 2  # of a run, by its draw numbers
ANCHOR_MODES = ("same", "keep", "row")


def validate(table: SolverTable) -> None:
    """Raise ValueError or TypeError for a table that could not be run."""
    if not isinstance(table.name, str):
        raise TypeError(f"`name` must be a str, got {type(table.name).__name__}")
    n = len(table.t) if table.t.ndim == 1 else 0
    if n < 1:
        raise ValueError(f"`t` must hold at least one evaluation in one dimension, got shape {table.t.shape}")
    if not isinstance(table.schedule, NoiseSchedule):
        raise TypeError(f"`schedule` must be a NoiseSchedule, got {type(table.schedule).__name__}")
    shapes = dict.fromkeys(("t", "t_next", "t_eval", "c_in", "jump"), (n,))
    for name, shape in (shapes | {"rows": (n, N_ROWS, N_COLUMNS), "conv": (n, 2)}).items():
        array = getattr(table, name)
        if array is None:
            continue
        if array.shape != shape:
            raise ValueError(f"`{name}` must have shape {shape}, got {array.shape}")
        if not np.isfinite(array).all():
            bad = int(np.flatnonzero(~np.isfinite(array.reshape(n, -1)).all(axis=1))[0])
            raise ValueError(f"`{name}` must be finite, but evaluation {bad} is not")
    for name, allowed in (("target", TARGETS), ("anchor", ANCHOR_MODES)):
        values = getattr(table, name)
        if len(values) != n or not set(values) <= set(allowed):
            raise ValueError(f"`{name}` must hold {n} of {', '.join(allowed)}, got {values}")
    if table.anchor[-1] == "keep":
        raise ValueError("`anchor` of the last evaluation must be 'same' or 'row': the run ends with a step")
    if (table.prediction_type is None) != (table.conv is None):
        raise ValueError("`prediction_type` and `conv` go together: use `bind`")
    if table.prediction_type not in (None, *PREDICTION_TYPES):
        raise ValueError(
            f"`prediction_type` must be one of {', '.join(PREDICTION_TYPES)}, got {table.prediction_type!r}"
        )
    _validate_elements(table)
    for name in ("n_hist", "n_store"):
        if type(getattr(table, name)) is not int:
            raise TypeError(f"`{name}` must be an int, got {type(getattr(table, name)).__name__}")
    if not 0 <= table.n_store <= 2:
        raise ValueError(f"`n_store` must be 0, 1 or 2, got {table.n_store}")
    if not 0 <= table.n_hist <= MAX_HISTORY or (table.n_store and table.n_hist % table.n_store):
        raise ValueError(
            f"`n_hist` must be a multiple of `n_store` = {table.n_store} <= {MAX_HISTORY}, got {table.n_hist}"
        )
    _validate_reads(table)


def _validate_elements(table: SolverTable) -> None:
    elem, positions = table.elem, table.elem_map
    if not isinstance(positions, tuple) or not all(type(k) is int for k in positions):
        raise TypeError(f"`elem_map` must be a tuple of ints, got {positions!r}")
    if elem is None and not positions:
        return
    if elem is None or not positions:
        raise ValueError("`elem` and `elem_map` go together")
    if elem.ndim < 2 or elem.shape[0] not in (1, len(table)) or elem.shape[1] != len(positions):
        raise ValueError(
            f"`elem` must have shape [1 or {len(table)}, {len(positions)}, ...], got {elem.shape}"
        )
    if not np.isfinite(elem).all():
        raise ValueError("`elem` must be finite")
    if len(set(positions)) < len(positions) or not ELEMENT_POSITIONS.issuperset(positions):
        raise ValueError(f"`elem_map` must hold different positions of element coefficients, got {positions}")


def _validate_reads(table: SolverTable) -> None:
    """Rows may read only what exists."""
    stored: set[int] = set()
    for e, rows in enumerate(table.rows):
        if rows[ROW_A].any() and table.anchor[e] != "row":
            raise ValueError(f"`rows` of evaluation {e} have a row A, but `anchor` is {table.anchor[e]!r}")
        if rows[:, CORRECTED].any() and table.anchor[e] != "row":
            raise ValueError(
                f"`rows` of evaluation {e} read `corrected`, but `anchor` is {table.anchor[e]!r}"
            )
        if rows[ROW_A, CORRECTED]:
            raise ValueError(f"`rows` of evaluation {e} have a row A that reads `corrected`, its own result")
        if rows[ROW_S0 + table.n_store :].any():
            raise ValueError(f"`rows` of evaluation {e} store more than `n_store` = {table.n_store} values")
        for age in np.flatnonzero(np.any(rows[:, HISTORY:] != 0, axis=0)):
            if age >= table.n_hist or e * table.n_store - 1 - int(age) not in stored:
                raise ValueError(f"`rows` of evaluation {e} read history age {age}, which holds nothing")
        # an element coefficient may be all that a stored row consists of
        stored |= {
            e * table.n_store + k for k in range(table.n_store) if table.elem_map or rows[ROW_S0 + k].any()
        }
