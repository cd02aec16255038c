"""DDIM."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fastdiff_ops._coefficients import Row

from .exponential import PREDICTIONS, transfer
from .grid import Grid
from .options import check_choice, check_eta
from .registry import Call, solver


@solver("ddim")
def ddim(grid: Grid, *, eta: float = 0.0, prediction: str = "x0") -> Iterator[Call]:
    """Denoising Diffusion Implicit Models (Song et al. 2021, arXiv 2010.02502, eq. 12 and 16).

    Parameters
    ----------
    eta : float
        Share of the posterior standard deviation that is added as noise: variance eta^2 v with
        v = sigma_t^2 (1 - e^(-2 h)). 0 is the deterministic sampler, 1 is DDPM's ancestral one.
    prediction : "x0" or "eps"
        What the rows work with; the same numbers up to rounding.
    """
    check_eta(eta)
    check_choice("prediction", prediction, PREDICTIONS)
    for s, t in grid.steps():
        if eta == 0.0:
            step = transfer(s, t, prediction)
            yield Call(s, t, prediction, Row(state=step.lin, output=step.first))
            continue
        variance = -(t.sigma**2) * math.expm1(-2.0 * (t.lam - s.lam))
        kept = math.sqrt(t.sigma**2 - eta**2 * variance)  # weight of eps in the next state
        noise = eta * math.sqrt(variance)
        if prediction == "x0":
            lin = kept / s.sigma
            yield Call(s, t, "x0", Row(state=lin, output=t.alpha - s.alpha * lin, noise=noise))
        else:
            lin = transfer(s, t, "eps").lin
            yield Call(s, t, "eps", Row(state=lin, output=kept - s.sigma * lin, noise=noise))
