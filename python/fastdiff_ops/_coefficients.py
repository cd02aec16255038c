"""How a row of named terms becomes the vector of numbers that the step operator reads.

This is the only Python module that knows positions; `csrc/linear_step/linear_step.h` is its counterpart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROW_NAMES = ("X", "A", "S0", "S1")
COLUMN_NAMES = ("state", "anchor", "output", "noise", "corrected", *(f"history[{j}]" for j in range(8)))
N_ROWS, N_COLUMNS, MAX_HISTORY, MAX_OUTPUTS = len(ROW_NAMES), len(COLUMN_NAMES), 8, 4
N_COEF = 64

STATE, ANCHOR, OUTPUT, NOISE, CORRECTED, HISTORY = range(6)
ROW_X, ROW_A, ROW_S0, ROW_S1 = range(4)

C_X, C_O, D_X, D_U, CLIP_BOUND, D_H, JUMP, ROWS, C_IN = 1, 2, 3, 4, 5, 6, 7, 8, 60
BIAS = N_COEF  # element coefficients only: BIAS + r is added to row r

# Positions that an element coefficient may replace.
ELEMENT_POSITIONS = frozenset(
    {C_X, C_O, D_X, D_U, D_H, JUMP, *range(ROWS, C_IN), *range(BIAS, BIAS + N_ROWS)}
)


def position(row: int, column: int) -> int:
    """Return where the coefficient of `column` in `row` stands."""
    return ROWS + N_COLUMNS * row + column


class Row(NamedTuple):
    """One result of a solver step, as weights of named terms.

    Attributes
    ----------
    state : float
        Weight of the tensor at which the model was just evaluated.
    anchor : float
        Weight of the state from which the solver step started (inner stages differ from `state`).
    output : float
        Weight of the converted model output.
    noise : float
        Weight of a fresh standard normal.
    corrected : float
        Weight of the new anchor that the same call computes (row A).
    history : tuple of float
        Weights of the stored values, newest first.

    Examples
    --------
    >>> Row(state=0.5, output=1.2, history=(-0.3,))
    Row(state=0.5, anchor=0.0, output=1.2, noise=0.0, corrected=0.0, history=(-0.3,))
    """

    state: float = 0.0
    anchor: float = 0.0
    output: float = 0.0
    noise: float = 0.0
    corrected: float = 0.0
    history: tuple[float, ...] = ()

    def to_array(self) -> NDArray[np.float64]:
        """Return the 13 weights in column order."""
        if len(self.history) > MAX_HISTORY:
            raise ValueError(f"`history` holds at most {MAX_HISTORY} weights, got {len(self.history)}")
        padding = (0.0,) * (MAX_HISTORY - len(self.history))
        return np.array([*self[:HISTORY], *self.history, *padding], dtype=np.float64)

    @classmethod
    def from_array(cls, weights: ArrayLike) -> Row:
        """Return the row with these 13 weights; trailing zeros of the history are dropped."""
        array = np.asarray(weights, dtype=np.float64)
        if array.shape != (N_COLUMNS,):
            raise ValueError(f"`weights` must have shape ({N_COLUMNS},), got {array.shape}")
        history = array[HISTORY:]
        length = int(np.flatnonzero(history)[-1]) + 1 if np.any(history) else 0
        state, anchor, output, noise, corrected = array[:HISTORY].tolist()
        return cls(state, anchor, output, noise, corrected, tuple(history[:length].tolist()))


def pack_coef(
    rows: ArrayLike,
    conv: ArrayLike,
    *,
    post: ArrayLike = (0.0, 1.0, 0.0),
    clip_bound: ArrayLike = 0.0,
    jump: ArrayLike = 0.0,
    c_in: ArrayLike = 0.0,
) -> NDArray[np.float64]:
    """Pack the numbers of E steps into the table that `solver_step` reads.

    Parameters
    ----------
    rows : float64 [E, 4, 13]
        Weights of the rows X, A, S0, S1, each as in `Row.to_array`.
    conv : float64 [E, 2]
        Conversion of the guided model output o at the state x: u = conv[0] x + conv[1] o.
    post : float64 [E, 3] or [3]
        After clipping u: m = post[0] x + post[1] clip(u) + post[2] (newest history).
    clip_bound : float64 [E] or float
        Bound of static clipping.
    jump : float64 [E] or float
        Factor of the direct guidance term sum_k e_k outs_k in row X.
    c_in : float64 [E] or float
        Scale of the next model input, `model_in = c_in x_next`.

    Returns
    -------
    float64 [E, 1, 64]

    Examples
    --------
    >>> euler = Row(state=1.0, output=-0.1)
    >>> rows = np.zeros((1, 4, 13))
    >>> rows[0, 0] = euler.to_array()
    >>> pack_coef(rows, [[0.0, 1.0]]).shape
    (1, 1, 64)
    """
    rows, conv = np.asarray(rows, dtype=np.float64), np.asarray(conv, dtype=np.float64)
    if rows.ndim != 3 or rows.shape[1:] != (N_ROWS, N_COLUMNS):
        raise ValueError(f"`rows` must have shape [E, {N_ROWS}, {N_COLUMNS}], got {rows.shape}")
    steps = rows.shape[0]
    if conv.shape != (steps, 2):
        raise ValueError(f"`conv` must have shape ({steps}, 2), got {conv.shape}")
    if np.any(rows[:, ROW_A, CORRECTED]):
        raise ValueError("row A cannot depend on `corrected`, which is its own result")
    coef = np.zeros((steps, N_COEF))
    coef[:, C_X : C_O + 1] = conv
    coef[:, [D_X, D_U, D_H]] = post
    coef[:, CLIP_BOUND] = clip_bound
    coef[:, JUMP] = jump
    coef[:, ROWS:C_IN] = rows.reshape(steps, N_ROWS * N_COLUMNS)
    coef[:, C_IN] = c_in
    if not np.isfinite(coef).all():
        bad = int(np.flatnonzero(~np.isfinite(coef).all(axis=1))[0])
        raise ValueError(f"coefficients of step {bad} are not finite")
    return coef[:, None, :]
