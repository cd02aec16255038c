"""Momentum in multistep solvers: heavy ball, Nesterov, and generalised heavy ball.

Wizadwongsa et al., "Diffusion Sampling with Momentum for Mitigating Divergence Artifacts", arXiv 2307.11118.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fastdiff_ops._coefficients import Row

from .adams import ADAMS_BASHFORTH, check_order, finite_past
from .exponential import transfer
from .grid import Grid
from .options import check_choice
from .registry import Call, solver

METHODS = ("plms", "plms_hb", "ghvb")
# integrals of the backward-difference interpolant over one step, orders 1 to 5
_DIFFERENCES = (1.0, 1 / 2, 5 / 12, 3 / 8, 251 / 720)


@solver("ghvb")
def ghvb(grid: Grid, *, order: float = 1.8) -> Iterator[Call]:
    """Generalised heavy ball: the velocity of the noise is extrapolated, and the order may be a fraction.

    Parameters
    ----------
    order : float
        0.05 to 5. An integer n is PLMS of order n; n - 1 + beta, 0 < beta < 1, has n velocities and the
        damping beta: 2.8 is n = 3, beta = 0.8. Between integers, the region of stability is larger.

    Notes
    -----
    Section 4.2 of the paper.
    """
    n, beta = _split(order)
    for i, (s, t) in enumerate(grid.steps()):
        step = transfer(s, t, "eps")
        weights = [step.first * c for c in _velocity_weights(min(n, i + 1), beta)]
        if i == 0:
            yield Call(s, t, "eps", Row(state=step.lin, output=weights[0]), (Row(output=1.0),))
            continue
        kept = [*weights[1:], 0.0]
        kept[0] += (1 - beta) * weights[0]
        row = Row(state=step.lin, output=beta * weights[0], history=tuple(kept[: max(1, len(weights) - 1)]))
        yield Call(s, t, "eps", row, (Row(output=beta, history=(1 - beta,)),))


@solver("plms_hb", nesterov=False)
@solver("plms_nesterov", nesterov=True)
def plms_momentum(grid: Grid, nesterov: bool, *, order: int = 4, beta: float = 0.8) -> Iterator[Call]:
    """PLMS with heavy-ball or Nesterov momentum on its direction; of order 1 where beta < 1.

    Parameters
    ----------
    order : int
        Of PLMS, 1 to 4.
    beta : float
        In (0, 1]: the share of the new direction. 1 is PLMS itself.

    Notes
    -----
    Section 4.1 of the paper.
    """
    check_order(order, 4)
    _check_beta(beta)
    for i, (s, t) in enumerate(grid.steps()):
        step = transfer(s, t, "eps")
        plms = ADAMS_BASHFORTH[min(order, i + 1) - 1]
        output, history = _mixed(plms, beta if i > 0 else 1.0)
        velocity = Row(output=output, history=history)
        if nesterov and i > 0:  # U = (1 - beta) v_i + beta PLMS_i
            output = (1 - beta) * output + beta * plms[0]
            past = _mixed(plms, 1.0)[1]
            history = tuple((1 - beta) * a + beta * b for a, b in zip(history, past, strict=True))
        row = Row(step.lin, output=step.first * output, history=tuple(step.first * w for w in history))
        yield Call(s, t, "eps", row, (Row(output=1.0), velocity))


@solver("dpmpp_2m_hb")
def dpmpp_2m_heavy_ball(grid: Grid, *, beta: float = 0.8) -> Iterator[Call]:
    """DPM-Solver++(2M), midpoint, with heavy-ball momentum on its direction.

    Parameters
    ----------
    beta : float
        In (0, 1]: the share of the new direction. 1 is `dpmpp_2m`.

    Notes
    -----
    Section 4.1 of the paper. The last step, and one to sigma = 0, are of order 1 before momentum.
    """
    _check_beta(beta)
    for i, (s, t) in enumerate(grid.steps()):
        step = transfer(s, t, "x0")
        past = finite_past(grid, i)
        direction: tuple[float, ...] = (1.0,)
        if len(past) > 1 and i + 1 < len(grid) and t.sigma > 0:
            half = 0.5 * (t.lam - s.lam) / (s.lam - past[1].lam)
            direction = (1.0 + half, -half)
        output, history = _mixed(direction, beta if i > 0 else 1.0)
        row = Row(step.lin, output=step.first * output, history=tuple(step.first * w for w in history))
        yield Call(s, t, "x0", row, (Row(output=1.0), Row(output=output, history=history)))


def stability_limit(method: str, n: int, beta: float = 1.0) -> float:
    """How far along the negative real axis a method is stable.

    Parameters
    ----------
    method : "plms", "plms_hb" or "ghvb"
    n : int
        Number of directions, 1 to 4 (`ghvb`: to 5).
    beta : float
        In (0, 1].

    Returns
    -------
    float
        The largest |z| for which x' = z x is not amplified by steps of length 1; from the roots of the
        method's characteristic polynomial.

    Raises
    ------
    ValueError, TypeError
        An argument is out of range or of the wrong type.

    Examples
    --------
    >>> round(stability_limit("plms", 2), 6), round(stability_limit("ghvb", 2, 0.8), 6)
    (1.0, 1.2)
    """
    check_choice("method", method, METHODS)
    check_order(n, 5 if method == "ghvb" else 4)
    _check_beta(beta)
    damping = 1.0 if method == "plms" else beta
    weights = np.array(_velocity_weights(n, beta) if method == "ghvb" else ADAMS_BASHFORTH[n - 1])
    # (r - 1) (r - (1 - damping)) r^(n - 1) = z damping r sum_j c_j r^(n - 1 - j)
    free = np.polymul(np.polymul([1.0, -1.0], [1.0, damping - 1.0]), [1.0] + [0.0] * (n - 1))
    forced = damping * np.append(weights, 0.0)

    def stable(z: float) -> bool:
        return bool(np.abs(np.roots(np.polyadd(free, z * forced))).max() <= 1 + 1e-9)

    low, high = 0.0, 1.0
    while stable(high):
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if stable(middle) else (low, middle)
    return low


def _split(order: object) -> tuple[int, float]:
    """Number of velocities and damping of a fractional order."""
    if not isinstance(order, int | float) or isinstance(order, bool):
        raise TypeError(f"`order` must be a number, got {type(order).__name__}")
    if not 0.05 <= order <= 5:
        raise ValueError(f"`order` must lie in [0.05, 5], got {order}")
    whole = math.floor(order)
    return (whole, 1.0) if whole == order else (whole + 1, order - whole)


def _check_beta(beta: object) -> None:
    if not isinstance(beta, int | float) or isinstance(beta, bool):
        raise TypeError(f"`beta` must be a number, got {type(beta).__name__}")
    if not 0 < beta <= 1:
        raise ValueError(f"`beta` must lie in (0, 1], got {beta}")


def _velocity_weights(n: int, beta: float) -> list[float]:
    """Weights of v_i, v_{i-1}, ...: sum_j g_j (backward difference)^j, expanded."""
    weights = [0.0] * n
    for j in range(n):
        g = _DIFFERENCES[j] + ((1 - beta) / beta * _DIFFERENCES[j - 1] if j else 0.0)
        for k in range(j + 1):
            weights[k] += g * (-1) ** k * math.comb(j, k)
    return weights


def _mixed(direction: tuple[float, ...], beta: float) -> tuple[float, tuple[float, ...]]:
    """Weights of v = (1 - beta) v_before + beta direction; outputs and velocities take turns in the ring.

    The velocity is stored last: ages 0, 2, ... are velocities and 1, 3, ... outputs.
    """
    history = [0.0] * (2 * (len(direction) - 1))
    for j, weight in enumerate(direction[1:]):
        history[2 * j + 1] = beta * weight
    if beta < 1:
        history = history or [0.0]
        history[0] = 1 - beta
    return beta * direction[0], tuple(history)
