"""What multistep solvers share: Adams-Bashforth weights, orders, and what they may look back on."""

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
AUTO_LOWER_ORDER_BELOW = 15  # diffusers' threshold


def check_order(order: object, most: int) -> None:
    """Raise for what is no order from 1 to `most`."""
    if not isinstance(order, int) or isinstance(order, bool):
        raise TypeError(f"`order` must be an int, got {type(order).__name__}")
    if not 1 <= order <= most:
        raise ValueError(f"`order` must lie in 1 to {most}, got {order}")


def lowers_order(lower_order_final: object, n: int) -> bool:
    """Whether the order falls over the last of n steps."""
    if lower_order_final not in (True, False, "auto"):
        raise ValueError(f"`lower_order_final` must be True, False or 'auto', got {lower_order_final!r}")
    return n < AUTO_LOWER_ORDER_BELOW if lower_order_final == "auto" else bool(lower_order_final)


def finite_past(grid: Grid, i: int) -> Sequence[Node]:
    """Nodes i, i - 1, ... whose half-logSNR is finite: what a multistep formula may look back on."""
    return [node for node in grid.nodes[i::-1] if math.isfinite(node.lam)]
