"""Euler and Heun on the probability-flow ODE (Karras et al. 2022, arXiv 2206.00364, algorithm 1).

On a linear path (flow matching) the ODE is dx = velocity d(sigma); elsewhere it is
d(x/alpha) = eps d(sigma/alpha), as in k-diffusion and diffusers. No churn.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastdiff_ops._coefficients import Row
from fastdiff_ops.schedules import FlowMatching

from .exponential import transfer
from .grid import Grid, Node
from .registry import STORE_OUTPUT, Call, solver


@solver("euler")
def euler(grid: Grid) -> Iterator[Call]:
    """Euler's method; the same as DDIM without noise, up to rounding."""
    for s, t in grid.steps():
        target, lin, slope = _slope(grid, s, t)
        yield Call(s, t, target, Row(state=lin, output=slope))


@solver("heun")
def heun(grid: Grid, *, correct_final: bool = False) -> Iterator[Call]:
    """Heun's method: an Euler step, then the mean of the slopes at its two ends; two evaluations a step.

    Parameters
    ----------
    correct_final : bool
        A step to sigma = 0 is a mere Euler step, as in k-diffusion and diffusers: 2 N - 1 evaluations. True
        corrects that step too; a velocity model on a linear path allows it, and the error is smaller.
    """
    for s, t in grid.steps():
        target, lin, slope = _slope(grid, s, t)
        if t.sigma == 0 and not correct_final:
            yield Call(s, t, target, Row(state=lin, output=slope))
            continue
        yield Call(s, t, target, Row(state=lin, output=slope), STORE_OUTPUT, anchor="keep")
        yield Call(t, t, target, Row(anchor=lin, output=0.5 * slope, history=(0.5 * slope,)))


def _slope(grid: Grid, s: Node, t: Node) -> tuple[str, float, float]:
    """(target, lin, slope) of x_t = lin x_s + slope target(x_s)."""
    if isinstance(grid.schedule, FlowMatching):
        return "velocity", 1.0, t.sigma - s.sigma
    step = transfer(s, t, "eps")
    return "eps", step.lin, step.first
