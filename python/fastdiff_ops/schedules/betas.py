"""Beta tables of discrete-time models, in float64, by diffusers' names."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._arrays import FloatArray, as_float64
from ._checks import check_count

#: Name -> the (beta_start, beta_end) of the models that made the table known; None: it has no such ends.
_DEFAULT_ENDS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012), "squaredcos_cap_v2": None}


def beta_table(
    name: str, num_train_timesteps: int = 1000, beta_start: float | None = None, beta_end: float | None = None
) -> FloatArray:
    """The betas of a discrete-time model.

    Parameters
    ----------
    name : str
        ``linear`` (DDPM), ``scaled_linear`` (linear in sqrt(beta); Stable Diffusion) or ``squaredcos_cap_v2``
        (cosine, capped at 0.999; Nichol and Dhariwal, arXiv 2102.09672).
    num_train_timesteps : int
        Length of the table.
    beta_start, beta_end : float, optional
        First and last beta; by default 1e-4 and 0.02 (linear) or 0.00085 and 0.012 (scaled_linear).

    Returns
    -------
    float64 [num_train_timesteps]

    Examples
    --------
    >>> from fastdiff_ops.schedules import beta_table
    >>> beta_table("linear", 3).tolist()
    [0.0001, 0.01005, 0.02]
    """
    if name not in _DEFAULT_ENDS:
        raise ValueError(f"`name` must be one of {sorted(_DEFAULT_ENDS)}, got {name!r}")
    check_count("num_train_timesteps", num_train_timesteps, 2)
    ends = _DEFAULT_ENDS[name]
    if ends is None:
        if beta_start is not None or beta_end is not None:
            raise ValueError("`beta_start` and `beta_end` have no meaning for 'squaredcos_cap_v2'")
        nodes = np.arange(num_train_timesteps + 1) / num_train_timesteps
        alpha_bar = np.cos((nodes + 0.008) / 1.008 * np.pi / 2.0) ** 2
        betas: FloatArray = np.minimum(0.999, 1.0 - alpha_bar[1:] / alpha_bar[:-1])
        return betas
    first = ends[0] if beta_start is None else beta_start
    last = ends[1] if beta_end is None else beta_end
    if not 0.0 < first <= last < 1.0:
        raise ValueError(f"`beta_start` <= `beta_end` must be in (0, 1), got {first!r} and {last!r}")
    if name == "linear":
        return np.linspace(first, last, num_train_timesteps)
    return np.linspace(np.sqrt(first), np.sqrt(last), num_train_timesteps) ** 2


def cumulative_alphas(betas: Any) -> FloatArray:
    """alphas_cumprod of a table of betas: the running product of 1 - beta, in float64."""
    _, values = as_float64("betas", np.asarray(betas))
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"`betas` must be 1-D with at least 2 entries, got shape {values.shape}")
    if not np.all((values > 0.0) & (values < 1.0)):
        raise ValueError(f"`betas` must be in (0, 1), got {values[~((values > 0.0) & (values < 1.0))][0]!r}")
    product: FloatArray = np.cumprod(1.0 - values)
    return product


def rescale_zero_terminal_snr(alphas_cumprod: FloatArray) -> FloatArray:
    """Shift and scale sqrt(alphas_cumprod) so that its last entry is 0 and its first stays.

    Lin et al., arXiv 2305.08891, algorithm 1. The model must then predict v or x0: noise cannot be converted
    to data where alpha = 0.
    """
    root: FloatArray = np.sqrt(np.asarray(alphas_cumprod, np.float64))
    rescaled: FloatArray = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return rescaled
