"""What multistep solvers with equal steps share: Adams-Bashforth weights, and checks of orders."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .grid import Grid, Node

#: weights of e_i, e_{i-1}, ... for orders 1 to 4
ADAMS_BASHFORTH: tuple[tuple[float, ...], ...] = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def check_order(order: object, most: int) -> None:
    """Raise for what is no order from 1 to `most`."""
    if not isinstance(order, int) or isinstance(order, bool):
        raise TypeError(f"`order` must be an int, got {type(order).__name__}")
    if not 1 <= order <= most:
        raise ValueError(f"`order` must lie in 1 to {most}, got {order}")


def finite_past(grid: Grid, i: int) -> Sequence[Node]:
    """Nodes i, i - 1, ... whose half-logSNR is finite: what a multistep formula may look back on."""
    return [node for node in grid.nodes[i::-1] if math.isfinite(node.lam)]
