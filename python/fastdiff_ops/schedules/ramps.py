"""Noise levels between two bounds, as functions of a ramp u that runs from 0 (largest) to 1 (smallest)."""

from __future__ import annotations

import numpy as np

from ._arrays import FloatArray
from ._checks import check_positive


def karras(u: FloatArray, largest: float, smallest: float, *, rho: float = 7.0) -> FloatArray:
    """Uniform in sigma^(1/rho) (Karras et al., arXiv 2206.00364, eq. 5)."""
    check_positive(rho=rho)
    low, high = smallest ** (1.0 / rho), largest ** (1.0 / rho)
    levels: FloatArray = (high + u * (low - high)) ** rho
    return levels


def polyexponential(u: FloatArray, largest: float, smallest: float, *, rho: float = 1.0) -> FloatArray:
    """ln sigma follows (1-u)^rho, as k-diffusion's function of this name."""
    check_positive(rho=rho)
    levels: FloatArray = np.exp(np.log(smallest) + (1.0 - u) ** rho * (np.log(largest) - np.log(smallest)))
    return levels


def exponential(u: FloatArray, largest: float, smallest: float) -> FloatArray:
    """Uniform in ln sigma, hence in lambda: the logSNR spacing."""
    return polyexponential(u, largest, smallest)


def beta(
    u: FloatArray, largest: float, smallest: float, *, alpha: float = 0.6, beta: float = 0.6
) -> FloatArray:
    """Quantiles of a beta distribution in sigma (arXiv 2407.12173); needs scipy."""
    check_positive(alpha=alpha, beta=beta)
    try:
        from scipy.special import betaincinv
    except ImportError as error:
        raise ImportError("the spacing 'beta' needs scipy: pip install scipy") from error
    quantiles: FloatArray = betaincinv(alpha, beta, 1.0 - u)
    return smallest + quantiles * (largest - smallest)
