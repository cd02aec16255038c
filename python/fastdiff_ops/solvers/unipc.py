"""UniP and UniPC, and DC-Solver, which compensates what UniPC extrapolates.

Zhao et al., "UniPC", arXiv 2302.04867; Zhao et al., "DC-Solver", arXiv 2409.03755.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from fastdiff_ops._coefficients import Row

from .adams import check_order, finite_past, lowers_order
from .exponential import PREDICTIONS, transfer
from .grid import Grid, Node
from .options import check_choice
from .phi import exact_weights, phi
from .registry import STORE_OUTPUT, Call, solver

VARIANTS = ("bh1", "bh2", "vary")


@solver("unip", corrector=False, order=2)
@solver("unipc", corrector=True, order=2)
def unipc(
    grid: Grid,
    *,
    order: int,
    variant: str = "bh2",
    prediction: str = "x0",
    corrector: bool,
    disable_corrector: Sequence[int] = (),
    lower_order_final: bool | Literal["auto"] = True,
) -> Iterator[Call]:
    """Unified predictor-corrector of any order, one model evaluation a step.

    Parameters
    ----------
    order : int
        1 to 4. The corrector's order of accuracy is one more.
    variant : "bh1", "bh2" or "vary"
        The paper's B(h) = h or e^h - 1; "vary" solves for the exact exponential weights.
    prediction : "x0" or "eps"
    corrector : bool
        Correct each state when the model has been evaluated at its prediction.
    disable_corrector : sequence of int
        Steps, from 0 on, whose result is not corrected.
    lower_order_final : bool or "auto"
        Lower the order over the last steps; "auto" does so below 15 steps.

    Notes
    -----
    The evaluation is not repeated at the corrected state, and the last state is not corrected. A step to
    sigma = 0 and one from alpha = 0 are of order 1, and the latter is not corrected.
    """
    _check(order, variant, prediction)
    skipped = _steps("disable_corrector", disable_corrector, len(grid))
    plan = _Plan(grid, order, variant, prediction, lower_order_final)
    for i, (s, t) in enumerate(grid.steps()):
        weights = plan.predictor(i)
        fixed = plan.corrector(i - 1) if corrector and i > 0 and i - 1 not in skipped else None
        yield Call(s, t, prediction, *_rows(plan.lin(i), weights, fixed, STORE_OUTPUT[0], corrector, i))


@solver("dc_unipc", order=3)
def dc_unipc(
    grid: Grid,
    *,
    order: int,
    ratios: Sequence[float] | None = None,
    variant: str = "bh2",
    prediction: str = "x0",
    corrector: bool = True,
    dc_order: int = 2,
    lower_order_final: bool | Literal["auto"] = True,
) -> Iterator[Call]:
    """DC-Solver: UniPC whose stored model outputs are moved along their interpolation polynomial.

    Parameters
    ----------
    ratios : sequence of float, one a step, optional
        From step `dc_order` on the newest output is replaced by its polynomial's value at
        ratio t_i + (1 - ratio) t_{i-1}; 1, the default, changes nothing, and earlier steps must have it.
    order, variant, prediction, corrector, lower_order_final
        As in `unipc`.
    dc_order : int
        Degree of the polynomial, 1 to 4.

    Notes
    -----
    Section 3.2 of the paper. The corrector sees the output itself, everything later the compensated one.
    """
    _check(order, variant, prediction)
    check_order(dc_order, 4)
    chosen = _ratios(ratios, len(grid), dc_order)
    plan = _Plan(grid, order, variant, prediction, lower_order_final)
    for i, (s, t) in enumerate(grid.steps()):
        moved = np.zeros(9)
        moved[0] = 1.0
        if i >= dc_order and chosen[i] != 1.0:
            nodes = np.array(
                [node.t for node in grid.nodes[i : i - dc_order - 1 if i > dc_order else None : -1]]
            )
            moved[: dc_order + 1] = _lagrange(nodes, chosen[i] * nodes[0] + (1 - chosen[i]) * nodes[1])
        store = Row(output=moved[0], history=tuple(moved[1:]))
        weights = np.array(plan.predictor(i))
        combined = weights[0] * moved
        combined[1 : len(weights)] += weights[1:]
        fixed = plan.corrector(i - 1) if corrector and i > 0 else None
        yield Call(s, t, prediction, *_rows(plan.lin(i), combined.tolist(), fixed, store, corrector, i))


def _rows(
    lin: float, weights: Sequence[float], fixed: tuple[float, ...] | None, store: Row, corrector: bool, i: int
) -> tuple[Row, tuple[Row, ...], Any]:
    """State, store and anchor: the corrected state is the new anchor, from which the prediction starts."""
    output, history = weights[0], tuple(weights[1:])
    if fixed is None:
        # the first anchor is the initial state already
        anchor = ("keep" if i == 0 else Row(state=1.0)) if corrector else "same"
        return Row(state=lin, output=output, history=history), (store,), anchor
    corrected = Row(anchor=fixed[0], output=fixed[1], history=fixed[2:])
    return Row(corrected=lin, output=output, history=history), (store,), corrected


class _Plan:
    """Orders and weights of every step."""

    def __init__(
        self,
        grid: Grid,
        order: int,
        variant: str,
        prediction: str,
        lower_order_final: bool | Literal["auto"],
    ) -> None:
        self.grid, self.variant, self.prediction = grid, variant, prediction
        self.orders = []
        lower = lowers_order(lower_order_final, len(grid))
        for i, (s, t) in enumerate(grid.steps()):
            allowed = min(order, len(finite_past(grid, i)), len(grid) - i if lower else order)
            self.orders.append(1 if t.sigma == 0 or s.alpha == 0 else allowed)

    def lin(self, i: int) -> float:
        return transfer(self.grid.nodes[i], self.grid.nodes[i + 1], self.prediction).lin

    def predictor(self, i: int) -> list[float]:
        """Weights of m_i, m_{i-1}, ... in the step from node i."""
        s, t = self.grid.nodes[i : i + 2]
        return _weights(s, t, self._past(i), self.variant, self.prediction, corrector=False)

    def corrector(self, i: int) -> tuple[float, ...] | None:
        """Weights of the state at node i and of m_{i+1}, m_i, ... in the corrected state at node i + 1."""
        s, t = self.grid.nodes[i : i + 2]
        if not math.isfinite(s.lam):
            return None
        at_s, *rest, at_t = _weights(s, t, self._past(i), self.variant, self.prediction, corrector=True)
        return self.lin(i), at_t, at_s, *rest

    def _past(self, i: int) -> Sequence[Node]:
        return finite_past(self.grid, i)[1 : self.orders[i]]


def _weights(
    s: Node, t: Node, past: Sequence[Node], variant: str, prediction: str, *, corrector: bool
) -> list[float]:
    """Weights of m_s, those of earlier nodes, and with a corrector m_t."""
    step = transfer(s, t, prediction)
    if not past and not corrector:
        return [step.first]
    h = t.lam - s.lam
    r = [(node.lam - s.lam) / h for node in past] + [1.0] * corrector
    if variant == "vary":
        return (step.scale * h * exact_weights([0.0, *r], step.z)).tolist()  # type: ignore[no-any-return]
    base = step.z if variant == "bh1" else math.expm1(step.z)
    n = len(r)
    if n == 1 and (not corrector or not past):
        rho = np.array([0.5])
    else:
        b = [math.factorial(k) * step.z * phi(k + 1, step.z) / base for k in range(1, n + 1)]
        rho = np.linalg.solve(np.array(r)[None, :] ** np.arange(n)[:, None], np.array(b))
    # x_t = lin x_s + S expm1(z) m_s + S B(z) sum_j rho_j (m_j - m_s) / r_j, and S is -alpha_t or sigma_t's
    factor = (-t.alpha if prediction == "x0" else -t.sigma) * base
    slopes = factor * rho / np.array(r)
    return [step.first - float(slopes.sum()), *slopes.tolist()]


def _lagrange(nodes: np.ndarray, at: float) -> np.ndarray:
    """Values at one place of the polynomials that are 1 at one node and 0 at the others."""
    result = np.ones(len(nodes))
    for k, node in enumerate(nodes):
        others = np.delete(nodes, k)
        result[k] = np.prod((at - others) / (node - others))
    return result


def _check(order: object, variant: object, prediction: object) -> None:
    check_order(order, 4)
    check_choice("variant", variant, VARIANTS)
    check_choice("prediction", prediction, PREDICTIONS)


def _steps(name: str, given: Sequence[int], n: int) -> set[int]:
    if not isinstance(given, tuple) or not all(type(i) is int for i in given):
        raise TypeError(f"`{name}` must be a sequence of ints, got {given!r}")
    if outside := [i for i in given if not 0 <= i < n]:
        raise ValueError(f"`{name}` must name steps from 0 to {n - 1}, got {outside[0]}")
    return set(given)


def _ratios(ratios: object, n: int, dc_order: int) -> tuple[float, ...]:
    if ratios is None:
        return (1.0,) * n
    if not isinstance(ratios, tuple) or not all(type(r) in (int, float) for r in ratios):
        raise TypeError(f"`ratios` must be a sequence of numbers, got {ratios!r}")
    if len(ratios) != n:
        raise ValueError(f"`ratios` must hold a number for each of the {n} steps, got {len(ratios)}")
    if n < dc_order + 1:
        raise ValueError(f"`dc_order` {dc_order} needs at least {dc_order + 1} steps, got {n}")
    if not all(math.isfinite(r) for r in ratios):
        raise ValueError(f"`ratios` must be finite, got {ratios}")
    if any(r != 1.0 for r in ratios[:dc_order]):
        raise ValueError(f"`ratios` of the first {dc_order} steps must be 1, got {ratios[:dc_order]}")
    return ratios
