"""What a diffusers scheduler's configuration means here: schedule, time steps, solver and its options."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdiff_ops.schedules import Discrete, FlowMatching, NoiseSchedule, beta_table, timesteps
from fastdiff_ops.schedules.ramps import beta, exponential, karras

Array = npt.NDArray[np.float64]
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v", "flow_prediction": "velocity"}
_RAMPS = {"karras": karras, "exponential": exponential, "beta": beta}
# diffusers spaces time steps differently from family to family
_EULER_FAMILY = ("euler", "heun", "lms", "dpm2")
_DDIM_FAMILY = ("ddim", "ipndm", "lcm")
_CLASSES: dict[str, str] = {
    "DDIMScheduler": "ddim",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "FlowMatchEulerDiscreteScheduler": "euler",
    "HeunDiscreteScheduler": "heun",
    "KDPM2AncestralDiscreteScheduler": "dpm2_ancestral",
    "KDPM2DiscreteScheduler": "dpm2",
    "LCMScheduler": "lcm",
    "LMSDiscreteScheduler": "lms",
}


# DDIM's step, on the time steps of DPM-Solver's family
_FIRST_ORDER: tuple[str, dict[str, Any]] = ("dpmpp_sde", {"eta": 0.0})
# what tells a configuration's class where it does not name it
_TELLING_KEYS = {
    "predict_x0": "UniPCMultistepScheduler",
    "euler_at_final": "DPMSolverMultistepScheduler",
    "original_inference_steps": "LCMScheduler",
    "skip_prk_steps": "PNDMScheduler",
    "set_alpha_to_one": "DDIMScheduler",
    "interpolation_type": "EulerDiscreteScheduler",
    "stochastic_sampling": "FlowMatchEulerDiscreteScheduler",
}


def class_of(config: Mapping[str, Any]) -> str:
    """Whose configuration it is, "" where it does not tell."""
    if "_class_name" in config:
        return str(config["_class_name"])
    if config.get("solver_type") == "logrho":
        return "DEISMultistepScheduler"
    return next((name for key, name in _TELLING_KEYS.items() if key in config), "")


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether the model was trained by flow matching."""
    flow = config.get("prediction_type") == "flow_prediction" or bool(config.get("use_flow_sigmas"))
    return flow or class_of(config).startswith("FlowMatch")


