"""Solvers that user interfaces know by the names of k-diffusion: ancestral steps, DPM2, DPM++ SDE, LMS, LCM.

An ancestral step goes further down than it should, to rho_down, and adds noise of standard deviation rho_up;
rho = sigma / alpha, and rho_down^2 + rho_up^2 = rho_t^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from fastdiff_ops._coefficients import Row

from .adams import check_order
from .grid import Grid, Node
from .options import check_eta
from .registry import STORE_OUTPUT, Call, solver

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)  # exact for what `lms` integrates


@solver("euler_ancestral")
def euler_ancestral(grid: Grid, *, eta: float = 1.0) -> Iterator[Call]:
    """Euler's method with ancestral noise; the same as `ddim` with `eta` on variance-exploding schedules.

    Parameters
    ----------
    eta : float
        Share of the noise, 0 to 1.
    """
    check_eta(eta)
    for s, t in grid.steps():
        down, up = _split(_rho(s), _rho(t), eta)
        yield Call(s, t, "eps", _euler_row(s, t, down, up))


@solver("dpm2", ancestral=False)
@solver("dpm2_ancestral", ancestral=True, eta=1.0)
def dpm2(grid: Grid, ancestral: bool, *, eta: float = 0.0) -> Iterator[Call]:
    """The midpoint rule, with the midpoint in ln rho: two evaluations a step, one where it ends at sigma = 0.

    Parameters
    ----------
    eta : float
        Share of ancestral noise, 0 to 1.

    Notes
    -----
    Karras et al., arXiv 2206.00364, algorithm 2 of DPM-Solver-2 as k-diffusion writes it.
    """
    return _by_midpoint(grid, eta, "eps", _euler_row)


@solver("dpmpp_2s_ancestral")
def dpmpp_2s_ancestral(grid: Grid, *, eta: float = 1.0) -> Iterator[Call]:
    """DPM-Solver++(2S) with ancestral noise: two evaluations a step, one where it ends at sigma = 0.

    Parameters
    ----------
    eta : float
        Share of the noise, 0 to 1.
    """
    return _by_midpoint(grid, eta, "x0", _data_row)


@solver("dpmpp_2s_sde")
def dpmpp_2s_sde(grid: Grid, *, eta: float = 1.0) -> Iterator[Call]:
    """DPM-Solver++ for the SDE with a middle stage, "DPM++ SDE": two evaluations a step, both with noise.

    Parameters
    ----------
    eta : float
        Share of the noise, 0 to 1.

    Notes
    -----
    The noise of the whole step continues that of its first half, as on one Brownian path over rho.
    """
    check_eta(eta)
    for s, t in grid.steps():
        down, up = _split(_rho(s), _rho(t), eta)
        if t.sigma == 0:
            yield Call(s, t, "x0", _data_row(s, t, down, up))
            continue
        middle = grid.node_at((s.lam + t.lam) / 2)
        first = _data_row(s, middle, *_split(_rho(s), _rho(middle), eta))
        yield Call(s, middle, "x0", first, (Row(noise=1.0),) if up else (), anchor="keep")
        share = (_rho(s) - _rho(middle)) / (_rho(s) - _rho(t))
        row = _data_row(s, t, down, up)
        before = (row.noise * math.sqrt(share),) if up else ()
        rest = row.noise * math.sqrt(1 - share)
        yield Call(middle, t, "x0", row._replace(state=0.0, anchor=row.state, noise=rest, history=before))


@solver("lms")
def lms(grid: Grid, *, order: int = 4) -> Iterator[Call]:
    """Linear multistep: Adams-Bashforth in rho, the weights integrated exactly.

    Parameters
    ----------
    order : int
        1 to 4; the first steps have what history there is.
    """
    check_order(order, 4)
    for i, (s, t) in enumerate(grid.steps()):
        nodes = np.array([_rho(node) for node in grid.nodes[i::-1][:order]])
        half = (_rho(t) - nodes[0]) / 2
        at = nodes[0] + half * (1 + _NODES)
        weights = []
        for j, node in enumerate(nodes):
            others = np.delete(nodes, j)
            basis = np.prod((at[:, None] - others) / (node - others), axis=1)
            weights.append(float(t.alpha * half * _WEIGHTS @ basis))
        row = Row(state=t.alpha / s.alpha, output=weights[0], history=tuple(weights[1:]))
        yield Call(s, t, "eps", row, STORE_OUTPUT)


@solver("lcm")
def lcm(grid: Grid) -> Iterator[Call]:
    """Multistep consistency sampling: jump to the data, add the noise of the next time.

    Notes
    -----
    Luo et al., "Latent Consistency Models", arXiv 2310.04378, algorithm 3; for models distilled to jump.
    """
    for s, t in grid.steps():
        yield Call(s, t, "x0", Row(output=t.alpha, noise=t.sigma))


def _by_midpoint(
    grid: Grid, eta: float, target: str, row_of: Callable[[Node, Node, float, float], Row]
) -> Iterator[Call]:
    """Steps with the slope at the middle in ln rho; where one ends at rho = 0, with that at its start."""
    check_eta(eta)
    for s, t in grid.steps():
        down, up = _split(_rho(s), _rho(t), eta)
        row = row_of(s, t, down, up)
        if down == 0:
            yield Call(s, t, target, row)
            continue
        middle = grid.node_at(-math.log(_rho(s) * down) / 2)
        yield Call(s, middle, target, row_of(s, middle, _rho(middle), 0.0), anchor="keep")
        yield Call(middle, t, target, row._replace(state=0.0, anchor=row.state))


def _rho(node: Node) -> float:
    if node.alpha == 0:
        raise ValueError(f"this solver cannot start at t = {node.t:g}, where alpha is 0; take one for x0")
    return node.sigma / node.alpha


def _split(rho_s: float, rho_t: float, eta: float) -> tuple[float, float]:
    """rho_down and rho_up of an ancestral step."""
    up = min(rho_t, eta * rho_t * math.sqrt(1 - (rho_t / rho_s) ** 2))
    return math.sqrt((rho_t - up) * (rho_t + up)), up


def _euler_row(s: Node, t: Node, down: float, up: float) -> Row:
    return Row(state=t.alpha / s.alpha, output=t.alpha * (down - _rho(s)), noise=t.alpha * up)


def _data_row(s: Node, t: Node, down: float, up: float) -> Row:
    kept = down / _rho(s)
    return Row(state=t.alpha / s.alpha * kept, output=t.alpha * (1 - kept), noise=t.alpha * up)
