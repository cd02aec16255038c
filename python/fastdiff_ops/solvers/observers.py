"""Whoever watches or touches a run between evaluations: callbacks, progress, trajectories, checks,
inpainting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .loop import After, Run
from .noise import INPAINTING, normals
from .state import TrajectoryState


@dataclass(frozen=True)
class StepInfo:
    """A solver step that has just been made, as callbacks see it.

    Attributes
    ----------
    index, n_steps : int
        Number of the step, from 0, and of all steps.
    t, t_next : float
        Times of the step's last evaluation and of `x`, in the schedule's unit.
    x : Tensor [B, *S]
        The new state. It is the run's own buffer: clone it to keep it, and never write to it. What the
        network sees next may already have been made of it.
    """

    index: int
    n_steps: int
    t: float
    t_next: float
    x: Tensor
    _run: Run = field(repr=False)
    _after: After = field(repr=False)
    _start: TrajectoryState = field(repr=False)

    def denoised(self) -> Tensor:
        """Prediction of x0 at the step's last evaluation, [B, *S], with guidance and without clipping."""
        table, outs = self._run.table, self._after.outs
        c_x, c_o = table.schedule.conversion(float(table.t[self._after.e]), str(table.prediction_type), "x0")
        if self._run.weights is None:
            out = outs[0]
        else:
            g = self._run.weights[0, 0].to(self.x.dtype)
            shape = (-1, *[1] * (self.x.dim() - 1))
            out = sum((g[:, k].view(shape) * outs[k] for k in range(len(outs))), torch.zeros_like(outs[0]))
        return float(c_x) * self._after.x + float(c_o) * out

    def state(self) -> TrajectoryState:
        """A snapshot, from which `resume` continues the run exactly."""
        after, start = self._after, self._start
        return TrajectoryState(
            table=start.table,
            evaluation=after.e + 1,
            x=after.x_next.detach().clone(),
            anchor=None if after.anchor is None else after.anchor.detach().clone(),
            history=None if after.history is None else after.history.detach().clone(),
            rng=start.rng,
            settings=start.settings,
            guidance_scale=start.guidance_scale,
        )


class Inpainting:
    """Keeps the known region at each state's noise level, with noise of its own."""

    def __init__(self, image: Tensor, mask: Tensor, x: Tensor, rng: Tensor | None) -> None:
        for name, value in (("inpaint_image", image), ("inpaint_mask", mask)):
            if not isinstance(value, Tensor):
                raise TypeError(f"`{name}` must be a Tensor, got {type(value).__name__}")
            try:
                fits = torch.broadcast_shapes(value.shape, x.shape) == x.shape
            except RuntimeError:
                fits = False
            if not fits:
                raise ValueError(
                    f"`{name}` must be broadcastable to {tuple(x.shape)}, got {tuple(value.shape)}"
                )
            if value.device != x.device:
                raise ValueError(f"`{name}` must be on the device of `x`, {x.device}, got {value.device}")
        readable = mask.device.type == "cpu" and not torch.compiler.is_compiling()
        if readable and not ((mask >= 0) & (mask <= 1)).all():
            raise ValueError("`inpaint_mask` must hold numbers from 0 to 1")
        self.image, self.mask = image.to(x.dtype), mask.to(x.dtype)
        assert rng is not None  # a run with a mask has numbers of its own
        self.rng = rng

    def blend(self, x: Tensor, alpha: float, sigma: float, draw: int) -> Tensor:
        """x where the mask is 1, the image noised to (alpha, sigma) where it is 0."""
        known = alpha * self.image
        if sigma:
            known = known + sigma * normals(self.rng, INPAINTING + draw, x)
        return torch.lerp(known.expand_as(x), x, self.mask.expand_as(x))


def watcher(
    run: Run,
    start: TrajectoryState,
    states: list[Tensor] | None,
    callback: Callable[[StepInfo], Any] | None,
    bar: Any,
    check_finite: bool,
) -> Callable[[After], bool] | None:
    """One function that does what was asked for after each evaluation; None if nothing was."""
    if states is None and callback is None and bar is None and not check_finite:
        return None
    table = run.table
    # number of the step that each evaluation belongs to
    index = [sum(mode != "keep" for mode in table.anchor[:e]) for e in range(len(table))]

    def watch(after: After) -> bool:
        e = after.e
        if check_finite:
            _check_finite(run, e, "state", [after.x_next])
        if bar is not None:
            bar.update()
        if table.anchor[e] == "keep":
            return False
        if states is not None:
            states.append(after.x_next.clone())
        if callback is None:
            return False
        info = StepInfo(
            index[e],
            table.n_steps,
            float(table.t[e]),
            float(table.t_next[e]),
            after.x_next,
            run,
            after,
            start,
        )
        return bool(callback(info))

    return watch


def check_outputs(run: Run) -> Callable[[int, list[Tensor]], None]:
    """Raises FloatingPointError when a model output is not finite."""
    return lambda e, outs: _check_finite(run, e, "model output", outs)


def _check_finite(run: Run, e: int, name: str, tensors: list[Tensor]) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise FloatingPointError(f"the {name} is not finite in {run.where(e)}")
