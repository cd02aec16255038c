"""`timesteps`: where the nodes of a solver lie, for every schedule, by the names the field uses."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from ._arrays import FloatArray
from ._checks import check_count, check_positive
from .base import NoiseSchedule
from .continuous import FlowMatching
from .diffusers_spacings import spacings_on
from .ramps import beta, exponential, karras, polyexponential

# A native spacing maps a ramp u from 0 to 1 to times from start to end; keyword arguments are its options.


def _time_uniform(schedule: NoiseSchedule, u: FloatArray, start: float, end: float) -> FloatArray:
    return start + u * (end - start)


def _time_quadratic(
    schedule: NoiseSchedule, u: FloatArray, start: float, end: float, *, power: float = 2.0
) -> FloatArray:
    check_positive(power=power)
    if end < 0.0:
        raise ValueError(f"`t_end` must not be negative for spacing 'time_quadratic', got {end:g}")
    first, last = start ** (1.0 / power), end ** (1.0 / power)
    nodes: FloatArray = (first + u * (last - first)) ** power
    return nodes


def _flow(
    schedule: NoiseSchedule, u: FloatArray, start: float, end: float, *, shift: float = 1.0
) -> FloatArray:
    check_positive(shift=shift)
    if not isinstance(schedule, FlowMatching):
        raise ValueError(f"`spacing` 'flow' needs a FlowMatching schedule, got {schedule!r}")
    first, last = (t / (shift - (shift - 1.0) * t) for t in (start, end))
    unshifted = first + u * (last - first)
    return shift * unshifted / (1.0 + (shift - 1.0) * unshifted)


def _by_noise_level(ramp: Any) -> Any:
    """The spacing that places sigma / alpha by a ramp."""

    def spacing(
        schedule: NoiseSchedule, u: FloatArray, start: float, end: float, **options: float
    ) -> FloatArray:
        largest, smallest = schedule.nsr(start), schedule.nsr(end)
        if not np.isfinite(largest) or (smallest == 0.0 and ramp in (exponential, polyexponential)):
            raise ValueError(
                "`t_start` and `t_end` must have a finite lambda for this spacing, got lambda "
                f"{schedule.lam(start):g} at t_start = {start:g} and {schedule.lam(end):g} at t_end = {end:g}"
            )
        with np.errstate(divide="ignore"):
            return schedule.inv_lam(-np.log(ramp(u, largest, smallest, **options)))

    spacing.__signature__ = inspect.signature(ramp)  # type: ignore[attr-defined]
    return spacing


_NATIVE = {
    "time_uniform": _time_uniform,
    "time_quadratic": _time_quadratic,
    "flow": _flow,
    "logSNR": _by_noise_level(exponential),
    "exponential": _by_noise_level(exponential),
    "karras": _by_noise_level(karras),
    "polyexponential": _by_noise_level(polyexponential),
    "beta": _by_noise_level(beta),
}


def timesteps(
    schedule: NoiseSchedule,
    n: int,
    spacing: str = "time_uniform",
    family: str = "native",
    *,
    final_sigma: str | None = None,
    t_start: float | None = None,
    t_end: float | None = None,
    **options: Any,
) -> FloatArray:
    r"""The n + 1 nodes of an n-step solver, in the schedule's time.

    The same name means different nodes in different libraries, so ``family`` says whose is meant.

    ``family="native"`` (u = i / n, i = 0..n; nodes run from ``t_start`` to ``t_end``, both exact):

    ================== ======================================================================================
    time_uniform       uniform in t
    time_quadratic     uniform in t^(1/power), power = 2
    logSNR             uniform in lambda; ``exponential`` is the same under k-diffusion's name
    karras             uniform in (sigma / alpha)^(1/rho), rho = 7
    polyexponential    ln(sigma / alpha) follows (1 - u)^rho, rho = 1 (k-diffusion)
    beta               quantiles of a beta distribution in sigma / alpha, alpha = beta = 0.6 (needs scipy)
    flow               s t / (1 + (s - 1) t) of uniform t, s = ``shift``; on `FlowMatching` only
    ================== ======================================================================================

    ``family="ddim"|"dpm"|"euler"`` are the nodes of diffusers' schedulers on a `Discrete` table: ddim (DDIM,
    PNDM), dpm (DPMSolver, UniPC, DEIS, SASolver) and euler (Euler, Heun, LMS).

    ================== ======================================================================================
    linspace           evenly over the table; rounded, but for euler (dpm: n + 1 nodes less the last)
    leading            multiples of N // n (dpm: N // (n+1)), plus ``steps_offset`` = 0
    trailing           every N / n counted back from N - 1
    karras             n noise levels, as native; between the ends of the table for dpm, between the ends of
    exponential        the spacing ``base`` = "linspace" (with its ``steps_offset``) for euler
    beta               likewise
    ================== ======================================================================================

    For dpm, ``lambda_min_clipped`` leaves out the noisiest entries in linspace and leading.
    On `FlowMatching`, euler's ``linspace``, karras, exponential and beta are those of
    FlowMatchEulerDiscreteScheduler (which shifts the smallest noise level twice), and dpm's ``linspace`` is
    that of DPMSolverMultistep with ``use_flow_sigmas``; all take ``num_train_timesteps`` = 1000.

    Parameters
    ----------
    schedule : NoiseSchedule
    n : int
        Number of steps.
    spacing, family : str
        As above.
    final_sigma : str, optional
        Where the last step ends. ``"sigma_min"`` (default of native): at ``t_end``, or the first entry of the
        table. ``"zero"`` (default of the diffusers families): at clean data, `t_data`; the other n nodes
        are the spacing's with n - 1 steps.
    t_start, t_end : float, optional
        Of the native family; by default the schedule's T and t0.
    **options
        Of the spacing, as named above.

    Returns
    -------
    float64 [n + 1]
        Strictly decreasing.

    Raises
    ------
    ValueError
        For unknown names or options, nodes that repeat (n too large for the table), or an infinite lambda
        where the spacing needs a finite one.

    Examples
    --------
    >>> from fastdiff_ops.schedules import Discrete, EDM, timesteps
    >>> timesteps(EDM(), 4, "karras", final_sigma="zero").round(4).tolist()
    [80.0, 9.7232, 0.47, 0.002, 0.0]
    >>> table = Discrete.from_table("linear", reading="diffusers")
    >>> timesteps(table, 5, "leading", family="dpm").tolist()
    [830.0, 664.0, 498.0, 332.0, 166.0, -1.0]
    """
    check_count("n", n, 1)
    if final_sigma not in (None, "zero", "sigma_min"):
        raise ValueError(f"`final_sigma` must be 'zero' or 'sigma_min', got {final_sigma!r}")
    if family == "native":
        function = _choose("spacing", spacing, _NATIVE, options)
        start, end = _bounds(schedule, t_start, t_end)
        append_zero = final_sigma == "zero" and end != schedule.t_data
        # nodes of round-off are replaced by the exact ends
        nodes = function(schedule, np.linspace(0.0, 1.0, n if append_zero else n + 1), start, end, **options)
        nodes[-1] = end
        nodes[0] = start
    else:
        families = {"native": _NATIVE, **spacings_on(schedule)}
        function = _choose("spacing", spacing, _choose("family", family, families), options)
        if t_start is not None or t_end is not None:
            raise ValueError("`t_start` and `t_end` belong to the native family")
        nodes = function(schedule, int(n), **options)
        append_zero = final_sigma != "sigma_min"
        if not append_zero:
            nodes = np.append(nodes, schedule.t0)
    if append_zero:
        nodes = np.append(nodes, schedule.t_data)
    if not (np.all(np.diff(nodes) < 0.0) and nodes[-1] >= schedule.t_data and nodes[0] <= schedule.t_max):
        raise ValueError(f"`spacing` {spacing!r} with n = {n} leaves the schedule or repeats nodes: {nodes}")
    result: FloatArray = nodes
    return result


def _choose(
    argument: str, name: str, functions: dict[str, Any], options: dict[str, Any] | None = None
) -> Any:
    if name not in functions:
        raise ValueError(f"`{argument}` must be one of {sorted(functions)}, got {name!r}")
    if options is not None:
        parameters = inspect.signature(functions[name]).parameters.values()
        known = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        if unknown := sorted(set(options) - known):
            raise ValueError(f"`{argument}` {name!r} takes the options {sorted(known)}, got also {unknown}")
    return functions[name]


def _bounds(schedule: NoiseSchedule, t_start: float | None, t_end: float | None) -> tuple[float, float]:
    start = schedule.T if t_start is None else float(t_start)
    end = schedule.t0 if t_end is None else float(t_end)
    if not schedule.t_data <= end < start <= schedule.t_max:
        domain = f"{schedule.t_data:g} <= t_end < t_start <= {schedule.t_max:g}"
        raise ValueError(f"`t_start`, `t_end` must satisfy {domain}, got {start:g}, {end:g}")
    return start, end
