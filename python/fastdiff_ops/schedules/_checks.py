"""Checks of plain number arguments."""

from __future__ import annotations

import numpy as np


def check_positive(**parameters: float) -> None:
    """Raise for a parameter that is no finite positive number."""
    for name, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise TypeError(f"`{name}` must be a number, got {value!r:.80}")
        if not 0.0 < value < float("inf"):
            raise ValueError(f"`{name}` must be finite and positive, got {value!r}")


def check_count(name: str, value: int, minimum: int) -> None:
    """Raise for a value that is no integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"`{name}` must be an int, got {value!r:.80}")
    if value < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}, got {value}")
