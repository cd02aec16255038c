"""Masking schedules: the probability that a token is masked at time t, and back.

Everything is written in the mask probability m(t) = 1 - alpha(t), never by way of 1 - alpha: near t = 0,
where most of the last tokens are revealed, that subtraction has no correct digits left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from fastdiff_ops.schedules._arrays import ArrayLike, as_float64, is_host, quiet
from fastdiff_ops.schedules._checks import check_positive

#: What a network may want to be told: nothing, the time, -ln(alpha), or the mask probability.
Conditioning = Literal["none", "t", "sigma", "mask_prob"]
CONDITIONINGS = ("none", "t", "sigma", "mask_prob")
_BISECTIONS = 60
_CHECKED_POINTS = 257
_REGISTRY: dict[str, type[MaskSchedule]] = {}


class MaskSchedule(ABC):
    """Mask probability m(t) = 1 - alpha(t), increasing in t on [0, 1].

    ``MaskSchedule.from_name`` and ``MaskSchedule.from_alpha`` make one. A schedule only says *when* tokens
    are revealed; with a network that is not told the time, exact samplers give the same law under all of
    them (Zheng et al., arXiv 2409.02908).

    Notes
    -----
    Methods take a float or numpy array and return numpy float64, or take a tensor and return a float64 tensor
    on its device, without reading it. Host values outside [0, 1] are a ValueError.

    ====================  ==================================  =====================================
    name                  m(t)                                of
    ====================  ==================================  =====================================
    ``loglinear(eps=0)``  (1 - eps) t                         LLaDA, RADD, Dream; MDLM, SEDD: 1e-3
    ``cosine``            sin(pi t / 2)                       MD4 (arXiv 2406.04329), MaskGIT
    ``cosine_mdlm(eps)``  2 (1 - eps) sin^2(pi t / 4)         MDLM (arXiv 2406.07524)
    ``cosine2(eps)``      (1 - eps) sin^2(pi t / 2)           MDLM's ``cosinesqr``
    ``polynomial(r)``     t^r                                 MD4
    ``linear_sigma``      1 - exp(-(s0 + t (s1 - s0)))        MDLM's ``linear``
    ``geometric(s0,s1)``  1 - exp(-s0^(1 - t) s1^t)           SEDD (arXiv 2310.16834)
    ====================  ==================================  =====================================

    Examples
    --------
    >>> schedule = MaskSchedule.from_name("cosine")
    >>> float(schedule.mask_prob(0.5)), round(float(schedule.inverse(schedule.mask_prob(0.25))), 12)
    (0.7071067811865475, 0.25)
    >>> MaskSchedule.from_name("loglinear", eps=1e-3)
    LogLinear(eps=0.001)
    """

    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name:
            _REGISTRY[cls.name] = cls

    @staticmethod
    def names() -> list[str]:
        """Names that `from_name` knows."""
        return sorted(_REGISTRY)

    @staticmethod
    def from_name(name: str, **options: float) -> MaskSchedule:
        """Return the schedule of this name; options are those of the class's table.

        Raises
        ------
        ValueError, TypeError
            If the name is not known, or an option is unknown or out of range.
        """
        if name not in _REGISTRY:
            raise ValueError(f"`name` must be one of {', '.join(sorted(_REGISTRY))}, got {name!r}")
        return _REGISTRY[name](**options)

    @staticmethod
    def from_alpha(alpha: Callable[[torch.Tensor], torch.Tensor]) -> MaskSchedule:
        """Return the schedule of a function alpha(t), decreasing on [0, 1]; it is inverted by bisection.

        Parameters
        ----------
        alpha : callable
            float64 tensor of times -> tensor like it, in [0, 1], elementwise.

        Raises
        ------
        ValueError
            If alpha leaves [0, 1] or increases somewhere on a grid of 257 times.
        """
        return FromAlpha(alpha)

    def mask_prob(self, t: ArrayLike) -> Any:
        """Probability m(t) that a token is masked at time t."""
        xp, t = _unit("t", t)
        return self._mask_prob(xp, t)

    def inverse(self, mask_prob: ArrayLike) -> Any:
        """Time at which tokens are masked with this probability.

        Probabilities below m(0), which some schedules start above 0, belong to t = 0; those above m(1) to 1.
        """
        xp, m = _unit("mask_prob", mask_prob)
        with quiet(xp):
            return xp.clip(self._inverse(xp, m), 0.0, 1.0)

    def alpha(self, t: ArrayLike) -> Any:
        """Probability that a token is not masked at time t."""
        return 1.0 - self.mask_prob(t)

    def log_mask_prob(self, t: ArrayLike) -> Any:
        """ln m(t); -inf where m is 0."""
        xp, t = _unit("t", t)
        with quiet(xp):
            return xp.log(self._mask_prob(xp, t))

    def sigma(self, t: ArrayLike) -> Any:
        """Total noise -ln alpha(t); inf where every token is masked."""
        return self.conditioning(self.mask_prob(t), "sigma")

    def conditioning(self, mask_prob: ArrayLike, kind: Conditioning) -> Any:
        """What a network that wants `kind` ("t", "sigma" or "mask_prob") is told at this mask probability."""
        if kind == "t":
            return self.inverse(mask_prob)
        xp, m = _unit("mask_prob", mask_prob)
        if kind == "mask_prob":
            return m
        if kind != "sigma":
            raise ValueError(f"`kind` must be 't', 'sigma' or 'mask_prob', got {kind!r}")
        with quiet(xp):
            return -xp.log1p(-m)

    @abstractmethod
    def _mask_prob(self, xp: Any, t: Any) -> Any: ...

    @abstractmethod
    def _inverse(self, xp: Any, m: Any) -> Any: ...


def _unit(name: str, value: ArrayLike) -> tuple[Any, Any]:
    xp, array = as_float64(name, value)
    if is_host(xp) and not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"`{name}` must be in [0, 1], got {value!r:.80}")
    return xp, array


def _check_eps(eps: float) -> None:
    if isinstance(eps, bool) or not isinstance(eps, (int, float)):
        raise TypeError(f"`eps` must be a number, got {eps!r:.80}")
    if not 0.0 <= eps < 1.0:
        raise ValueError(f"`eps` must be in [0, 1), got {eps!r}")


@dataclass(frozen=True)
class LogLinear(MaskSchedule):
    """m = (1 - eps) t: sigma = -ln(1 - (1 - eps) t) is what "log-linear" means."""

    name: ClassVar[str] = "loglinear"
    eps: float = 0.0

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def _mask_prob(self, xp: Any, t: Any) -> Any:
        return (1.0 - self.eps) * t

    def _inverse(self, xp: Any, m: Any) -> Any:
        return m / (1.0 - self.eps)


@dataclass(frozen=True)
class Cosine(MaskSchedule):
    """alpha = 1 - cos(pi (1 - t) / 2), as MD4 writes it."""

    name: ClassVar[str] = "cosine"

    def _mask_prob(self, xp: Any, t: Any) -> Any:
        return xp.sin(0.5 * np.pi * t)

    def _inverse(self, xp: Any, m: Any) -> Any:
        return xp.arcsin(m) / (0.5 * np.pi)


@dataclass(frozen=True)
class CosineMDLM(MaskSchedule):
    """alpha = eps + (1 - eps) cos(pi t / 2)."""

    name: ClassVar[str] = "cosine_mdlm"
    eps: float = 1e-3

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def _mask_prob(self, xp: Any, t: Any) -> Any:
        return 2.0 * (1.0 - self.eps) * xp.sin(0.25 * np.pi * t) ** 2

    def _inverse(self, xp: Any, m: Any) -> Any:
        return xp.arcsin(xp.sqrt(xp.clip(m / (2.0 * (1.0 - self.eps)), 0.0, 1.0))) / (0.25 * np.pi)


@dataclass(frozen=True)
class Cosine2(MaskSchedule):
    """alpha = eps + (1 - eps) cos^2(pi t / 2)."""

    name: ClassVar[str] = "cosine2"
    eps: float = 1e-3

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def _mask_prob(self, xp: Any, t: Any) -> Any:
        return (1.0 - self.eps) * xp.sin(0.5 * np.pi * t) ** 2

    def _inverse(self, xp: Any, m: Any) -> Any:
        # near t = 1 the sine is flat, and arcsin loses half of the digits where arctan2 does not
        m = xp.clip(m / (1.0 - self.eps), 0.0, 1.0)
        return xp.arctan2(xp.sqrt(m), xp.sqrt(1.0 - m)) / (0.5 * np.pi)


@dataclass(frozen=True)
class Polynomial(MaskSchedule):
    """alpha = 1 - t^r."""

    name: ClassVar[str] = "polynomial"
    r: float = 2.0

    def __post_init__(self) -> None:
        check_positive(r=self.r)

    def _mask_prob(self, xp: Any, t: Any) -> Any:
        return t**self.r

    def _inverse(self, xp: Any, m: Any) -> Any:
        return m ** (1.0 / self.r)


class _Sigma(MaskSchedule):
    """Schedules given by their total noise sigma between `sigma_min` and `sigma_max`."""

    sigma_min: float
    sigma_max: float

    def __post_init__(self) -> None:
        check_positive(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        if not self.sigma_min < self.sigma_max:
            raise ValueError(
                f"`sigma_max` must be above `sigma_min` = {self.sigma_min}, got {self.sigma_max}"
            )


@dataclass(frozen=True)
class LinearSigma(_Sigma):
    """sigma = sigma_min + t (sigma_max - sigma_min)."""

    name: ClassVar[str] = "linear_sigma"
    sigma_min: float = 1e-3
    sigma_max: float = 7.0

    def _mask_prob(self, xp: Any, t: Any) -> Any:
        return -xp.expm1(-(self.sigma_min + t * (self.sigma_max - self.sigma_min)))

    def _inverse(self, xp: Any, m: Any) -> Any:
        return (-xp.log1p(-m) - self.sigma_min) / (self.sigma_max - self.sigma_min)


@dataclass(frozen=True)
class Geometric(_Sigma):
    """sigma = sigma_min^(1 - t) sigma_max^t."""

    name: ClassVar[str] = "geometric"
    sigma_min: float = 1e-4
    sigma_max: float = 20.0

    def _mask_prob(self, xp: Any, t: Any) -> Any:
        return -xp.expm1(-self.sigma_min * xp.exp(t * np.log(self.sigma_max / self.sigma_min)))

    def _inverse(self, xp: Any, m: Any) -> Any:
        return xp.log(-xp.log1p(-m) / self.sigma_min) / np.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class FromAlpha(MaskSchedule):
    """A schedule by its function alpha; see `MaskSchedule.from_alpha`."""

    function: Callable[[torch.Tensor], torch.Tensor]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"`alpha` must be callable, got {type(self.function).__name__}")
        values = self._mask_prob(np, np.linspace(0.0, 1.0, _CHECKED_POINTS))
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError("`alpha` must stay in [0, 1]")
        if not (np.diff(values) >= 0).all() or not values[-1] > values[0]:
            raise ValueError("`alpha` must decrease on [0, 1]")

    def _mask_prob(self, xp: Any, t: Any) -> Any:
        m = 1.0 - torch.as_tensor(self.function(torch.as_tensor(t))).to(torch.float64)
        if m.shape != t.shape:
            raise ValueError(
                f"`alpha` must return one value for each time: {tuple(t.shape)}, got {tuple(m.shape)}"
            )
        return m.numpy() if is_host(xp) else m

    def _inverse(self, xp: Any, m: Any) -> Any:
        low, high = xp.zeros_like(m), xp.ones_like(m)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            below = self._mask_prob(xp, middle) < m
            low, high = xp.where(below, middle, low), xp.where(below, high, middle)
        return 0.5 * (low + high)


def check_schedule(schedule: object) -> None:
    """Raise unless it is a MaskSchedule or None."""
    if schedule is not None and not isinstance(schedule, MaskSchedule):
        wanted = "a MaskSchedule, as MaskSchedule.from_name makes"
        raise TypeError(f"`schedule` must be {wanted}, got {schedule!r:.80}")
