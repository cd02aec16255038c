"""Variance-exploding schedules, in which time is the noise level itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._checks import check_positive
from .base import NoiseSchedule, _Time


@dataclass(frozen=True)
class VE(NoiseSchedule, kind="ve"):
    """Variance-exploding path: alpha = 1, sigma = t; T = sigma_max, t0 = sigma_min.

    The network's time is sigma and its input is not scaled; `EDM` is the same path for preconditioned
    networks. The geometric time of the VE SDE (arXiv 2011.13456) is ``timesteps(..., "exponential")`` here.

    Parameters
    ----------
    sigma_min, sigma_max : float
        ``0 < sigma_min < sigma_max``. Noise levels above sigma_max and down to 0 may still be evaluated.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        check_positive(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        if self.sigma_max <= self.sigma_min:
            raise ValueError(f"`sigma_max` must exceed `sigma_min` = {self.sigma_min}, got {self.sigma_max}")

    @property
    def T(self) -> float:
        return float(self.sigma_max)

    @property
    def t0(self) -> float:
        return float(self.sigma_min)

    def _alpha_sigma(self, xp: Any, t: Any) -> tuple[Any, Any]:
        return xp.ones_like(t), t

    def _alpha_sigma_dot(self, xp: Any, t: Any) -> tuple[Any, Any]:
        return xp.zeros_like(t), xp.ones_like(t)

    def _inv_lam(self, xp: Any, lam: Any) -> Any:
        return xp.exp(-lam)


@dataclass(frozen=True)
class EDM(VE, kind="edm"):
    r"""The path of `VE` for a network F preconditioned as by Karras et al. (arXiv 2206.00364, Table 1).

    .. math:: x_0 = c_{skip}\,x + c_{out}\,F(c_{in}\,x,\; c_{noise})

    The schedule says what F sees, whatever it predicts: `model_time` is c_noise = ln(sigma) / 4 and `c_in` is
    the scale of its input, which the sampler applies in its fused pass. A raw F is prediction type ``edm``; a
    wrapper D(x, sigma) that already does all this is prediction type ``x0`` on the schedule `VE`.

    Parameters
    ----------
    sigma_min, sigma_max : float
    sigma_data : float
        Standard deviation of the data for which F was trained.

    Examples
    --------
    >>> from fastdiff_ops.schedules import EDM
    >>> edm = EDM()
    >>> tuple(round(float(c), 6) for c in (edm.c_skip(0.5), edm.c_out(0.5), edm.c_in(0.5)))
    (0.5, 0.353553, 1.414214)
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(sigma_data=self.sigma_data)

    def c_skip(self, t: _Time) -> _Time:
        """sigma_data^2 / (sigma^2 + sigma_data^2), the part of x in x0."""
        return self._evaluate(lambda xp, t: self.sigma_data**2 / self._total(xp, t) ** 2, t)

    def c_out(self, t: _Time) -> _Time:
        """sigma sigma_data / sqrt(sigma^2 + sigma_data^2), the part of F in x0."""
        return self._evaluate(lambda xp, t: t * self.sigma_data / self._total(xp, t), t)

    def c_in(self, t: _Time) -> _Time:
        """1 / sqrt(sigma^2 + sigma_data^2), the scale of the network's input."""
        return self._evaluate(lambda xp, t: 1.0 / self._total(xp, t), t)

    def _total(self, xp: Any, t: Any) -> Any:
        return xp.hypot(t, xp.ones_like(t) * self.sigma_data)

    def _model_time(self, xp: Any, t: Any) -> Any:
        return 0.25 * xp.log(t)

    def _prediction(self, xp: Any, t: Any, name: str, argument: str) -> tuple[Any, Any, Any]:
        if name != "edm":
            return super()._prediction(xp, t, name, argument)
        # F = (x0 - c_skip x) / c_out with x inserted; smooth at sigma = 0
        total = self._total(xp, t)
        return xp.ones_like(t), t / (self.sigma_data * total), -self.sigma_data / total
