"""`NoiseSchedule`: a Gaussian path x_t = alpha(t) x0 + sigma(t) eps and everything that follows from it."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch

from ._arrays import ArrayLike, FloatArray, as_float64, combine, common_namespace, is_host, quiet

#: Everything a network may predict. diffusers' names (``epsilon`` ...) exist only in its adapter.
PREDICTION_TYPES = ("eps", "x0", "v", "score", "velocity", "edm")

_Time = TypeVar("_Time", float, FloatArray, torch.Tensor)

_KINDS: dict[str, type[NoiseSchedule]] = {}


class NoiseSchedule(ABC):
    r"""A Gaussian path :math:`x_t = \alpha(t)\,x_0 + \sigma(t)\,\varepsilon`; t decreases from noise to data.

    Methods take a time of any shape. Floats and numpy arrays give numpy float64; a torch tensor gives a
    float64 tensor on its device, without a synchronisation and differentiable in t. Both run the same
    formulas. Host values outside the schedule's domain (and NaN) raise `ValueError`; the values of tensors
    are not inspected, as that would synchronise.

    A subclass is a frozen dataclass that states three formulas, ``_alpha_sigma``, ``_alpha_sigma_dot`` and
    ``_inv_lam``, its times, and a ``kind``; see `VPLinear` for the pattern.

    Attributes
    ----------
    T : float
        The time at which sampling starts.
    t0 : float
        The default end of sampling; sigma(t0) may be positive.
    t_data : float
        The time at which sigma is zero, i.e. of clean data (``final_sigma="zero"`` ends there).
    t_max : float
        The largest time at which the formulas hold; above T where a sampler may go there.
    index_time : bool
        Whether t is a table position, so that integer tensors of times are welcome.
    kind : str
        The name that stands for the class in `to_dict`.

    Examples
    --------
    >>> from fastdiff_ops.schedules import VPLinear
    >>> schedule = VPLinear()
    >>> f"{schedule.lam(0.5):.10f}"
    '-1.2275677344'
    >>> f"{schedule.inv_lam(schedule.lam(0.5)):.10f}"
    '0.5000000000'
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def T(self) -> float: ...

    @property
    @abstractmethod
    def t0(self) -> float: ...

    @property
    def t_data(self) -> float:
        return 0.0

    @property
    def t_max(self) -> float:
        return float("inf")

    @property
    def index_time(self) -> bool:
        return False

    def __init_subclass__(cls, kind: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind:
            cls.kind = kind
            _KINDS[kind] = cls

    # ---- what a subclass states: arrays of namespace xp in, arrays out

    @abstractmethod
    def _alpha_sigma(self, xp: Any, t: Any) -> tuple[Any, Any]: ...

    @abstractmethod
    def _alpha_sigma_dot(self, xp: Any, t: Any) -> tuple[Any, Any]: ...

    @abstractmethod
    def _inv_lam(self, xp: Any, lam: Any) -> Any: ...

    def _log_alpha(self, xp: Any, t: Any) -> Any:
        return xp.log(self._alpha_sigma(xp, t)[0])

    def _model_time(self, xp: Any, t: Any) -> Any:
        return t

    def _velocity(self, xp: Any, t: Any) -> tuple[Any, Any]:
        return self._alpha_sigma_dot(xp, t)

    # ---- the path

    def alpha(self, t: _Time) -> _Time:
        """Factor of the data at time t."""
        return self._evaluate(lambda xp, t: self._alpha_sigma(xp, t)[0], t)

    def sigma(self, t: _Time) -> _Time:
        """Factor of the noise at time t."""
        return self._evaluate(lambda xp, t: self._alpha_sigma(xp, t)[1], t)

    def alpha_dot(self, t: _Time) -> _Time:
        """d alpha / dt."""
        return self._evaluate(lambda xp, t: self._alpha_sigma_dot(xp, t)[0], t)

    def sigma_dot(self, t: _Time) -> _Time:
        """d sigma / dt; infinite at sigma = 0 on a variance-preserving path."""
        return self._evaluate(lambda xp, t: self._alpha_sigma_dot(xp, t)[1], t)

    def log_alpha(self, t: _Time) -> _Time:
        """ln(alpha)."""
        return self._evaluate(self._log_alpha, t)

    def lam(self, t: _Time) -> _Time:
        """lambda = ln(alpha / sigma), half the log signal-to-noise ratio; increases while sampling."""
        return self._evaluate(self._lam, t)

    def inv_lam(self, lam: _Time) -> _Time:
        """The time at which `lam` has this value (inverse of `lam`; +inf gives `t_data`)."""
        xp, value = as_float64("lam", lam)
        t: _Time = self._apply(self._inv_lam, xp, value)
        if is_host(xp) and not np.all(t <= self._t_limit()):
            raise ValueError(f"`lam` is below the range of {self!r} (or NaN), got {lam!r:.80}")
        return t

    def dlam_dt(self, t: _Time) -> _Time:
        """d lambda / dt (negative)."""
        return self._evaluate(self._dlam_dt, t)

    def dlogalpha_dlam(self, t: _Time) -> _Time:
        """d ln(alpha) / d lambda: sigma^2 (variance preserving), 0 (exploding), sigma (linear path)."""
        return self._evaluate(self._dlogalpha_dlam, t)

    def snr(self, t: _Time) -> _Time:
        """Signal-to-noise *amplitude* ratio alpha / sigma (not its square)."""
        return self._evaluate(lambda xp, t: _ratio(*self._alpha_sigma(xp, t)), t)

    def nsr(self, t: _Time) -> _Time:
        """sigma / alpha, the noise level of the equivalent variance-exploding path."""
        return self._evaluate(lambda xp, t: _ratio(*self._alpha_sigma(xp, t)[::-1]), t)

    # ---- what the network sees

    def model_time(self, t: _Time) -> _Time:
        """The time in the unit in which the network was trained (its second argument)."""
        return self._evaluate(self._model_time, t)

    def c_in(self, t: _Time) -> _Time:
        """Scale of the network's input, ``model_in = c_in * x``; 1 but for a preconditioned one (`EDM`)."""
        return self._evaluate(lambda xp, t: xp.ones_like(t), t)

    # ---- linear algebra of (x0, eps)

    def path_coefficients(self, t: ArrayLike, target: str = "eps") -> tuple[Any, Any]:
        """Rows of forward noising: x_t and the training target as combinations of (x0, eps).

        Parameters
        ----------
        t : float or array, any shape [...]
        target : str
            One of `PREDICTION_TYPES`.

        Returns
        -------
        coef, target_coef : float64 [..., 2]
            ``x_t = coef[0] x0 + coef[1] eps`` and ``target = target_coef[0] x0 + target_coef[1] eps``.
        """
        xp, time = self._time(t)
        with quiet(xp):
            scale, p, q = self._prediction(xp, time, target, "target")
            return xp.stack(self._alpha_sigma(xp, time), -1), xp.stack((p / scale, q / scale), -1)

    def conversion(self, t: ArrayLike, src: str, dst: str) -> tuple[Any, Any]:
        """Convert a prediction by two numbers: ``dst = c_x x + c_o src``.

        Parameters
        ----------
        t : float or array, any shape
        src, dst : str
            Prediction types, see `PREDICTION_TYPES`. Both are linear in (x0, eps), hence in (x, output).

        Returns
        -------
        c_x, c_o : float64 of the shape of t

        Raises
        ------
        ValueError
            If the conversion divides by zero at some t: noise or score to data where alpha = 0, data to noise
            where sigma = 0. Tensors are not inspected and give inf or NaN there.

        Examples
        --------
        >>> from fastdiff_ops.schedules import FlowMatching
        >>> [float(c) for c in FlowMatching().conversion(0.25, "velocity", "x0")]
        [1.0, -0.25]
        """
        xp, time = self._time(t)
        with quiet(xp):
            c_x, c_o = self._conversion(xp, time, src, dst)
        if is_host(xp) and not np.all(finite := np.isfinite(c_x) & np.isfinite(c_o)):
            bad = time[~finite].flat[0]
            raise ValueError(f"`src` {src!r} cannot become {dst!r} at t = {bad:g}: the row divides by zero")
        return c_x, c_o

    def convert(
        self, x: torch.Tensor, output: torch.Tensor, t: ArrayLike, src: str, dst: str
    ) -> torch.Tensor:
        """Apply `conversion` to data: the network's ``output`` of type src at (x, t), as type dst.

        Parameters
        ----------
        x, output : tensor [B, ...], floating
            The state and the network's output there.
        t : float, array or tensor, () or [B]
        src, dst : str

        Returns
        -------
        tensor like ``output``
            Computed in float32 (float64 if either input is), rounded once.
        """
        return combine(*self.conversion(t, src, dst), x, output, ("x", "output"))

    def posterior_coefficients(self, t: ArrayLike, s: ArrayLike, eta: float = 1.0) -> Any:
        r"""Gaussian posterior of the DDIM family, :math:`x_s = c_0 x_0 + c_t x_t + d z` for s < t.

        At eta = 1 this is q(x_s | x_t, x0) of the Markov path; in general the variance is eta^2 times that
        one's (Song et al., arXiv 2010.02502, eq. 12 and 16). Finite at sigma(s) = 0 and at alpha(t) = 0, and
        computed from lambda(s) - lambda(t) without a difference of squares, so neighbouring times are safe.

        Parameters
        ----------
        t, s : float or array (broadcastable)
            Noisier and cleaner time.
        eta : float in [0, 1]

        Returns
        -------
        float64 [..., 3]
            c_0, c_t and the standard deviation d.
        """
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"`eta` must be in [0, 1], got {eta!r}")
        xp, (time, end) = common_namespace(self._time(t), self._time(s, "s"))
        with quiet(xp):
            alpha_s, sigma_s = self._alpha_sigma(xp, end)
            _, sigma_t = self._alpha_sigma(xp, time)
            minus_h = self._lam(xp, time) - self._lam(xp, end)
            if is_host(xp) and not np.all(minus_h < 0.0):
                raise ValueError(f"`s` must have a larger lambda than `t`, got t = {t!r:.80}, s = {s!r:.80}")
            shrink, fresh = xp.exp(minus_h), -xp.expm1(2.0 * minus_h)  # e^-h and 1 - e^-2h
            # r^2 = 1 - eta^2 (1 - e^-2h) and c_0 = alpha_s (1 - e^-h r), rationalised so that nothing cancels
            r = xp.sqrt(shrink**2 + (1.0 - eta**2) * fresh)
            c_0 = alpha_s * fresh * (1.0 + (eta * shrink) ** 2) / (1.0 + shrink * r)
            return xp.stack((c_0, sigma_s * r / sigma_t, eta * sigma_s * xp.sqrt(fresh)), -1)

    def add_noise(
        self, x0: torch.Tensor, t: ArrayLike, noise: torch.Tensor | None = None, seed: Any = None
    ) -> torch.Tensor:
        """Forward noising: ``alpha(t) x0 + sigma(t) noise``.

        Parameters
        ----------
        x0 : tensor [B, ...], floating
        t : float, array or tensor, () or [B]
        noise : tensor like x0, optional
            Standard normals; drawn from ``seed`` when not given.
        seed : int, torch.Generator, PhiloxState or None
            Of the drawn noise; None draws one from torch's default generator, a PhiloxState is read and not
            advanced. Not allowed with ``noise``.

        Returns
        -------
        tensor like x0
        """
        if not isinstance(x0, torch.Tensor) or not x0.is_floating_point():
            raise TypeError(f"`x0` must be a floating-point tensor, got {getattr(x0, 'dtype', type(x0))}")
        if noise is None:
            from fastdiff_ops.ops.random import randn

            noise = randn(tuple(x0.shape), seed=seed, dtype=x0.dtype, device=x0.device)
        elif seed is not None:
            raise ValueError("`seed` has no meaning when `noise` is given")
        return combine(*self._alpha_sigma(*self._time(t)), x0, noise, ("x0", "noise"))

    # ---- description

    def to_dict(self) -> dict[str, Any]:
        """A description that `json` can write and `from_dict` reads back exactly."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        lists = {name: v.tolist() for name, v in values.items() if isinstance(v, np.ndarray)}
        return {"kind": self.kind, **values, **lists}

    @staticmethod
    def from_dict(description: dict[str, Any]) -> NoiseSchedule:
        """The schedule that `to_dict` described.

        Examples
        --------
        >>> from fastdiff_ops.schedules import FlowMatching, NoiseSchedule
        >>> NoiseSchedule.from_dict({"kind": "flow", "shift": 3.0}) == FlowMatching(shift=3.0)
        True
        """
        parameters = dict(description)
        kind = parameters.pop("kind", None)
        if kind not in _KINDS:
            raise ValueError(f"`kind` must be one of {sorted(_KINDS)}, got {kind!r}")
        names = {f.name for f in dataclasses.fields(_KINDS[kind])}  # type: ignore[arg-type]
        if unknown := sorted(set(parameters) - names):
            raise ValueError(f"`description` of kind {kind!r} knows {sorted(names)}, got also {unknown}")
        return _KINDS[kind](**parameters)

    # ---- internal

    def _lam(self, xp: Any, t: Any) -> Any:
        return self._log_alpha(xp, t) - xp.log(self._alpha_sigma(xp, t)[1])

    def _dlam_dt(self, xp: Any, t: Any) -> Any:
        (alpha, sigma), (alpha_dot, sigma_dot) = self._alpha_sigma(xp, t), self._alpha_sigma_dot(xp, t)
        return alpha_dot / alpha - sigma_dot / sigma

    def _dlogalpha_dlam(self, xp: Any, t: Any) -> Any:
        # both derivatives by t, multiplied by alpha sigma: stays finite at both ends of the path
        (alpha, sigma), (alpha_dot, sigma_dot) = self._alpha_sigma(xp, t), self._alpha_sigma_dot(xp, t)
        return alpha_dot * sigma / (alpha_dot * sigma - alpha * sigma_dot)

    def _prediction(self, xp: Any, t: Any, name: str, argument: str) -> tuple[Any, Any, Any]:
        """(k, p, q) with k y = p x0 + q eps for the prediction y; k keeps 1/sigma out of the score."""
        alpha, sigma = self._alpha_sigma(xp, t)
        one, zero = xp.ones_like(sigma), xp.zeros_like(sigma)
        if name == "eps":
            return one, zero, one
        if name == "x0":
            return one, one, zero
        if name == "v":
            return one, -sigma, alpha
        if name == "score":
            return sigma, zero, -one
        if name == "velocity":
            return one, *self._velocity(xp, t)
        if name == "edm":
            raise ValueError(f"`{argument}` 'edm' (preconditioned network) needs schedule EDM, not {self!r}")
        raise ValueError(f"`{argument}` must be one of {PREDICTION_TYPES}, got {name!r}")

    def _conversion(self, xp: Any, t: Any, src: str, dst: str) -> tuple[Any, Any]:
        alpha, sigma = self._alpha_sigma(xp, t)
        k, p, q = self._prediction(xp, t, src, "src")
        k_dst, p_dst, q_dst = self._prediction(xp, t, dst, "dst")
        if src == dst:
            return xp.zeros_like(sigma), xp.ones_like(sigma)
        if {src, dst} == {"eps", "score"}:  # proportional, so alpha = 0 is no obstacle
            return xp.zeros_like(sigma), -k / k_dst
        # solve x = alpha x0 + sigma eps, k y = p x0 + q eps for (x0, eps) and insert them into dst
        determinant = (alpha * q - sigma * p) * k_dst
        return (p_dst * q - q_dst * p) / determinant, k * (q_dst * alpha - p_dst * sigma) / determinant

    def _t_limit(self) -> float:
        # the inverse of lambda may exceed the end by rounding
        return self.t_max + 1e-9 * max(1.0, abs(self.t_max))

    def _time(self, t: Any, name: str = "t") -> tuple[Any, Any]:
        xp, value = as_float64(name, t, integer_tensors=self.index_time)
        if is_host(xp) and not np.all((value >= self.t_data) & (value <= self._t_limit())):
            domain = f"[{self.t_data:g}, {self.t_max:g}]"
            raise ValueError(f"`{name}` must be in {domain} for {self!r}, got {t!r:.80}")
        return xp, value

    def _apply(self, formula: Any, xp: Any, value: Any) -> Any:
        with quiet(xp):
            result = formula(xp, value)
        return result[()] if is_host(xp) else result

    def _evaluate(self, formula: Any, t: _Time) -> _Time:
        result: _Time = self._apply(formula, *self._time(t))
        return result


def _ratio(a: Any, b: Any) -> Any:
    return a / b
