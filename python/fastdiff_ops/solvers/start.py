"""How a run begins: from arguments to a bound table and initial latents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from fastdiff_ops.schedules import VE, Discrete, FlowMatching, NoiseSchedule, timesteps

from .noise import LATENTS, normals
from .registry import make_table
from .table import CLIP_MODES, Array, SolverTable

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def resolve_table(
    table: SolverTable | str,
    prediction_type: str | None,
    schedule: NoiseSchedule | None,
    num_steps: int | None,
    spacing: str | None,
    spacing_options: Mapping[str, Any] | None,
    solver_options: Mapping[str, Any] | None,
    strength: float | None,
) -> SolverTable:
    """The bound table; a solver's name is looked up and laid out on `num_steps` steps."""
    by_name = {
        "schedule": schedule,
        "num_steps": num_steps,
        "spacing": spacing,
        "spacing_options": spacing_options,
        "solver_options": solver_options,
        "strength": strength,
    }
    if isinstance(table, SolverTable):
        if given := [key for key, value in by_name.items() if value is not None]:
            raise ValueError(
                f"`{given[0]}` goes with a solver's name, but `table` is a finished table (for "
                "image-to-image make one that starts later)"
            )
    elif isinstance(table, str):
        if schedule is None or num_steps is None:
            raise ValueError(f"`table` is the name {table!r}, which needs `schedule` and `num_steps`")
        if not isinstance(schedule, NoiseSchedule):
            raise TypeError(f"`schedule` must be a NoiseSchedule, got {type(schedule).__name__}")
        ts = default_timesteps(schedule, num_steps, spacing, spacing_options)
        if strength is not None:
            ts = ts[_skipped_steps(num_steps, strength) :]
        table = make_table(table, schedule, ts, **(solver_options or {}))
    else:
        raise TypeError(f"`table` must be a SolverTable or a solver's name, got {type(table).__name__}")
    if prediction_type is not None:
        return table.bind(prediction_type)
    if table.prediction_type is None:
        raise ValueError("`prediction_type` must be given for a table that is not bound")
    return table


def default_timesteps(
    schedule: NoiseSchedule, num_steps: int, spacing: str | None, options: Mapping[str, Any] | None = None
) -> Array:
    """Nodes of the spacing with its options, or of the one that suits the schedule."""
    if options is not None:
        if spacing is None:
            raise ValueError("`spacing_options` needs `spacing`, the name that they belong to")
        if not isinstance(options, Mapping):
            raise TypeError(f"`spacing_options` must be a mapping, got {type(options).__name__}")
        if taken := sorted({"schedule", "n", "spacing"} & options.keys()):
            raise ValueError(f"`spacing_options` holds {', '.join(taken)}, which `sample` passes itself")
    if spacing is not None:
        return timesteps(schedule, num_steps, spacing, **(options or {}))
    if isinstance(schedule, FlowMatching):
        return timesteps(schedule, num_steps, "time_uniform")
    if isinstance(schedule, VE):
        return timesteps(schedule, num_steps, "karras", final_sigma="zero")
    if isinstance(schedule, Discrete):
        return timesteps(schedule, num_steps, "trailing", family="dpm")
    return timesteps(schedule, num_steps, "logSNR")


def _skipped_steps(num_steps: int, strength: float) -> int:
    if not 0.0 < strength <= 1.0 or int(num_steps * strength) < 1:
        raise ValueError(
            f"`strength` must lie in (0, 1] and leave at least one of {num_steps} steps, got {strength}"
        )
    return num_steps - int(num_steps * strength)


def check_latents(x: Any, name: str) -> None:
    """Raise for what cannot be a state."""
    if not isinstance(x, Tensor):
        raise TypeError(f"`{name}` must be a Tensor, got {type(x).__name__}")
    if x.dtype not in DTYPES:
        raise TypeError(f"`{name}` must be float16, bfloat16, float32 or float64, got {x.dtype}")
    if x.dim() < 1:
        raise ValueError(f"`{name}` must have a batch axis [B, *S], got a 0-d tensor")


def latents_like(
    x: Tensor | Sequence[int] | None,
    init_image: Tensor | None,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> Tensor:
    """The tensor whose shape, dtype and device the run takes; its values count only where `x` is a Tensor."""
    if (x is None) == (init_image is None):
        raise ValueError("give either `x` (latents or a shape) or `init_image`")
    if x is None or isinstance(x, Tensor):
        given = init_image if x is None else x
        check_latents(given, "init_image" if x is None else "x")
        assert given is not None
        if dtype is not None or device is not None:
            raise ValueError("`dtype` and `device` are for a shape `x`; a tensor has its own")
        return given
    sizes = isinstance(x, Sequence) and not isinstance(x, str | bytes)
    if not sizes or not all(isinstance(n, SupportsIndex) and not isinstance(n, bool) for n in x):
        raise TypeError(f"`x` must be a Tensor, a shape [B, *S] of ints or None, got {x!r:.60}")
    if any(n < 0 for n in x):
        raise ValueError(f"`x` must be a shape [B, *S] with sizes >= 0, got {tuple(x)}")
    like = torch.empty(torch.Size(x), dtype=torch.float32 if dtype is None else dtype, device=device)
    check_latents(like, "x")
    return like


def clip_settings(
    clip: str | None, clip_value: float | None, clip_quantile: float | None, clip_cap: float | None
) -> dict[str, Any]:
    """The clipping arguments with their defaults filled in; what would have no effect is refused."""
    if clip not in CLIP_MODES:
        raise ValueError(f"`clip` must be None, 'static' or 'dynamic', got {clip!r}")
    given = {"clip_value": clip_value, "clip_quantile": clip_quantile, "clip_cap": clip_cap}
    for name, value in given.items():
        if value is not None and clip is None:
            raise ValueError(f"`{name}` has no effect without `clip`, got {value}")
        if value is not None and clip == "static" and name != "clip_value":
            raise ValueError(f"`{name}` goes with clip='dynamic', got {value} with clip='static'")
    floor = 1.0 if clip_value is None else float(clip_value)
    quantile = 0.995 if clip_quantile is None else float(clip_quantile)
    cap = math.inf if clip_cap is None else float(clip_cap)
    if not floor > 0.0:
        raise ValueError(f"`clip_value` must be positive, got {floor:g}")
    if not 0.0 <= quantile <= 1.0:
        raise ValueError(f"`clip_quantile` must lie in [0, 1], got {quantile:g}")
    if clip == "dynamic" and not cap >= floor:
        raise ValueError(f"`clip_cap` must be at least `clip_value` = {floor:g}, got {cap:g}")
    return {"clip": clip, "clip_value": floor, "clip_quantile": quantile, "clip_cap": cap}


def initial_state(table: SolverTable, like: Tensor, init_image: Tensor | None, rng: Tensor | None) -> Tensor:
    """sigma z at the table's first time, on top of alpha times the image if there is one."""
    assert table.packed is not None and rng is not None
    x = table.packed.sigma * normals(rng, LATENTS, like)
    return x if init_image is None else x + table.packed.alpha * init_image
