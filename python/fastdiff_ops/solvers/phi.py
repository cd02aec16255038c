"""The phi functions of exponential integrators, and the weights of exact exponential multistep formulas.

    phi_0(z) = e^z,    phi_{k+1}(z) = (phi_k(z) - 1/k!) / z,    phi_k(0) = 1/k!

Every coefficient of the DPM-Solver family is built from them: int_0^1 e^{z (1 - u)} u^k du = k! phi_{k+1}(z).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SERIES_RADIUS = 1.0  # below it the recurrence cancels; the series reaches 1e-17 in 20 terms
SERIES_TERMS = 20


def phi(k: int, z: float) -> float:
    """phi_k(z) in float64.

    Parameters
    ----------
    k : int
        Order, at least 0.
    z : float
        Any real number, or -inf, where phi_k is 0.

    Examples
    --------
    >>> round(phi(1, -2.0), 9), round(phi(2, -2.0), 9), round(phi(3, 0.7), 9)
    (0.432332358, 0.283833821, 0.200445211)
    """
    if k < 0:
        raise ValueError(f"`k` must be at least 0, got {k}")
    if k == 0:
        return math.exp(z)
    if z == -math.inf:
        return 0.0
    if abs(z) < SERIES_RADIUS:
        value = 0.0
        for j in reversed(range(SERIES_TERMS)):
            value = value * z + 1.0 / math.factorial(j + k)
        return value
    value = math.expm1(z) / z
    for j in range(1, k):
        value = (value - 1.0 / math.factorial(j)) / z
    return value


def exact_weights(nodes: Sequence[float], z: float) -> npt.NDArray[np.float64]:
    """Weights w_j of the exponential formula that is exact for polynomials through `nodes`.

    Solves sum_j u_j^k w_j = k! phi_{k+1}(z) for k < len(nodes), so that
    int_0^1 e^{z (1 - u)} f(u) du = sum_j w_j f(u_j) for every polynomial f of degree below len(nodes).

    Parameters
    ----------
    nodes : sequence of float
        Distinct abscissae, in units of the step: 0 is its start, 1 its end, negative ones lie in the past.
    z : float
        -h for data prediction, +h for noise prediction, h being the step in half-logSNR.

    Returns
    -------
    float64[len(nodes)]

    Examples
    --------
    >>> exact_weights([0.0], -2.0).round(9).tolist()
    [0.432332358]
    """
    u = np.asarray(nodes, dtype=np.float64)
    order = np.arange(len(u))
    moments = np.array([math.factorial(k) * phi(k + 1, z) for k in order])
    return np.linalg.solve(u[None, :] ** order[:, None], moments)
