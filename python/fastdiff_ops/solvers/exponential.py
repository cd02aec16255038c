"""The first-order exponential step that DDIM and every DPM-Solver extend."""

from __future__ import annotations

import math
from typing import NamedTuple

from .grid import Node
from .phi import phi

PREDICTIONS = ("x0", "eps")


class Transfer(NamedTuple):
    """x_t = lin x_s + first m + scale (sum over k > 1 of weight(k) times a difference of m's) + noise z.

    `lin` and `first` stay finite where alpha_s or sigma_t is 0; `weight(k)` needs a finite step.
    """

    lin: float
    first: float
    scale: float
    z: float
    noise: float

    def weight(self, k: int) -> float:
        """|z| phi_k(z), the weight of the (k-1)-th derivative of m in the exponential Taylor series."""
        return abs(self.z) * phi(k, self.z)


def transfer(s: Node, t: Node, prediction: str, eta: float = 0.0) -> Transfer:
    """First-order step from s to t; `eta` adds noise as the SDE of DPM-Solver++ (data prediction only)."""
    h = t.lam - s.lam
    if prediction == "x0":
        lin = t.sigma / s.sigma * (math.exp(-eta * h) if eta else 1.0)
        noise = t.sigma * math.sqrt(-math.expm1(-2.0 * eta * h)) if eta else 0.0
        return Transfer(lin, t.alpha - s.alpha * lin, t.alpha, -(1.0 + eta) * h, noise)
    if s.alpha == 0:
        raise ValueError(
            f"a noise-prediction solver cannot start at t = {s.t:g}, where alpha is 0; take one for x0"
        )
    lin = t.alpha / s.alpha
    return Transfer(lin, t.sigma - s.sigma * lin, -t.sigma, h, 0.0)