def translated(config: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of our configuration that another scheduler's stand for, but for what was chosen."""
    found: dict[str, Any] = {}
    name = class_of(config)
    if "solver" not in {*config, *chosen}:
        found["solver"], options = solver_of(name, config)
        if options and "order" not in chosen:
            found["solver_options"] = options
    if is_flow(config):
        found["prediction_type"] = "flow_prediction"
    if config.get("flow_shift"):
        found["shift"] = config["flow_shift"]
    to_first_entry = name == "DEISMultistepScheduler" or config.get("set_alpha_to_one") is False
    if to_first_entry and "final_sigmas_type" not in config:
        found["final_sigmas_type"] = "sigma_min"
    return found


def solver_of(name: str, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The solver that another scheduler's configuration stands for; `dpmpp_2m` for those without an equal."""
    order = config.get("solver_order") or 2
    if name == "UniPCMultistepScheduler":
        prediction = "x0" if config.get("predict_x0", True) else "eps"
        return "unipc", {
            "order": order,
            "variant": config.get("solver_type", "bh2"),
            "prediction": prediction,
            "disable_corrector": list(config.get("disable_corrector") or ()),
        }
    if name == "DEISMultistepScheduler":
        return _FIRST_ORDER if order == 1 else (f"deis_logrhoab{order - 1}", {"lower_order_final": "auto"})
    if name == "DPMSolverMultistepScheduler":
        return _dpm_solver(str(config.get("algorithm_type", "dpmsolver++")), order, config.get("solver_type"))
    return _CLASSES.get(name, "dpmpp_2m"), {}


def _dpm_solver(algorithm: str, order: int, kind: Any) -> tuple[str, dict[str, Any]]:
    if order == 1:
        return ("dpmpp_sde", {}) if algorithm.startswith("sde") else _FIRST_ORDER
    variant = "heun" if kind == "heun" else ("midpoint" if order == 2 else "reference")
    options = {"variant": variant, "lower_order_final": "auto"}
    stem = "dpm_solver" if algorithm.endswith("dpmsolver") else "dpmpp"
    return f"{stem}_{order}m" + ("_sde" if algorithm.startswith("sde") else ""), options


def schedule_of(config: Mapping[str, Any]) -> NoiseSchedule:
    """The noise schedule; times are positions in the table, or noise levels of a flow."""
    if is_flow(config):
        return FlowMatching()
    count = int(config["num_train_timesteps"])
    if config["trained_betas"] is not None:
        betas = np.asarray(config["trained_betas"], dtype=np.float64)
    elif config["beta_schedule"] == "squaredcos_cap_v2":
        betas = beta_table("squaredcos_cap_v2", count)
    else:
        betas = beta_table(config["beta_schedule"], count, config["beta_start"], config["beta_end"])
    zero = bool(config["rescale_betas_zero_snr"])
    return Discrete.from_betas(betas, zero_terminal_snr=zero, reading="diffusers")


def family_of(solver: str) -> str:
    """Whose spacing of time steps a solver's namesake in diffusers has."""
    if solver.startswith(_EULER_FAMILY):
        return "euler"
    return "ddim" if solver.startswith(_DDIM_FAMILY) else "dpm"


def nodes_of(
    config: Mapping[str, Any],
    schedule: NoiseSchedule,
    n: int | None,
    solver: str,
    sigmas: Sequence[float] | None,
    given: Sequence[float] | None,
    mu: float | None,
) -> Array:
    """The nodes of a run, in the schedule's time."""
    if isinstance(schedule, FlowMatching):
        return np.append(_flow_levels(config, n, sigmas, given, mu), 0.0)
    if mu is not None:
        raise ValueError("`mu` belongs to models of flow matching")
    assert isinstance(schedule, Discrete)
    if given is not None:
        return np.append(np.asarray(given, dtype=np.float64), _final(config, schedule))
    if sigmas is not None:
        levels = np.asarray(sigmas, dtype=np.float64)
        levels = levels[:-1] if levels[-1] == 0 else levels
        return np.append(schedule.inv_lam(-np.log(levels)), _final(config, schedule))
    family = family_of(solver)
    spacing = str(config["timestep_spacing"])
    options: dict[str, Any] = {}
    for name in _RAMPS:
        if config[f"use_{name}_sigmas"]:
            options = {"base": spacing} if family == "euler" else {}
            spacing = name
    offset = int(config["steps_offset"])
    if offset and "leading" in (spacing, options.get("base")):
        options["steps_offset"] = offset
    assert n is not None
    family = "dpm" if family == "ddim" and spacing in _RAMPS else family
    final = str(config["final_sigmas_type"])
    return timesteps(schedule, n, spacing, family=family, final_sigma=final, **options)


def _final(config: Mapping[str, Any], schedule: Discrete) -> float:
    return schedule.t_data if config["final_sigmas_type"] == "zero" else schedule.t0


def _flow_levels(
    config: Mapping[str, Any],
    n: int | None,
    sigmas: Sequence[float] | None,
    given: Sequence[float] | None,
    mu: float | None,
) -> Array:
    """Noise levels as FlowMatchEulerDiscreteScheduler has them."""
    shift, count = float(config["shift"]), int(config["num_train_timesteps"])
    dynamic = bool(config["use_dynamic_shifting"])
    if dynamic and mu is None:
        raise ValueError("`mu` must be given where the configuration has use_dynamic_shifting")
    if sigmas is not None:
        levels = np.asarray(sigmas, dtype=np.float64)
    elif given is not None:
        levels = np.asarray(given, dtype=np.float64) / count
    else:
        assert n is not None
        smallest = 1 / count if dynamic else _shifted(1 / count, shift)
        levels = np.linspace(1.0, smallest, n)
    if dynamic:
        assert mu is not None
        factor = math.exp(mu) if config["time_shift_type"] == "exponential" else mu
        levels = factor / (factor + (1 / levels - 1))
    else:
        levels = _shifted(levels, shift)
    if config["shift_terminal"]:
        rest = 1 - levels
        levels = 1 - rest * (1 - config["shift_terminal"]) / rest[-1]
    for name, ramp in _RAMPS.items():
        if config[f"use_{name}_sigmas"]:
            levels = ramp(np.linspace(0.0, 1.0, len(levels)), levels[0], levels[-1])
    return levels


def _shifted(levels: Any, shift: float) -> Any:
    return shift * levels / (1 + (shift - 1) * levels)
