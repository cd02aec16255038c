"""`Discrete`: the continuous path through a table of a discrete-time model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ._arrays import FloatArray, as_float64, log_alpha_from_lam
from .base import NoiseSchedule
from .betas import beta_table, cumulative_alphas, rescale_zero_terminal_snr

_READINGS = ("dpm", "diffusers")


@dataclass(frozen=True, eq=False, repr=False)
class Discrete(NoiseSchedule, kind="discrete"):
    r"""Variance-preserving path through a table of alphas_cumprod, in one of two continuous readings.

    ========== ============== ===================================== ============= ======
    reading    node n is at   between nodes                         T, t0         t_data
    ========== ============== ===================================== ============= ======
    dpm        (n + 1) / N    ln(alpha) linear in t                 1, 1 / N      0
    diffusers  n              sigma / alpha linear in t             N - 1, 0      -1
    ========== ============== ===================================== ============= ======

    ``dpm`` is DPM-Solver's reading, ``diffusers`` that of diffusers' and k-diffusion's schedulers. The
    network's time is n in both. Clean data is one node before the first, so that a last step to sigma = 0 has
    a time; below the first node both readings interpolate to it (extrapolating ln(alpha) there would pass
    alpha = 1). Beyond the last node ``dpm`` extrapolates.

    A last entry of 0 (zero terminal SNR) is allowed in the reading ``diffusers``; in the last interval, where
    sigma / alpha is infinite at one end, alpha / sigma is linear instead.

    Parameters
    ----------
    alphas_cumprod : float [N]
        Strictly decreasing, in (0, 1); N >= 2. Keep it in float64: float32 products lose lambda near t0.
    reading : str
        ``dpm`` or ``diffusers``.

    Examples
    --------
    >>> from fastdiff_ops.schedules import Discrete
    >>> schedule = Discrete.from_table("scaled_linear", reading="diffusers")
    >>> schedule, round(float(schedule.nsr(999)), 4)
    (Discrete(<1000 entries>, reading='diffusers'), 14.6146)
    """

    alphas_cumprod: FloatArray
    reading: str = "dpm"

    def __post_init__(self) -> None:
        if self.reading not in _READINGS:
            raise ValueError(f"`reading` must be one of {_READINGS}, got {self.reading!r}")
        table = _checked_table(self.alphas_cumprod)
        if self.reading == "dpm" and table[-1] == 0.0:
            raise ValueError("`alphas_cumprod` may end in 0 only with reading 'diffusers'")
        object.__setattr__(self, "alphas_cumprod", table)
        # compute now what the formulas use, so that torch.compile traces numbers and tensors, not the array
        _ = self.num_train_timesteps, self._tables

    # ---- constructors

    @classmethod
    def from_betas(cls, betas: Any, *, zero_terminal_snr: bool = False, reading: str = "dpm") -> Discrete:
        """The schedule of a table of betas, optionally rescaled to zero terminal SNR (arXiv 2305.08891)."""
        table = cumulative_alphas(betas)
        return cls(rescale_zero_terminal_snr(table) if zero_terminal_snr else table, reading)

    @classmethod
    def from_table(
        cls,
        name: str,
        num_train_timesteps: int = 1000,
        beta_start: float | None = None,
        beta_end: float | None = None,
        *,
        zero_terminal_snr: bool = False,
        reading: str = "dpm",
    ) -> Discrete:
        """The schedule of a named beta table; see `beta_table`."""
        betas = beta_table(name, num_train_timesteps, beta_start, beta_end)
        return cls.from_betas(betas, zero_terminal_snr=zero_terminal_snr, reading=reading)

    def clip(self, lambda_min: float = -5.1) -> Discrete:
        """The schedule without the entries of lambda below ``lambda_min``.

        DPM-Solver does this (at -5.1) for cosine tables, whose last entries are too noisy for its steps.
        """
        keep = self.node_lambdas >= lambda_min
        if keep.sum() < 2:
            raise ValueError(f"`lambda_min` must leave at least 2 entries, got {lambda_min!r}")
        return type(self)(self.alphas_cumprod[keep], self.reading)

    # ---- times

    @property
    def T(self) -> float:
        return float(self.time_of_index(self.num_train_timesteps - 1))

    @property
    def t0(self) -> float:
        return float(self.time_of_index(0))

    @property
    def t_data(self) -> float:
        return 0.0 if self.reading == "dpm" else -1.0

    @property
    def t_max(self) -> float:
        return float("inf") if self.reading == "dpm" else self.T

    @property
    def index_time(self) -> bool:
        return self.reading == "diffusers"

    # ---- entries and their positions

    @cached_property
    def num_train_timesteps(self) -> int:
        """N, the length of the table."""
        return len(self.alphas_cumprod)

    @property
    def node_lambdas(self) -> FloatArray:
        """lambda of every entry (float64 [N])."""
        with np.errstate(divide="ignore"):
            return 0.5 * (np.log(self.alphas_cumprod) - np.log1p(-self.alphas_cumprod))

    def time_of_index(self, n: float | npt.NDArray[Any]) -> FloatArray:
        """The time of table position n (any shape; fractions allowed, -1 is clean data)."""
        position = np.asarray(n, np.float64)
        return position if self.reading == "diffusers" else (position + 1.0) / self.num_train_timesteps

    def sigma_to_index(self, nsr: float | FloatArray) -> FloatArray:
        """diffusers' table position of a noise level sigma / alpha: linear in its logarithm, clamped.

        Its schedulers give this (some of them rounded) to the network for nodes placed by noise level. It is
        not the inverse of `nsr`, which is linear in sigma / alpha itself: that is ``inv_lam(-ln(nsr))``.
        """
        levels = -self.node_lambdas
        with np.errstate(divide="ignore"):
            index: FloatArray = np.interp(np.log(nsr), levels, np.arange(len(levels), dtype=np.float64))
        return index

    # ---- formulas

    @cached_property
    def _tables(self) -> dict[Any, dict[str, Any]]:
        # one copy for each device that asked, None being numpy; the clean node stands in front
        tables = (_log_alpha_tables if self.reading == "dpm" else _ray_tables)(self.alphas_cumprod)
        return {None: tables, torch.device("cpu"): {k: torch.from_numpy(v) for k, v in tables.items()}}

    def _on(self, xp: Any, like: Any) -> dict[str, Any]:
        device = None if xp is np else like.device
        if device not in self._tables:
            host = self._tables[torch.device("cpu")]
            self._tables[device] = {k: v.to(device, non_blocking=True) for k, v in host.items()}
        return self._tables[device]

    def _interval(self, xp: Any, t: Any) -> tuple[Any, Any]:
        """Number of the interval that contains t, and the position inside it (in [0, 1] within the table)."""
        position = t + 1.0 if self.reading == "diffusers" else t * self.num_train_timesteps
        whole = xp.clip(_to_int(xp, xp.floor(position)), 0, self.num_train_timesteps - 1)
        return whole, position - whole

    def _log_alpha(self, xp: Any, t: Any) -> Any:
        if self.reading == "diffusers":
            return super()._log_alpha(xp, t)
        tables, (k, w) = self._on(xp, t), self._interval(xp, t)
        return tables["log_alpha"][k] + w * tables["d_log_alpha"][k]

    def _alpha_sigma(self, xp: Any, t: Any) -> tuple[Any, Any]:
        if self.reading == "dpm":
            log_alpha = self._log_alpha(xp, t)
            return xp.exp(log_alpha), xp.sqrt(-xp.expm1(2.0 * log_alpha))
        a, s, _ = self._ray(xp, t)
        norm = xp.hypot(a, s)
        return a / norm, s / norm

    def _alpha_sigma_dot(self, xp: Any, t: Any) -> tuple[Any, Any]:
        alpha, sigma = self._alpha_sigma(xp, t)
        tables = self._on(xp, t)
        if self.reading == "dpm":
            slope = tables["d_log_alpha"][self._interval(xp, t)[0]] * self.num_train_timesteps
            return alpha * slope, -(alpha**2) * slope / sigma
        a, s, k = self._ray(xp, t)
        turn = (a * tables["d_s"][k] - s * tables["d_a"][k]) / (a**2 + s**2)  # d angle / dt
        return -sigma * turn, alpha * turn

    def _ray(self, xp: Any, t: Any) -> tuple[Any, Any, Any]:
        """A vector (a, s), linear in t inside interval k, in the direction of (alpha, sigma); and k."""
        tables, (k, w) = self._on(xp, t), self._interval(xp, t)
        return tables["a"][k] + w * tables["d_a"][k], tables["s"][k] + w * tables["d_s"][k], k

    def _inv_lam(self, xp: Any, lam: Any) -> Any:
        tables, log_alpha = self._on(xp, lam), log_alpha_from_lam(xp, lam)
        key = -log_alpha if self.reading == "dpm" else -lam
        k = xp.searchsorted(tables["search"], key, side="right") - 1
        k = xp.clip(k, 0, self.num_train_timesteps - 1)
        if self.reading == "dpm":
            w = (log_alpha - tables["log_alpha"][k]) / tables["d_log_alpha"][k]
            return (k + w) / self.num_train_timesteps
        # the w at which (a, s) + w (d_a, d_s) is parallel to (alpha, sigma)
        alpha, sigma = xp.exp(log_alpha), xp.exp(log_alpha_from_lam(xp, -lam))
        distance = sigma * tables["a"][k] - alpha * tables["s"][k]
        return k + distance / (alpha * tables["d_s"][k] - sigma * tables["d_a"][k]) - 1.0

    def _model_time(self, xp: Any, t: Any) -> Any:
        return t if self.reading == "diffusers" else t * self.num_train_timesteps - 1.0

    # ---- a value: equal tables are equal schedules

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Discrete):
            return NotImplemented
        return self.reading == other.reading and np.array_equal(self.alphas_cumprod, other.alphas_cumprod)

    def __hash__(self) -> int:
        return hash((self.reading, self.alphas_cumprod.tobytes()))

    def __repr__(self) -> str:
        return f"Discrete(<{self.num_train_timesteps} entries>, reading={self.reading!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.alphas_cumprod, self.reading)  # without the copies on devices


def _checked_table(alphas_cumprod: Any) -> FloatArray:
    if isinstance(alphas_cumprod, torch.Tensor):
        alphas_cumprod = alphas_cumprod.detach().cpu().numpy()
    table: FloatArray = as_float64("alphas_cumprod", alphas_cumprod)[1]
    if table.ndim != 1 or len(table) < 2:
        raise ValueError(f"`alphas_cumprod` must be 1-D with at least 2 entries, got shape {table.shape}")
    if not (np.all(table >= 0.0) and np.all(table < 1.0) and np.all(np.diff(table) < 0.0)):
        raise ValueError("`alphas_cumprod` must decrease strictly in (0, 1) (the last entry may be 0)")
    table.flags.writeable = False
    return table


def _log_alpha_tables(alphas_cumprod: FloatArray) -> dict[str, FloatArray]:
    log_alpha = np.concatenate([[0.0], 0.5 * np.log(alphas_cumprod)])
    return {"log_alpha": log_alpha, "d_log_alpha": np.diff(log_alpha), "search": -log_alpha}


def _ray_tables(alphas_cumprod: FloatArray) -> dict[str, FloatArray]:
    # sigma / alpha is linear along a vector (1, sigma / alpha), alpha / sigma along (alpha / sigma, 1)
    with np.errstate(divide="ignore"):
        ratio = np.concatenate([[0.0], np.sqrt((1.0 - alphas_cumprod) / alphas_cumprod)])
        a, s = np.ones(len(ratio) - 1), ratio[:-1].copy()
        d_a, d_s = np.zeros_like(a), np.diff(ratio)
        if np.isinf(ratio[-1]):
            a[-1], s[-1], d_a[-1], d_s[-1] = 1.0 / s[-1], 1.0, -1.0 / s[-1], 0.0
        return {"a": a, "s": s, "d_a": d_a, "d_s": d_s, "search": np.log(ratio)}


def _to_int(xp: Any, value: Any) -> Any:
    return value.astype(np.int64) if xp is np else value.to(torch.int64)
