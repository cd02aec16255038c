"""Continuous-time schedules: variance preserving (linear and cosine) and flow matching."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin, tan
from typing import Any

from ._arrays import log_alpha_from_lam
from ._checks import check_positive
from .base import NoiseSchedule


@dataclass(frozen=True)
class VPLinear(NoiseSchedule, kind="vp_linear"):
    r"""Variance-preserving path with linear beta: :math:`\ln\alpha = -t^2(\beta_1-\beta_0)/4 - t\beta_0/2`.

    The VP SDE of Song et al. (arXiv 2011.13456, eq. 33); T = 1, t0 = 1e-3. The network's time is t.

    Parameters
    ----------
    beta_min, beta_max : float
        beta at t = 0 and t = 1; ``0 < beta_min <= beta_max``.

    Examples
    --------
    >>> from fastdiff_ops.schedules import VPLinear
    >>> VPLinear().alpha([1e-3, 0.5, 1.0]).round(8).tolist()
    [0.99994503, 0.28118288, 0.00657159]
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    T, t0, t_max = 1.0, 1e-3, 1.0

    def __post_init__(self) -> None:
        check_positive(beta_min=self.beta_min, beta_max=self.beta_max)
        if self.beta_max < self.beta_min:
            raise ValueError(f"`beta_max` must be at least `beta_min` = {self.beta_min}, got {self.beta_max}")

    def _log_alpha(self, xp: Any, t: Any) -> Any:
        return -0.25 * t * (t * (self.beta_max - self.beta_min) + 2.0 * self.beta_min)

    def _alpha_sigma(self, xp: Any, t: Any) -> tuple[Any, Any]:
        log_alpha = self._log_alpha(xp, t)
        return xp.exp(log_alpha), xp.sqrt(-xp.expm1(2.0 * log_alpha))

    def _alpha_sigma_dot(self, xp: Any, t: Any) -> tuple[Any, Any]:
        alpha, sigma = self._alpha_sigma(xp, t)
        half_beta = 0.5 * (self.beta_min + t * (self.beta_max - self.beta_min))
        return -half_beta * alpha, half_beta * alpha**2 / sigma

    def _inv_lam(self, xp: Any, lam: Any) -> Any:
        # -2 ln(alpha) = t^2 (b1-b0)/2 + t b0, solved in the form that does not cancel for small t
        square = -2.0 * log_alpha_from_lam(xp, lam)
        b0, slope = self.beta_min, self.beta_max - self.beta_min
        return 2.0 * square / (xp.sqrt(b0**2 + 2.0 * slope * square) + b0)


@dataclass(frozen=True)
class VPCosine(NoiseSchedule, kind="vp_cosine"):
    r"""Variance-preserving cosine path.

    .. math:: \alpha = \cos\frac{(t+c)\pi}{2(1+c)} / \cos\frac{c\pi}{2(1+c)}

    Nichol and Dhariwal (arXiv 2102.09672), in continuous time as in DPM-Solver; T = 0.9946, t0 = 1e-3. alpha
    vanishes at t = 1, which is why sampling starts below it. The network's time is t.

    Parameters
    ----------
    c : float
        Offset that keeps sigma from being too small near the data.
    """

    c: float = 0.008
    T, t0, t_max = 0.9946, 1e-3, 1.0

    def __post_init__(self) -> None:
        check_positive(c=self.c)

    @property
    def _rate(self) -> float:
        return 0.5 * pi / (1.0 + self.c)

    def _alpha_sigma(self, xp: Any, t: Any) -> tuple[Any, Any]:
        # each end has a form that does not cancel: alpha as a sine of 1 - t, and 1 - alpha from half angles
        angle, offset = self._rate * t, self._rate * self.c
        alpha = xp.sin(self._rate * (1.0 - t)) / cos(offset)
        deficit = 2.0 * xp.sin(0.5 * angle) ** 2 + xp.sin(angle) * tan(offset)
        return alpha, xp.sqrt(deficit * (1.0 + alpha))

    def _alpha_sigma_dot(self, xp: Any, t: Any) -> tuple[Any, Any]:
        alpha, sigma = self._alpha_sigma(xp, t)
        alpha_dot = -self._rate * xp.cos(self._rate * (1.0 - t)) / cos(self._rate * self.c)
        return alpha_dot, -alpha * alpha_dot / sigma

    def _inv_lam(self, xp: Any, lam: Any) -> Any:
        alpha, sigma = xp.exp(log_alpha_from_lam(xp, lam)), xp.exp(log_alpha_from_lam(xp, -lam))
        # cos(angle + offset) = alpha cos(offset); sine and cosine of the angle itself without a difference
        c, s = cos(self._rate * self.c), sin(self._rate * self.c)
        sin_sum = xp.sqrt((sigma * c) ** 2 + s**2)
        angle = xp.arctan2(c * sigma**2 / (sin_sum + alpha * s), alpha * c**2 + sin_sum * s)
        return xp.clip(angle / self._rate, 0.0, 1.0)  # the range is [0, 1]; this removes a last-bit excess


@dataclass(frozen=True)
class FlowMatching(NoiseSchedule, kind="flow"):
    r"""Linear path of flow matching: alpha = 1 - u, sigma = u, with the shifted time u = s t / (1 + (s-1) t).

    T = 1 is pure noise (lambda = -inf) and t0 = 0 is data (lambda = +inf). The shift (SD3, arXiv 2403.03206,
    eq. 23) multiplies sigma/alpha by s, so lambda -> lambda - ln s: uniform steps in t become shifted steps
    in u.

    The network lives in the unshifted time: `model_time` is u in [0, 1] (multiply by 1000 in the wrapper of a
    network that wants it so), and the prediction type ``velocity`` is eps - x0, the derivative by u, whatever
    the shift. `alpha_dot` and `sigma_dot` are derivatives by t.

    Parameters
    ----------
    shift : float
        s > 0; 1 is the plain path.

    Examples
    --------
    >>> from fastdiff_ops.schedules import FlowMatching
    >>> float(FlowMatching(shift=3.0).sigma(0.5))
    0.75
    """

    shift: float = 1.0
    T, t0, t_max = 1.0, 0.0, 1.0

    def __post_init__(self) -> None:
        check_positive(shift=self.shift)

    def _alpha_sigma(self, xp: Any, t: Any) -> tuple[Any, Any]:
        scale = 1.0 + (self.shift - 1.0) * t
        return (1.0 - t) / scale, self.shift * t / scale

    def _alpha_sigma_dot(self, xp: Any, t: Any) -> tuple[Any, Any]:
        rate = self.shift / (1.0 + (self.shift - 1.0) * t) ** 2
        return -rate, rate

    def _inv_lam(self, xp: Any, lam: Any) -> Any:
        return 1.0 / (1.0 + self.shift * xp.exp(lam))

    def _model_time(self, xp: Any, t: Any) -> Any:
        return self._alpha_sigma(xp, t)[1]

    def _velocity(self, xp: Any, t: Any) -> tuple[Any, Any]:
        return -xp.ones_like(t), xp.ones_like(t)
