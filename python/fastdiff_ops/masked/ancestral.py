"""Ancestral sampling of masked diffusion on a time grid: the baseline, exact in its draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import torch
from torch import Tensor

from fastdiff_ops.schedules._checks import check_count

from ._follow import Ragged, follow
from ._loop import CommonOptions, Model, Run, SampleStats, start
from .agenda import Phase, make_agenda, tell
from .high_order import check_second_order, theta_weight
from .schedule import LogLinear, MaskSchedule, check_schedule

if TYPE_CHECKING:
    from typing_extensions import Unpack

Final = Literal["sample", "argmax", "keep"]


@overload
def ancestral_sample(
    model: Model,
    tokens: Tensor,
    *,
    mask_id: int,
    num_steps: int,
    schedule: MaskSchedule | None = ...,
    t_end: float = ...,
    final: Final = ...,
    cache: bool = ...,
    order: int = ...,
    theta: float = ...,
    ragged: Ragged = ...,
    return_stats: Literal[False] = ...,
    **options: Unpack[CommonOptions],
) -> Tensor: ...
@overload
def ancestral_sample(
    model: Model,
    tokens: Tensor,
    *,
    mask_id: int,
    num_steps: int,
    schedule: MaskSchedule | None = ...,
    t_end: float = ...,
    final: Final = ...,
    cache: bool = ...,
    order: int = ...,
    theta: float = ...,
    ragged: Ragged = ...,
    return_stats: Literal[True],
    **options: Unpack[CommonOptions],
) -> tuple[Tensor, SampleStats]: ...
@torch.no_grad()
def ancestral_sample(
    model: Model,
    tokens: Tensor,
    *,
    mask_id: int,
    num_steps: int,
    schedule: MaskSchedule | None = None,
    t_end: float = 1e-5,
    final: Final = "sample",
    cache: bool = True,
    order: int = 1,
    theta: float = 0.5,
    ragged: Ragged = "left",
    return_stats: bool = False,
    **options: Unpack[CommonOptions],
) -> Tensor | tuple[Tensor, SampleStats]:
    """Fill in the masked tokens along a time grid: in each step every mask is revealed independently.

    Parameters
    ----------
    model, tokens, mask_id
        As in `first_hitting_sample`.
    num_steps : int
        Steps of the uniform grid from t = 1 to `t_end`.
    schedule : MaskSchedule, optional
        Default: log-linear, m(t) = t.
    t_end : float in [0, 1)
        With 0 nothing is left for `final`, if m(0) = 0.
    final : "sample", "argmax" or "keep"
        What becomes of positions that are masked at the end: they are drawn; set to their most probable
        token, as MDLM does, which is a bias; or left masked.
    cache : bool
        Call the network only in steps that reveal something: results are the same, since nothing uses what
        other calls return. False calls it in every step.
    order : 1 or 2
        2 divides each step at `theta` and extrapolates the probabilities in its second part: the
        theta-trapezoidal rule, of second order where probabilities do not leave [0, 1], at two calls a step.
    theta : float in (0, 1)
    ragged, return_stats, **options
        As in `first_hitting_sample`.

    Returns
    -------
    int64 Tensor [B, L]
    SampleStats
        Only with `return_stats`. Steps without a network call are not counted.

    Raises
    ------
    As `first_hitting_sample`.

    Notes
    -----
    A step from t to s reveals a mask with probability 1 - m(s) / m(t), whatever its token will be; the token
    is a draw from the network's probabilities. These are two independent draws here, so only the rows that
    are revealed are drawn. Code that draws once, from tokens and mask together (MDLM, arXiv 2406.07524), has
    the same law in exact arithmetic, and a lower temperature in float32 (arXiv 2409.02908, section 5).

    The step that reveals a position is the one its hitting time lies in: on a grid so fine that no step
    reveals two tokens, the result is that of `first_hitting_sample`, bit for bit.

    Examples
    --------
    >>> import torch
    >>> from fastdiff_ops.masked import ancestral_sample
    >>> def model(tokens):
    ...     return torch.zeros(*tokens.shape, 3)
    >>> masks = torch.full((1, 6), 3)
    >>> tokens, stats = ancestral_sample(model, masks, mask_id=3, num_steps=100, seed=0, return_stats=True)
    >>> int(stats.reveals.sum()), stats.nfe <= 6
    (6, True)
    """
    check_count("num_steps", num_steps, 1)
    check_second_order(order, "theta_trapezoidal", theta, options.get("temperature", 1.0))
    if isinstance(t_end, bool) or not isinstance(t_end, (int, float)):
        raise TypeError(f"`t_end` must be a number, got {t_end!r:.80}")
    if not 0.0 <= t_end < 1.0:
        raise ValueError(f"`t_end` must be in [0, 1), got {t_end!r}")
    if final not in ("sample", "argmax", "keep"):
        raise ValueError(f"`final` must be 'sample', 'argmax' or 'keep', got {final!r}")
    if ragged not in ("left", "pad"):
        raise ValueError(f"`ragged` must be 'left' or 'pad', got {ragged!r}")
    check_schedule(schedule)
    schedule = LogLinear() if schedule is None else schedule
    run = start(model, tokens, mask_id, **options)
    times = np.linspace(1.0, t_end, num_steps + 1)
    if order == 2:
        middle = times[:-1] - theta * (times[:-1] - times[1:])
        times = np.append(np.column_stack([times[:-1], middle]).reshape(-1), t_end)
    grid = schedule.mask_prob(times)
    if run.model.time == "sigma" and grid[0] == 1.0:
        raise ValueError(
            "`schedule` must stay below mask probability 1: the model takes sigma, infinite there"
        )
    sizes, left = _sizes(run, grid)
    if final == "keep":
        run.required = run.required & ~left
    elif (rest := np.array(run.counts) - sizes.sum(axis=0)).any():
        sizes = np.concatenate([sizes, rest[None]])
    weights = _weights(run, sizes, theta) if order == 2 else None
    order_, u, _ = torch.ops.fastdiff_ops.first_hitting_times.default(run.todo, run.rng, None)
    start_at = np.zeros(tokens.shape[0], dtype=np.int64)
    phase = Phase(order_, u, start_at, sizes, weights=weights, grid=grid[: len(sizes)])
    phase.greedy_last = final == "argmax" and len(sizes) == len(grid)
    phase.block = run.todo
    agenda = make_agenda([phase], keep_empty=not cache)
    tell(agenda, schedule, run.model.time)
    result, stats = follow(run, agenda, ragged, options.get("progress", False), 1)
    return (result, stats) if return_stats else result


def _sizes(run: Run, grid: np.ndarray) -> tuple[np.ndarray, Tensor]:
    """How many positions each step reveals, [S, B], and which are left at the end, bool [B, L]."""
    levels = torch.from_numpy(grid).to(run.tokens.device)
    steps = torch.ops.fastdiff_ops.reveal_steps.default(run.todo, levels, run.rng, None).long()
    counts = torch.zeros(run.batch, len(grid) + 1, dtype=torch.int64, device=steps.device)
    counts.scatter_add_(1, steps + 1, torch.ones_like(steps))
    return counts[:, 1:-1].T.cpu().numpy(), steps == len(grid) - 1


def _weights(run: Run, sizes: np.ndarray, theta: float) -> np.ndarray:
    """Extrapolation in the second part of each step; what is left at the end is drawn plainly."""
    weights = np.zeros(sizes.shape)
    seconds = np.arange(1, 2 * (len(sizes) // 2), 2)
    weights[seconds] = theta_weight(theta) - 1.0
    if run.model.time == "none":  # nothing revealed in the first part: there is nothing to extrapolate
        weights[seconds] *= sizes[seconds - 1].max(axis=1, keepdims=True) > 0
    return weights
