"""The sampling loop, in place for speed and functional for gradients and compilation.

Both say the same: evaluate the model, make one operator call, repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from fastdiff_ops.ops.linear_step import ANCHOR_MODES, CLIP_MODES

from .memory import dense, empty_like
from .packing import Packed
from .table import SolverTable

# number, network input, times, state, mode and, in this order, the operator's arguments
# (x_out, anchor, history, model_in, coef, step, weights, elem, elem_map)
Evaluation = tuple[int, Tensor, Tensor, Tensor, tuple[Any, ...], int]


class After(NamedTuple):
    """What just happened, for whoever watches the run."""

    e: int
    x: Tensor  # where the model was evaluated
    outs: list[Tensor]
    x_next: Tensor
    anchor: Tensor | None  # of the next evaluation, where it is not x_next
    history: Tensor | None


@dataclass
class Run:
    """Everything the loop reads, prepared."""

    table: SolverTable
    packed: Packed
    start: int  # the first evaluation to make
    x: Tensor
    anchor: Tensor | None
    history: Tensor | None
    evaluate: Callable[[Tensor, Tensor], list[Tensor]]
    copies: int
    coef: Tensor
    steps: tuple[Tensor, ...]
    times: tuple[Tensor, ...]
    weights: Tensor | None
    elem: Tensor | None
    elem_map: Tensor | None
    rng: Tensor | None
    clip: str | None
    clip_limits: tuple[float, float, float]  # quantile, floor, cap
    blend: Callable[[Tensor, int], Tensor] | None  # inpainting of the state after an evaluation
    check: Callable[[int, list[Tensor]], None] | None  # of the outputs, before anything is made of them
    watch: Callable[[After], bool] | None  # a true value ends the run

    def network_input(self, x: Tensor, e: int) -> Tensor:
        """What the network sees of the state x at evaluation e."""
        if self.packed.scaled:
            x = self.packed.c_in[e] * x
        return torch.cat([x] * self.copies) if self.copies > 1 else x

    def clip_scale(self, x: Tensor, outs: list[Tensor], e: int) -> Tensor | None:
        """Scale of dynamic thresholding."""
        if self.clip != "dynamic":
            return None
        quantile = torch.ops.fastdiff_ops.abs_quantile.default
        arguments = (x, outs, self.coef, self.steps[e], self.weights, *self.clip_limits)
        if torch.compiler.is_compiling():
            return cast(Tensor, quantile(*arguments))
        try:
            return cast(Tensor, quantile(*arguments))
        except ValueError as error:  # a sample holds NaN
            raise ValueError(f"no scale for `clip` in {self.where(e)}: {error}") from error

    def where(self, e: int) -> str:
        """Evaluation e, for messages."""
        table = self.table
        step = sum(mode != "keep" for mode in table.anchor[:e])
        return f"step {step} (evaluation {e}, t = {table.t[e]:g} -> {table.t_next[e]:g})"


def run_in_place(run: Run) -> Tensor:
    """One mutating operator call per evaluation; states rotate through two or three buffers."""
    step_ = torch.ops.fastdiff_ops.solver_step_.default
    evaluate, check, blend, watch = run.evaluate, run.check, run.blend, run.watch
    dynamic = run.clip == "dynamic"
    rng, n_store, clip_mode = run.rng, run.table.n_store, CLIP_MODES[run.clip or "none"]
    clip_scale: Tensor | None = None
    x_out = run.x
    for e, net_in, t, x, head, anchor_mode in _plan(run):
        outs = evaluate(net_in, t)
        if check is not None:
            check(e, outs)
        if dynamic:
            clip_scale = run.clip_scale(x, outs, e)
        step_(x, outs, *head, clip_scale, None, rng, n_store, clip_mode, anchor_mode)
        x_out = head[0]
        if blend is not None:
            x_out.copy_(blend(x_out, e))
            if head[3] is not None:
                head[3].copy_(run.network_input(x_out, e + 1))
        if watch is not None:
            corrected = head[1] if anchor_mode == ANCHOR_MODES["row"] else None
            if watch(After(e, x, outs, x_out, corrected, run.history)):
                break
    return x_out


def _plan(run: Run) -> list[Evaluation]:
    """Which tensor serves where, for every evaluation: the loop itself only looks up."""
    model_in = None
    if run.copies > 1 or run.packed.scaled:
        model_in = dense(run.network_input(run.x, run.start))
    buffers: list[Tensor] = []

    def buffer(x: Tensor, anchor: Tensor | None) -> Tensor:
        for candidate in buffers:
            if candidate is not x and candidate is not anchor:
                return candidate
        buffers.append(empty_like(run.x))
        return buffers[-1]

    plan: list[Evaluation] = []
    x, anchor = run.x, run.anchor
    for e in range(run.start, len(run.table)):
        mode = run.table.anchor[e]
        if mode == "row" and anchor is None:
            anchor = buffer(x, None)
        elif mode == "keep" and anchor is None:
            anchor = x
        x_out = buffer(x, anchor)
        last = e + 1 == len(run.table)
        shared = (
            run.history,
            None if last else model_in,
            run.coef,
            run.steps[e],
            run.weights,
            run.elem,
            run.elem_map,
        )
        head = (x_out, anchor if mode == "row" or run.packed.uses_anchor[e] else None, *shared)
        net_in = x if model_in is None else model_in
        plan.append((e, net_in, run.times[e], x, head, ANCHOR_MODES[mode]))
        x, anchor = x_out, None if mode == "same" else anchor
    return plan


def run_functional(run: Run) -> Tensor:
    """The same without mutation: differentiable, and traceable by torch.compile."""
    step = torch.ops.fastdiff_ops.solver_step.default
    n_store, clip_mode = run.table.n_store, CLIP_MODES[run.clip or "none"]
    x: Tensor = run.x
    anchor = run.anchor
    ring = [] if run.history is None else list(run.history.unbind(0))
    for e in range(run.start, len(run.table)):
        mode = run.table.anchor[e]
        outs = run.evaluate(run.network_input(x, e), run.times[e])
        if run.check is not None:
            run.check(e, outs)
        history = torch.stack(ring) if ring else None
        column = anchor if run.packed.uses_anchor[e] else None
        inputs = (x, outs, column, history, run.coef, run.steps[e], run.weights, run.elem, run.elem_map)
        noise = (run.clip_scale(x, outs, e), None, run.rng)
        x_next, corrected, *stored = step(*inputs, *noise, n_store, clip_mode, ANCHOR_MODES[mode])
        for k in range(n_store):
            ring[(e * n_store + k) % len(ring)] = stored[k]
        if run.blend is not None:
            x_next = run.blend(x_next, e)
        if mode == "keep" and anchor is None:
            anchor = x
        elif mode != "keep":
            anchor = corrected if mode == "row" else None
        evaluated, x = x, x_next
        if run.watch is not None:
            history = torch.stack(ring) if ring else None
            if run.watch(After(e, evaluated, outs, x, anchor, history)):
                break
    return x
