"""DPM-Solver and DPM-Solver++, singlestep."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastdiff_ops._coefficients import Row

from .exponential import transfer
from .grid import Grid, Node
from .options import check_choice
from .registry import STORE_OUTPUT, Call, solver

if TYPE_CHECKING:
    from fastdiff_ops.schedules import NoiseSchedule

VARIANTS = ("dpmsolver", "taylor")
INNER = ("spacing", "fixed")


@solver("dpmpp_2s", order=2, prediction="x0")
@solver("dpmpp_3s", order=3, prediction="x0")
@solver("dpm_solver_2s", order=2, prediction="eps")
@solver("dpm_solver_3s", order=3, prediction="eps")
def dpm_singlestep(
    grid: Grid,
    order: int,
    prediction: str,
    *,
    variant: str = "dpmsolver",
    inner: str = "spacing",
    orders: Sequence[int] | None = None,
) -> Iterator[Call]:
    """DPM-Solver (Lu et al. 2022, arXiv 2206.00927, algorithms 1 and 2) and its ++ form (arXiv 2211.01095).

    A step of order k makes k evaluations and spans k intervals of the grid, so a grid of n intervals costs n
    evaluations.

    Parameters
    ----------
    variant : "dpmsolver" or "taylor"
        How the last stage combines the evaluations.
    inner : "spacing" or "fixed"
        Inner stages sit at the grid's nodes, or at 1/2 (order 2), 1/3 and 2/3 (order 3) of the step in
        half-logSNR.
    orders : sequence of int, optional
        Order of each step; they must add up to n. Default: as many full-order steps as fit, then lower ones,
        as the paper's algorithm for a budget of n evaluations.

    See Also
    --------
    singlestep_times : the paper's grid, whose *steps* are uniform in half-logSNR.
    """
    check_choice("variant", variant, VARIANTS)
    check_choice("inner", inner, INNER)
    start = 0
    for k in _orders(grid, order, orders):
        nodes = list(grid.nodes[start : start + k + 1])
        start += k
        if inner == "fixed":
            s, t = nodes[0], nodes[-1]
            nodes[1:-1] = [grid.node_at(s.lam + j / k * (t.lam - s.lam)) for j in range(1, k)]
        yield from _step(nodes, prediction, variant)


def singlestep_orders(n: int, order: int) -> list[int]:
    """Orders of the steps of a singlestep solver with a budget of `n` evaluations.

    Examples
    --------
    >>> singlestep_orders(9, 3), singlestep_orders(10, 3), singlestep_orders(7, 2)
    ([3, 3, 2, 1], [3, 3, 3, 1], [2, 2, 2, 1])
    """
    if order == 3 and n % 3 == 0:
        return [3] * (n // 3 - 1) + [2, 1]
    return [order] * (n // order) + ([n % order] if n % order else [])


def singlestep_times(schedule: NoiseSchedule, n: int, order: int) -> npt.NDArray[np.float64]:
    """Nodes for `n` evaluations whose steps, and the stages inside each step, are uniform in half-logSNR.

    Returns
    -------
    float64[n + 1]
        Decreasing times, for `make_table`.

    Raises
    ------
    ValueError
        When the schedule's half-logSNR is infinite at an end.
    """
    first, last = float(schedule.lam(schedule.T)), float(schedule.lam(schedule.t0))
    if not math.isfinite(first - last):
        raise ValueError(f"`schedule` must have finite half-logSNR at both ends, got {first:g} and {last:g}")
    orders = singlestep_orders(n, order)
    outer = np.linspace(first, last, len(orders) + 1)
    lam = [outer[i] + j / k * (outer[i + 1] - outer[i]) for i, k in enumerate(orders) for j in range(k)]
    return np.array([schedule.T, *(float(schedule.inv_lam(value)) for value in lam[1:]), schedule.t0])


def _orders(grid: Grid, order: int, orders: Sequence[int] | None) -> list[int]:
    n = len(grid)
    if orders is not None:
        if not isinstance(orders, tuple) or not all(type(k) is int for k in orders):
            raise TypeError(f"`orders` must be a sequence of ints, got {orders!r}")
        if not all(1 <= k <= order for k in orders) or sum(orders) != n:
            raise ValueError(
                f"`orders` must be numbers from 1 to {order} that add up to {n}, got {list(orders)}"
            )
        result = list(orders)
    else:
        result = singlestep_orders(n, order)
    # no higher order across an infinite step: split off a first-order one there
    if result[-1] > 1 and math.isinf(grid.nodes[-1].lam):
        result[-1:] = [result[-1] - 1, 1]
    if result[0] > 1 and math.isinf(grid.nodes[0].lam):
        result[:1] = [1, result[0] - 1]
    return result


def _step(nodes: Sequence[Node], prediction: str, variant: str) -> Iterator[Call]:
    """One step of order len(nodes) - 1; m_s and the slopes (m - m_s)/r make up every stage."""
    s, t = nodes[0], nodes[-1]
    whole = transfer(s, t, prediction)
    if len(nodes) == 2:
        yield Call(s, t, prediction, Row(state=whole.lin, output=whole.first))
        return
    inner = nodes[1:-1]
    h = t.lam - s.lam
    r = [(node.lam - s.lam) / h for node in inner]
    first = transfer(s, inner[0], prediction)
    yield Call(s, inner[0], prediction, Row(state=first.lin, output=first.first), STORE_OUTPUT, anchor="keep")
    if len(inner) == 1:
        w = whole.scale * (0.5 * whole.weight(1) if variant == "dpmsolver" else whole.weight(2)) / r[0]
        yield Call(inner[0], t, prediction, Row(anchor=whole.lin, output=w, history=_rest(whole.first, w)))
        return
    second = transfer(s, inner[1], prediction)
    w = second.scale * second.weight(2) * r[1] / r[0]
    row = Row(anchor=second.lin, output=w, history=_rest(second.first, w))
    yield Call(inner[0], inner[1], prediction, row, STORE_OUTPUT, anchor="keep")
    if variant == "dpmsolver":
        w1, w2 = 0.0, whole.scale * whole.weight(2) / r[1]
    else:
        bend = 2.0 * whole.weight(3)
        w1 = whole.scale * (whole.weight(2) * r[1] - bend) / (r[0] * (r[1] - r[0]))
        w2 = whole.scale * (bend - whole.weight(2) * r[0]) / (r[1] * (r[1] - r[0]))
    row = Row(anchor=whole.lin, output=w2, history=(w1, whole.first - w1 - w2))
    yield Call(inner[1], t, prediction, row)


def _rest(total: float, part: float) -> tuple[float, ...]:
    """The weight left for m_s; the midpoint rule leaves none, and rounding must not make it read memory."""
    rest = total - part
    return (rest,) if abs(rest) > 1e-13 * abs(total) else ()
