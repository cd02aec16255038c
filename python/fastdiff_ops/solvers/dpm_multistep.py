"""DPM-Solver and DPM-Solver++, multistep, ODE and SDE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from fastdiff_ops._coefficients import Row

from .adams import finite_past, lowers_order
from .exponential import transfer
from .grid import Grid, Node
from .options import check_choice, check_eta
from .registry import STORE_OUTPUT, Call, solver

# variant -> (weight of the slope at order 2: half the first weight or the exact second one, kappa of order 3)
_VARIANTS: dict[str, tuple[Literal["half", "exact"], float]] = {
    "midpoint": ("half", 1.0),
    "reference": ("half", 1.0),
    "heun": ("exact", 1.0),
    "taylor": ("exact", 1.0),
    "exact": ("exact", 2.0),
}


@solver("dpmpp_2m", order=2, prediction="x0", variant="midpoint")
@solver("dpmpp_3m", order=3, prediction="x0", variant="exact")
@solver("dpmpp_sde", order=1, prediction="x0", variant="midpoint", eta=1.0)
@solver("dpmpp_2m_sde", order=2, prediction="x0", variant="midpoint", eta=1.0)
@solver("dpmpp_3m_sde", order=3, prediction="x0", variant="exact", eta=1.0)
def dpm_multistep(
    grid: Grid,
    order: int,
    prediction: str,
    *,
    variant: str,
    lower_order_final: bool | Literal["auto"] = True,
    eta: float = 0.0,
) -> Iterator[Call]:
    """DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095) and DPM-Solver (arXiv 2206.00927), multistep.

    Parameters
    ----------
    variant : str
        "midpoint" (also called "reference"): the public codes' default. "heun" (also "taylor"): their second
        choice, which uses the exact second-order weight. "exact": that, and a second difference counted in
        full at order 3. The public codes count it by half, which makes the third-order method only
        second-order accurate, yet the better one at 5 steps or so. It also governs the lower-order steps.
        Default "midpoint" for order 2, "exact" for order 3.
    lower_order_final : bool or "auto"
        Lower the order over the last steps; "auto" does so below 15 steps.
    eta : float
        Noise of the SDE, 0 to 1: variance sigma_t^2 (1 - e^(-2 eta h)).

    Notes
    -----
    A step to sigma = 0 and a step from alpha = 0 are of order 1; where the half-logSNR is infinite there is
    no history.
    """
    check_choice("variant", variant, _VARIANTS)
    check_eta(eta)
    lower = lowers_order(lower_order_final, len(grid))
    for i, (s, t) in enumerate(grid.steps()):
        past = finite_past(grid, i)
        allowed = min(order, len(past), len(grid) - i if lower else order)
        if t.sigma == 0 or s.alpha == 0:
            allowed = 1
        yield Call(s, t, prediction, _row(s, t, past[1:allowed], prediction, variant, eta), STORE_OUTPUT)


@solver("dpm_solver_2m", order=2, variant="midpoint")
@solver("dpm_solver_3m", order=3, variant="exact")
def dpm_solver_multistep(
    grid: Grid, order: int, *, variant: str, lower_order_final: bool | Literal["auto"] = True
) -> Iterator[Call]:
    """DPM-Solver, multistep: `dpm_multistep` on noise predictions, for the ODE only."""
    return dpm_multistep(grid, order, "eps", variant=variant, lower_order_final=lower_order_final)


def _row(s: Node, t: Node, past: Sequence[Node], prediction: str, variant: str, eta: float) -> Row:
    """The update from s to t with the earlier nodes `past`, newest first; the order is len(past) + 1."""
    step = transfer(s, t, prediction, eta)
    if not past:
        return Row(state=step.lin, output=step.first, noise=step.noise)
    slope_weight, kappa = _VARIANTS[variant]
    h = t.lam - s.lam
    r0 = (s.lam - past[0].lam) / h
    if len(past) == 1:
        slope = step.scale * (0.5 * step.weight(1) if slope_weight == "half" else step.weight(2)) / r0
        return Row(state=step.lin, output=step.first + slope, noise=step.noise, history=(-slope,))
    # D10 = (m0 - m1)/r0 and D11 = (m1 - m2)/r1 are the slopes; the row is first m0 + c10 D10 + c11 D11
    r1 = (past[0].lam - past[1].lam) / h
    bend = kappa * step.weight(3) / (r0 + r1)
    c10 = step.scale * (step.weight(2) * (1.0 + r0 / (r0 + r1)) + bend)
    c11 = -step.scale * (step.weight(2) * r0 / (r0 + r1) + bend)
    return Row(
        state=step.lin,
        output=step.first + c10 / r0,
        noise=step.noise,
        history=(c11 / r1 - c10 / r0, -c11 / r1),
    )
