"""Samplers with the signature of k-diffusion's functions; k-diffusion itself need not be installed.

from fastdiff_ops.integrations.k_diffusion import sample_dpmpp_2m, sampler

x = sample_dpmpp_2m(denoiser, x, sigmas, extra_args={"cond": cond})
x = sampler("unipc", order=3)(denoiser, x, sigmas)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fastdiff_ops.ops.random import PhiloxState
from fastdiff_ops.schedules import VE
from fastdiff_ops.solvers import StepInfo, make_table, sample

__all__ = [
    "sample_dpm_2",
    "sample_dpm_2_ancestral",
    "sample_dpmpp_2m",
    "sample_dpmpp_2m_sde",
    "sample_dpmpp_2s_ancestral",
    "sample_dpmpp_3m_sde",
    "sample_dpmpp_sde",
    "sample_euler",
    "sample_euler_ancestral",
    "sample_heun",
    "sample_lms",
    "sampler",
]


class Sampler(Protocol):
    """A function like those of k-diffusion."""

    def __call__(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor | Sequence[float],
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
        *,
        seed: int | torch.Generator | PhiloxState | Sequence[int] | None = None,
        **options: Any,
    ) -> Tensor: ...


def sampler(name: str, **defaults: Any) -> Sampler:
    """Return a solver as a function with k-diffusion's signature.

    Parameters
    ----------
    name : str
        One of `fastdiff_ops.solvers.solver_names()`.
    **defaults
        The solver's options; a call may give others.

    Returns
    -------
    callable
        ``(model, x, sigmas, extra_args=None, callback=None, disable=None, *, seed=None, **options)``. The
        model is a denoiser, ``model(x, sigma, **extra_args)`` with sigma [B]; `x` has the standard deviation
        `sigmas[0]`; `sigmas` [N + 1] decrease, usually to 0; `callback` gets a dict of the keys x, i,
        sigma, sigma_hat and denoised after each step; `disable` hides the progress bar. `seed` keys the
        noise, which takes the place of `noise_sampler`: the same for every dtype, device and batch order.

    Raises
    ------
    ValueError, TypeError
        When called: for an unknown solver or option, or noise levels that do not decrease.

    Examples
    --------
    >>> denoiser = lambda x, sigma: x / (1 + sigma[:, None] ** 2)  # of standard normal data
    >>> sigmas = [*torch.logspace(1, -2, 16), 0.0]
    >>> x = sampler("unipc", order=3)(denoiser, 10 * torch.ones(1, 2), sigmas, disable=True)
    >>> [round(v, 2) for v in x[0].tolist()]
    [1.0, 1.0]
    """

    def run(
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor | Sequence[float],
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
        *,
        seed: int | torch.Generator | PhiloxState | Sequence[int] | None = None,
        **options: Any,
    ) -> Tensor:
        levels = sigmas.detach().double().cpu().numpy() if isinstance(sigmas, Tensor) else sigmas
        levels = np.asarray(levels, dtype=np.float64)
        positive = levels[levels > 0]
        if levels.ndim != 1 or len(levels) < 2 or not np.isfinite(levels).all() or len(positive) == 0:
            raise ValueError(f"`sigmas` must be at least 2 finite noise levels, got {levels}")
        schedule = VE(sigma_min=float(positive.min()), sigma_max=float(levels.max()))
        table = make_table(name, schedule, levels, **{**defaults, **options})

        def report(info: StepInfo) -> None:
            if callback is not None:
                before = {"x": info._after.x, "i": info.index, "sigma": info.t, "sigma_hat": info.t}
                callback({**before, "denoised": info.denoised()})

        return sample(
            model,
            x,
            table,
            prediction_type="x0",
            model_kwargs=extra_args,
            seed=seed,
            callback=None if callback is None else report,
            progress=not disable,
        )

    return run


sample_euler = sampler("euler")
sample_euler_ancestral = sampler("euler_ancestral")
sample_heun = sampler("heun")
sample_dpm_2 = sampler("dpm2")
sample_dpm_2_ancestral = sampler("dpm2_ancestral")
sample_lms = sampler("lms")
sample_dpmpp_2s_ancestral = sampler("dpmpp_2s_ancestral")
sample_dpmpp_sde = sampler("dpmpp_2s_sde")
sample_dpmpp_2m = sampler("dpmpp_2m", lower_order_final=False)
sample_dpmpp_2m_sde = sampler("dpmpp_2m_sde", lower_order_final=False)
sample_dpmpp_3m_sde = sampler("dpmpp_3m_sde", lower_order_final=False, variant="heun")
