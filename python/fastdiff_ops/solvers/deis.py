"""DEIS: exponential Adams-Bashforth and Runge-Kutta methods on the noise prediction, and iPNDM.

Zhang and Chen, "Fast Sampling of Diffusion Models with Exponential Integrator", arXiv 2204.13902.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from fastdiff_ops._coefficients import Row

from .adams import ADAMS_BASHFORTH, check_order, finite_past, lowers_order
from .exponential import transfer
from .grid import Grid, Node
from .registry import STORE_OUTPUT, Call, solver

Array = npt.NDArray[np.float64]
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
# the abscissa of the interpolation polynomial, as a function of the half-logSNR
_ABSCISSAE: dict[str, Callable[[Grid, Array], Array]] = {
    "t": lambda grid, lam: np.array([float(grid.schedule.inv_lam(value)) for value in lam]),
    "rho": lambda grid, lam: np.exp(-lam),
    "log_rho": lambda grid, lam: -lam,
}
# nodes c, stages a, weights b of the methods in rho
_RUNGE_KUTTA: dict[int, tuple[tuple[float, ...], tuple[tuple[float, ...], ...], tuple[float, ...]]] = {
    2: ((0.0, 1.0), ((), (1.0,)), (1 / 2, 1 / 2)),
    3: ((0.0, 0.5, 1.0), ((), (0.5,), (-1.0, 2.0)), (1 / 6, 4 / 6, 1 / 6)),
    4: ((0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 2 / 6, 2 / 6, 1 / 6)),
}


@solver("deis_tab1", degree=1, abscissa="t")
@solver("deis_tab2", degree=2, abscissa="t")
@solver("deis_tab3", degree=3, abscissa="t")
@solver("deis_rhoab1", degree=1, abscissa="rho")
@solver("deis_rhoab2", degree=2, abscissa="rho")
@solver("deis_rhoab3", degree=3, abscissa="rho")
@solver("deis_logrhoab1", degree=1, abscissa="log_rho")
@solver("deis_logrhoab2", degree=2, abscissa="log_rho")
def deis(
    grid: Grid, degree: int, abscissa: str, *, lower_order_final: bool | Literal["auto"] = False
) -> Iterator[Call]:
    """Exponential Adams-Bashforth of degree p: p + 1 noise predictions, a polynomial in t, rho or ln rho.

    Parameters
    ----------
    lower_order_final : bool or "auto"
        Lower the degree over the last steps; "auto" does so below 15 steps: then `deis_logrhoab1` and
        `deis_logrhoab2` are diffusers' DEISMultistepScheduler.

    Notes
    -----
    Section 3.3 of the paper. The integrals are computed by Gauss-Legendre quadrature in the half-logSNR, to
    rounding. A step to sigma = 0 is of order 1.
    """
    lower = lowers_order(lower_order_final, len(grid))
    for i, (s, t) in enumerate(grid.steps()):
        step = transfer(s, t, "eps")
        past = finite_past(grid, i)[: 1 + (min(degree, len(grid) - 1 - i) if lower else degree)]
        if t.sigma == 0 or len(past) == 1:
            yield Call(s, t, "eps", Row(state=step.lin, output=step.first), STORE_OUTPUT)
            continue
        weights = _integrals(grid, past, t, _ABSCISSAE[abscissa])
        row = Row(state=step.lin, output=weights[0], history=tuple(weights[1:]))
        yield Call(s, t, "eps", row, STORE_OUTPUT)


def _integrals(
    grid: Grid, past: Sequence[Node], t: Node, abscissa: Callable[[Grid, Array], Array]
) -> list[float]:
    """alpha_t times the integral of each Lagrange polynomial over d rho, from past[0] to t."""
    half = (t.lam - past[0].lam) / 2
    lam = past[0].lam + half * (1 + _NODES)
    at = abscissa(grid, lam)
    nodes = abscissa(grid, np.array([node.lam for node in past]))
    density = -t.alpha * half * _WEIGHTS * np.exp(-lam)
    weights = []
    for j, node in enumerate(nodes):
        others = np.delete(nodes, j)
        basis = np.prod((at[:, None] - others) / (node - others), axis=1)
        weights.append(float(density @ basis))
    return weights


@solver("deis_rhork2", stages=2)
@solver("deis_rhork3", stages=3)
@solver("deis_rhork4", stages=4)
def deis_runge_kutta(grid: Grid, stages: int) -> Iterator[Call]:
    """Runge-Kutta of order 2 (Heun), 3 (Kutta) or 4 (classical) in rho; as many evaluations a step.

    Notes
    -----
    Section 3.4 of the paper. A step to sigma = 0 is of order 1.
    """
    c, a, b = _RUNGE_KUTTA[stages]
    for s, t in grid.steps():
        step = transfer(s, t, "eps")
        if t.sigma == 0:
            yield Call(s, t, "eps", Row(state=step.lin, output=step.first))
            continue
        rho = s.sigma / s.alpha, t.sigma / t.alpha
        inner = [grid.node_at(-math.log(rho[0] + u * (rho[1] - rho[0]))) for u in c[1:-1]]
        nodes = [s, *inner, t]
        for k, node in enumerate(nodes):
            last = k == stages - 1
            to, weights = (t, b) if last else (nodes[k + 1], a[k + 1])
            change = to.alpha * (rho[1] - rho[0])
            row = Row(
                state=to.alpha / s.alpha if k == 0 else 0.0,
                anchor=to.alpha / s.alpha if k > 0 else 0.0,
                output=change * weights[k],
                history=tuple(change * w for w in weights[:k][::-1]),
            )
            yield Call(node, to, "eps", row, () if last else STORE_OUTPUT, "same" if last else "keep")


@solver("ipndm")
def ipndm(grid: Grid, *, order: int = 4) -> Iterator[Call]:
    """Improved PNDM: DDIM's transfer of an Adams-Bashforth sum of noise predictions (section 3.3, iPNDM).

    Parameters
    ----------
    order : int
        1 to 4; the first steps have what history there is.
    """
    check_order(order, 4)
    for i, (s, t) in enumerate(grid.steps()):
        step = transfer(s, t, "eps")
        weights = [step.first * b for b in ADAMS_BASHFORTH[min(order, i + 1) - 1]]
        row = Row(state=step.lin, output=weights[0], history=tuple(weights[1:]))
        yield Call(s, t, "eps", row, STORE_OUTPUT)
