"""A diffusion solver as a value: the coefficients of every update of one sampling run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from fastdiff_ops._coefficients import (
    CLIP_BOUND,
    NOISE,
    ROW_A,
    ROW_S0,
    ROW_X,
    Row,
)
from fastdiff_ops.schedules import PREDICTION_TYPES, NoiseSchedule

from .options import frozen
from .packing import Packed, pack
from .validation import validate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]
CLIP_MODES = (None, "static", "dynamic")
_ARRAYS = ("t", "t_next", "t_eval", "c_in", "rows", "jump", "conv", "elem")


class TableStep(NamedTuple):
    """One evaluation of a table and the rows after it; a stored row that writes nothing is None."""

    t: float
    t_next: float
    target: str
    state: Row
    anchor: Row | str
    store: tuple[Row | None, ...]


@dataclass(frozen=True, eq=False, repr=False)
class SolverTable:
    """Coefficients of a sampling run: E model evaluations, each followed by one fused update.

    An update computes up to four rows, weighted sums of the same inputs: X, the next state; A, the anchor
    that later stages see; S0 and S1, values for the history. A table is an immutable value, independent of
    the model; it says everything about the run.

    Attributes
    ----------
    name : str
        The solver.
    schedule : NoiseSchedule
    options : mapping
        The solver's options, read-only: numbers, words, None, and tuples of these; other sequences and
        NumPy's scalars and arrays are turned into them.
    t, t_next : float64[E]
        Time of each evaluation and of the state X after it, in the schedule's unit.
    t_eval : float64[E]
        Time that the model is given, in its own unit.
    c_in : float64[E]
        Factor of the network's input.
    target : tuple of str
        What the rows take as model output: "x0", "eps" or "velocity".
    rows : float64[E, 4, 13]
        Weights; rows in the order X, A, S0, S1, columns as in `fastdiff_ops.ops.Row`.
    anchor : tuple of str
        The anchor that the next evaluation sees: "same" (X), "keep" (as it was: an inner stage) or "row"
        (row A).
    n_hist, n_store : int
        Slots of the history ring, and values pushed per evaluation.
    jump : float64[E]
        Weight in X of a change of the data prediction that bypasses solver and history.
    prediction_type : str or None
        What the model predicts; None until `bind`.
    conv : float64[E, 2] or None
        Filled by `bind`: target = conv[0] x + conv[1] (model output).
    elem : float64[1 or E, n_elem, *S'] or None
        Element coefficients, S' broadcastable to the sample shape.
    elem_map : tuple of int
        What each of them replaces; see `fastdiff_ops.ops.solver_step`.

    See Also
    --------
    make_table : builds a table from a solver's name, a schedule and times.
    """

    name: str
    schedule: NoiseSchedule
    options: Mapping[str, Any]
    t: Array
    t_next: Array
    t_eval: Array
    c_in: Array
    target: tuple[str, ...]
    rows: Array
    anchor: tuple[str, ...]
    n_hist: int
    n_store: int
    jump: Array
    prediction_type: str | None = None
    conv: Array | None = None
    elem: Array | None = None
    elem_map: tuple[int, ...] = ()
    # what `sample` reads, packed once by `bind`: plain tensors, so that torch.compile can trace the loop
    packed: Packed | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            if getattr(self, name) is not None:
                array = np.array(getattr(self, name), dtype=np.float64)
                array.setflags(write=False)
                object.__setattr__(self, name, array)
        options = {key: frozen(key, value) for key, value in self.options.items()}
        object.__setattr__(self, "options", MappingProxyType(options))
        validate(self)
        if self.prediction_type is not None:
            object.__setattr__(self, "packed", pack(self))

    def __len__(self) -> int:
        """Number of model evaluations."""
        return len(self.t)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SolverTable):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.init)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        # through the constructor: a read-only mapping does not pickle, and arrays would come back writable
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return partial(type(self), **{**values, "options": dict(self.options)}), ()

    def __repr__(self) -> str:
        return f"SolverTable({self.name!r}, {self.schedule!r}, {len(self)} evaluations)"

    @cached_property
    def alpha(self) -> Array:
        """Factor of the data at each evaluation, float64[E]."""
        return self.schedule.alpha(self.t)

    @cached_property
    def sigma(self) -> Array:
        """Factor of the noise at each evaluation, float64[E]."""
        return self.schedule.sigma(self.t)

    @cached_property
    def alpha_next(self) -> Array:
        """Factor of the data in each X, float64[E]."""
        return self.schedule.alpha(self.t_next)

    @cached_property
    def sigma_next(self) -> Array:
        """Factor of the noise in each X, float64[E]."""
        return self.schedule.sigma(self.t_next)

    @cached_property
    def noise(self) -> npt.NDArray[np.bool_]:
        """Which updates draw noise, bool[E]."""
        return np.asarray(np.any(self.rows[:, :, NOISE] != 0, axis=1))

    @property
    def n_steps(self) -> int:
        """Number of solver steps; inner stages do not count."""
        return sum(mode != "keep" for mode in self.anchor)

    def step(self, i: int) -> TableStep:
        """Evaluation `i` and its rows, as named terms.

        Examples
        --------
        >>> from fastdiff_ops.schedules import FlowMatching
        >>> from fastdiff_ops.solvers import make_table
        >>> make_table("euler", FlowMatching(), [1.0, 0.75, 0.0]).step(0).state
        Row(state=1.0, anchor=0.0, output=-0.25, noise=0.0, corrected=0.0, history=())
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"`i` must be one of the {len(self)} evaluations, got {i}")
        rows = [Row.from_array(row) for row in self.rows[i]]
        store = tuple(row if any(row.to_array()) else None for row in rows[ROW_S0 : ROW_S0 + self.n_store])
        anchor = rows[ROW_A] if self.anchor[i] == "row" else self.anchor[i]
        return TableStep(float(self.t[i]), float(self.t_next[i]), self.target[i], rows[ROW_X], anchor, store)

    def bind(self, prediction_type: str) -> SolverTable:
        """Fill in the conversion from what the model predicts to what the rows take.

        Parameters
        ----------
        prediction_type : "eps", "x0", "v", "score", "velocity" or "edm"

        Raises
        ------
        ValueError
            Unknown type, another type bound before, or a conversion that divides by zero: a noise-predicting
            model where alpha is 0, for example.

        Examples
        --------
        >>> from fastdiff_ops.schedules import FlowMatching
        >>> from fastdiff_ops.solvers import make_table
        >>> make_table("ddim", FlowMatching(), [1.0, 0.5, 0.0]).bind("velocity").conv
        array([[ 1. , -1. ],
               [ 1. , -0.5]])
        """
        if prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"`prediction_type` must be one of {', '.join(PREDICTION_TYPES)}, got {prediction_type!r}"
            )
        if self.prediction_type == prediction_type:
            return self
        if self.prediction_type is not None:
            raise ValueError(
                f"`prediction_type` is {prediction_type!r}, the table is bound to {self.prediction_type!r}"
            )
        try:
            conv = [
                self.schedule.conversion(float(t), prediction_type, target)
                for t, target in zip(self.t, self.target, strict=True)
            ]
        except ValueError as error:
            raise ValueError(
                f"`prediction_type` {prediction_type!r} does not suit this table: {error}"
            ) from error
        return replace(self, prediction_type=prediction_type, conv=np.array(conv))

    def coefficients(self, *, clip: str | None = None, clip_value: float = 1.0) -> torch.Tensor:
        """The bound table as `ops.solver_step` reads it.

        Parameters
        ----------
        clip : None, "static" or "dynamic"
            With clipping, the conversion goes to x0, where the values are clipped, and from there to the
            target.
        clip_value : float
            Bound of static clipping.

        Returns
        -------
        float64[E, 1, 64], on the CPU
            A tensor of the caller's own.

        Raises
        ------
        ValueError
            The table is not bound, or an evaluation has no conversion by way of x0.
        """
        if self.packed is None:
            raise ValueError("the table is not bound to a prediction type: call `bind` first")
        if clip not in CLIP_MODES:
            raise ValueError(f"`clip` must be None, 'static' or 'dynamic', got {clip!r}")
        if clip is None:
            return self.packed.direct.clone()
        if self.packed.by_x0 is None:
            raise ValueError("`clip` needs a conversion by way of x0, which divides by zero at sigma = 0")
        if not clip_value > 0:
            raise ValueError(f"`clip_value` must be positive, got {clip_value}")
        coef = self.packed.by_x0.clone()
        if clip == "static":
            coef[:, :, CLIP_BOUND] = clip_value
        return coef

    def to_json(self) -> str:
        """The whole table as JSON text; every float is written exactly.

        Examples
        --------
        >>> from fastdiff_ops.schedules import VE
        >>> from fastdiff_ops.solvers import make_table
        >>> table = make_table("heun", VE(), [80.0, 3.0, 0.1, 0.0])
        >>> SolverTable.from_json(table.to_json()) == table
        True
        """
        from .serialise import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> SolverTable:
        """Read a table back; raises ValueError on text that holds no valid table."""
        from .serialise import from_json

        return from_json(text)

    def __str__(self) -> str:
        from .show import to_text

        return to_text(self)

    def plot(self) -> Figure:
        """Draw the weights of row X over the run (needs matplotlib)."""
        from .show import to_figure

        return to_figure(self)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return type(a) is type(b) and bool(a == b)
