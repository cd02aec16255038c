"""The nodes of diffusers' schedulers, family by family: n times, without the final one.

Rounding is numpy's (half to even), as there, so table positions agree exactly; noise levels agree to the
float32 in which diffusers keeps them, on a `Discrete` schedule of the reading ``diffusers``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ._arrays import FloatArray
from ._checks import check_positive
from .base import NoiseSchedule
from .continuous import FlowMatching
from .discrete import Discrete
from .ramps import beta, exponential, karras

#: Maps (schedule, n, options as keywords) to n times.
Spacing: TypeAlias = Callable[..., FloatArray]


# ---- on a table: positions in it, as times


def _count_above(table: Discrete, lambda_min: float) -> int:
    return int((table.node_lambdas >= lambda_min).sum())


def _linspace_ddim(table: Discrete, n: int) -> FloatArray:
    return table.time_of_index(np.linspace(0, table.num_train_timesteps - 1, n).round()[::-1])


def _linspace_dpm(table: Discrete, n: int, *, lambda_min_clipped: float = -np.inf) -> FloatArray:
    last = _count_above(table, lambda_min_clipped)
    return table.time_of_index(np.linspace(0, last - 1, n + 1).round()[::-1][:-1])


def _linspace_euler(table: Discrete, n: int) -> FloatArray:
    return table.time_of_index(np.linspace(0, table.num_train_timesteps - 1, n)[::-1])


def _leading(table: Discrete, n: int, *, steps_offset: int = 0) -> FloatArray:
    return table.time_of_index(np.arange(n)[::-1] * (table.num_train_timesteps // n) + steps_offset)


def _leading_dpm(
    table: Discrete, n: int, *, steps_offset: int = 0, lambda_min_clipped: float = -np.inf
) -> FloatArray:
    ratio = _count_above(table, lambda_min_clipped) // (n + 1)
    return table.time_of_index(np.arange(1, n + 1)[::-1] * ratio + steps_offset)


def _trailing(table: Discrete, n: int) -> FloatArray:
    total = table.num_train_timesteps
    return table.time_of_index((total - np.arange(n) * (total / n)).round() - 1)


_EULER_GRIDS: dict[str, Spacing] = {"linspace": _linspace_euler, "leading": _leading, "trailing": _trailing}


def _levels_dpm(ramp: Any) -> Spacing:
    def spacing(table: Discrete, n: int) -> FloatArray:
        return _between(table, ramp, n, table.T, table.t0)

    return spacing


def _levels_euler(ramp: Any) -> Spacing:
    def spacing(table: Discrete, n: int, *, base: str = "linspace", steps_offset: int = 0) -> FloatArray:
        if base not in _EULER_GRIDS:
            raise ValueError(f"`base` must be one of {sorted(_EULER_GRIDS)}, got {base!r}")
        if steps_offset and base != "leading":
            raise ValueError(f"`steps_offset` belongs to `base` 'leading', got {steps_offset} with {base!r}")
        offset = {"steps_offset": steps_offset} if base == "leading" else {}
        grid = _EULER_GRIDS[base](table, n, **offset)
        return _between(table, ramp, n, grid[0], grid[-1])

    return spacing


def _between(table: Discrete, ramp: Any, n: int, start: float, end: float) -> FloatArray:
    largest, smallest = table.nsr(start), table.nsr(end)
    if not np.isfinite(largest):
        raise ValueError("`schedule` with zero terminal SNR has no spacing by noise level")
    return _pin(table.inv_lam(-np.log(ramp(np.linspace(0.0, 1.0, n), largest, smallest))), start, end)


def _pin(nodes: FloatArray, start: float, end: float) -> FloatArray:
    nodes[-1] = end
    nodes[0] = start  # last, so that a single node is the start
    return nodes


_RAMPS = {"karras": karras, "exponential": exponential, "beta": beta}

_ON_TABLES: dict[str, dict[str, Spacing]] = {
    "ddim": {"linspace": _linspace_ddim, "leading": _leading, "trailing": _trailing},
    "dpm": {
        "linspace": _linspace_dpm,
        "leading": _leading_dpm,
        "trailing": _trailing,
        **{name: _levels_dpm(ramp) for name, ramp in _RAMPS.items()},
    },
    "euler": {**_EULER_GRIDS, **{name: _levels_euler(ramp) for name, ramp in _RAMPS.items()}},
}


# ---- on the linear path: the schedule's t is the unshifted time


def _flow_linspace_dpm(flow: FlowMatching, n: int, *, num_train_timesteps: int = 1000) -> FloatArray:
    check_positive(num_train_timesteps=num_train_timesteps)
    return np.linspace(1.0 - 1.0 / num_train_timesteps, 0.0, n + 1)[:-1]


def _flow_linspace_euler(flow: FlowMatching, n: int, *, num_train_timesteps: int = 1000) -> FloatArray:
    # the scheduler starts from its shifted noise levels and shifts them again
    check_positive(num_train_timesteps=num_train_timesteps)
    return np.linspace(1.0, float(flow.sigma(1.0 / num_train_timesteps)), n)


def _flow_levels_euler(ramp: Any) -> Spacing:
    def spacing(flow: FlowMatching, n: int, *, num_train_timesteps: int = 1000) -> FloatArray:
        grid = _flow_linspace_euler(flow, n, num_train_timesteps=num_train_timesteps)
        sigma = ramp(np.linspace(0.0, 1.0, n), flow.sigma(grid[0]), flow.sigma(grid[-1]))
        return _pin(sigma / (sigma + flow.shift * (1.0 - sigma)), grid[0], grid[-1])

    return spacing


_ON_FLOWS: dict[str, dict[str, Spacing]] = {
    "dpm": {"linspace": _flow_linspace_dpm},
    "euler": {
        "linspace": _flow_linspace_euler,
        **{name: _flow_levels_euler(ramp) for name, ramp in _RAMPS.items()},
    },
}


def spacings_on(schedule: NoiseSchedule) -> dict[str, dict[str, Spacing]]:
    """Family -> spacing -> function, for the schedules that diffusers' schedulers have."""
    if isinstance(schedule, Discrete):
        return _ON_TABLES
    return _ON_FLOWS if isinstance(schedule, FlowMatching) else {}
