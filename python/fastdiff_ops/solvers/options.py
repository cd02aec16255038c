"""Options of solvers: plain immutable values that JSON can hold, and checks that name what is wrong."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np


def frozen(name: str, value: Any) -> Any:
    """The value as None, bool, int, float, str or a tuple of these; TypeError for anything else."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(frozen(name, item) for item in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"`{name}` must be a number, str, None or a sequence of these, got {type(value).__name__}"
    )


def check_choice(name: str, value: Any, allowed: Collection[str]) -> None:
    """Raise for what is none of the allowed words."""
    if not isinstance(value, str):
        raise TypeError(f"`{name}` must be a str, got {type(value).__name__}")
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {value!r}")


def check_eta(eta: Any) -> None:
    """Raise for what is no share of noise."""
    if not isinstance(eta, int | float) or isinstance(eta, bool):
        raise TypeError(f"`eta` must be a number, got {type(eta).__name__}")
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"`eta` must lie in [0, 1], got {eta}")
