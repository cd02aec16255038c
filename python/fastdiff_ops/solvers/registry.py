"""How a solver is written down, found by name and turned into a table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fastdiff_ops._coefficients import HISTORY, N_COLUMNS, N_ROWS, ROW_A, ROW_S0, ROW_X, Row
from fastdiff_ops.schedules import NoiseSchedule

from .grid import Grid, Node
from .options import frozen
from .table import SolverTable

#: The usual `store` of a `Call`: the converted model output is kept for later steps.
STORE_OUTPUT = (Row(output=1.0),)


@dataclass(frozen=True)
class Call:
    """One model evaluation and the fused update after it.

    Attributes
    ----------
    at, to : Node
        Where the model is evaluated, and the time of the state that the update writes.
    target : str
        What the rows take as `output`: "x0", "eps" or "velocity".
    state : Row
        The next state, or the next stage's evaluation point.
    store : tuple of Row
        Values pushed into the history, at most two.
    anchor : "same", "keep" or Row
        What later stages find in their anchor column: the state just written, what it was, or this row.
    """

    at: Node
    to: Node
    target: str
    state: Row
    store: tuple[Row, ...] = ()
    anchor: Literal["same", "keep"] | Row = "same"


Builder = Callable[..., Iterator[Call]]


@dataclass(frozen=True)
class _Solver:
    build: Builder
    fixed: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)  # keyword-only parameters and their defaults


_SOLVERS: dict[str, _Solver] = {}


def solver(name: str, **bound: Any) -> Callable[[Builder], Builder]:
    """Register a generator of `Call`s as the solver `name`.

    The generator's keyword-only parameters are the options of `make_table`. Keywords given here fix its other
    parameters and replace defaults of its options, so one generator can serve several names.

    Raises
    ------
    ValueError
        The name is taken.

    Notes
    -----
    A solver is what its rows say, and no more is needed than::

        @solver("euler")
        def euler(grid):
            for s, t in grid.steps():
                yield Call(s, t, "velocity", Row(state=1.0, output=t.sigma - s.sigma))
    """

    def register(build: Builder) -> Builder:
        if name in _SOLVERS:
            raise ValueError(f"`name` {name!r} is taken by the solver {_SOLVERS[name].build.__qualname__}")
        parameters = inspect.signature(build).parameters.values()
        options = {p.name: bound.get(p.name, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}
        fixed = {key: value for key, value in bound.items() if key not in options}
        _SOLVERS[name] = _Solver(build, fixed, options)
        return build

    return register


def solver_names() -> list[str]:
    """Names that `make_table` and `sample` accept.

    Examples
    --------
    >>> "dpmpp_2m" in solver_names()
    True
    """
    return sorted(_SOLVERS)


def make_table(
    name: str, schedule: NoiseSchedule, ts: Sequence[float] | npt.NDArray[np.float64], **options: Any
) -> SolverTable:
    """Work out the coefficients of a solver on a time grid, in float64.

    Parameters
    ----------
    name : str
        One of `solver_names()`.
    schedule : NoiseSchedule
    ts : array_like of float, [N + 1]
        Times from noise to data, for example from `schedules.timesteps`. A solver of one evaluation a step
        makes N evaluations, and so does a singlestep solver, whose inner stages sit at these nodes too.
    **options
        The solver's own: see its function, or the message of the error that an unknown one raises.

    Returns
    -------
    SolverTable
        Not yet bound to a prediction type.

    Raises
    ------
    ValueError
        Unknown solver or option value, or times that no sampler can follow.
    TypeError
        Unknown option, or one of the wrong type.

    Examples
    --------
    >>> from fastdiff_ops.schedules import FlowMatching, timesteps
    >>> schedule = FlowMatching()
    >>> print(make_table("euler", schedule, timesteps(schedule, 2, "time_uniform")).bind("velocity"))
    euler() on FlowMatching(shift=1.0), velocity model, 2 evaluations
      t 1   -> 0.5  x_next = x - 0.5 m
      t 0.5 -> 0    x_next = x - 0.5 m
    where x the state at the evaluation, m the model output as velocity
    """
    if not isinstance(name, str):
        raise TypeError(f"`name` must be a str, got {type(name).__name__}")
    if not isinstance(schedule, NoiseSchedule):
        raise TypeError(f"`schedule` must be a NoiseSchedule, got {type(schedule).__name__}")
    if name not in _SOLVERS:
        raise ValueError(f"unknown solver {name!r}; known are {', '.join(solver_names())}")
    entry = _SOLVERS[name]
    if unknown := options.keys() - entry.options.keys():
        known = ", ".join(entry.options) or "none"
        raise TypeError(f"solver {name!r} has no option {', '.join(sorted(unknown))}; its options: {known}")
    chosen = {key: frozen(key, value) for key, value in {**entry.options, **options}.items()}
    calls = list(entry.build(Grid(schedule, ts), **entry.fixed, **chosen))
    return _assemble(name, schedule, chosen, calls)


def _assemble(
    name: str, schedule: NoiseSchedule, options: Mapping[str, Any], calls: Sequence[Call]
) -> SolverTable:
    rows = np.zeros((len(calls), N_ROWS, N_COLUMNS))
    anchor: list[str] = []
    for e, call in enumerate(calls):
        rows[e, ROW_X] = call.state.to_array()
        if isinstance(call.anchor, Row):
            rows[e, ROW_A] = call.anchor.to_array()
        anchor.append("row" if isinstance(call.anchor, Row) else call.anchor)
        for k, row in enumerate(call.store):
            rows[e, ROW_S0 + k] = row.to_array()
    n_store = max(len(call.store) for call in calls)
    n_hist = _drop_unread(rows, n_store)

    def column(read: Callable[[Call], float]) -> npt.NDArray[np.float64]:
        return np.array([read(call) for call in calls], dtype=np.float64)

    return SolverTable(
        name=name,
        schedule=schedule,
        options=options,
        t=column(lambda call: call.at.t),
        t_next=column(lambda call: call.to.t),
        t_eval=column(lambda call: call.at.model_time),
        c_in=column(lambda call: call.at.c_in),
        target=tuple(call.target for call in calls),
        rows=rows,
        anchor=tuple(anchor),
        n_hist=n_hist,
        n_store=n_store if n_hist else 0,
        jump=column(lambda call: call.to.alpha),
    )


def _drop_unread(rows: npt.NDArray[np.float64], n_store: int) -> int:
    """Zero the store rows that no later row reads; return the ring size that is needed."""
    evaluation, _, column = np.nonzero(rows)
    reads = column >= HISTORY
    age = column[reads] - HISTORY
    pushed = set((evaluation[reads] * n_store - 1 - age).tolist())
    for e in range(len(rows)):
        for k in range(n_store):
            if e * n_store + k not in pushed:
                rows[e, ROW_S0 + k] = 0.0
    if not pushed:
        return 0
    size = int(age.max()) + 1
    return size + size % n_store
