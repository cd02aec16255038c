"""The fused solver step, term by term.

The notation is that of `docs/architecture.md`: guided output o = sum_k g_k outs_k, converted value
u = c_x x + c_o o, model term m = d_x x + d_u clip(u) + d_h h0; then rows A, X, S0, S1 as weighted sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._coefficients import (
    BIAS,
    C_IN,
    C_O,
    C_X,
    CLIP_BOUND,
    CORRECTED,
    D_H,
    D_U,
    D_X,
    ELEMENT_POSITIONS,
    JUMP,
    N_COLUMNS,
    N_ROWS,
    ROW_A,
    ROW_S0,
    ROW_S1,
    ROW_X,
    position,
)
from .random import random_normal

ANCHOR_ROW = 2
CLIP_STATIC, CLIP_DYNAMIC = 1, 2

NormalSource = Callable[[Sequence[int], Tensor, torch.dtype], Tensor]


@dataclass
class Step:
    """Everything one step is made of, in the accumulation type and broadcast against the sample shape."""

    coef: list[Tensor]  # by position: [1 or B, 1...] or, for element coefficients, [1, *S']
    bias: list[Tensor | None]
    x: Tensor
    outs: list[Tensor]
    g: list[Tensor]
    e: list[Tensor]
    anchor: Tensor | None
    noise: Tensor | None
    history: list[Tensor]  # by age
    clip_scale: Tensor | None
    clip_mode: int


def like_samples(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.dim() - 1))


def ring_slots(step: Tensor, n_store: int, length: int) -> tuple[Tensor, Tensor]:
    """Return the slots of ages 0..length-1 and the slots of S0, S1, as int64 tensors on the step's device."""
    head = (step * n_store) % max(length, 1)
    ages = torch.arange(length, device=step.device)
    return (head - 1 - ages) % max(length, 1), (head + torch.arange(2, device=step.device)) % max(length, 1)


def replaced_positions(elem_map: Tensor) -> tuple[Tensor, Tensor]:
    """Return, by position, whether an element coefficient stands in, and which; read on the device."""
    hits = elem_map == torch.arange(BIAS + N_ROWS, device=elem_map.device)[:, None]
    return hits.any(1), hits.int().argmax(1)


def gather(
    x: Tensor,
    outs: Sequence[Tensor],
    anchor: Tensor | None,
    history: Tensor | None,
    coef: Tensor,
    step: Tensor,
    weights: Tensor | None,
    elem: Tensor | None,
    elem_map: Tensor | None,
    clip_scale: Tensor | None,
    noise: Tensor | None,
    rng: Tensor | None,
    n_store: int,
    clip_mode: int,
    normals: NormalSource,
) -> Step:
    wide = x.dtype == torch.float64 or (history is not None and history.dtype == torch.float64)
    acc = torch.float64 if wide else torch.float32
    at = step.reshape(1)
    row = coef.index_select(0, at)[0].to(acc)
    coefs = [like_samples(row[:, k], x) for k in range(row.shape[1])]
    bias: list[Tensor | None] = [None] * 4
    if elem is not None and elem_map is not None:
        values = elem.index_select(0, at if elem.shape[0] > 1 else torch.zeros_like(at))[0].to(acc)
        values = values.reshape(-1, *[1] * (x.dim() - values.dim()), *values.shape[1:])
        replaced, which = replaced_positions(elem_map)
        for k in ELEMENT_POSITIONS if elem_map.numel() else ():
            element = values.index_select(0, which[k : k + 1])
            if k >= BIAS:
                bias[k - BIAS] = torch.where(replaced[k], element, 0)
            else:
                coefs[k] = torch.where(replaced[k], element, coefs[k])
    g = e = []
    if weights is not None:
        w = weights.index_select(0, at if weights.shape[0] > 1 else torch.zeros_like(at))[0].to(acc)
        g = [like_samples(w[0, :, k], x) for k in range(len(outs))]
        e = [like_samples(w[1, :, k], x) for k in range(len(outs))]
    else:
        g = [torch.ones((), dtype=acc, device=x.device)] * len(outs)
        e = [torch.zeros((), dtype=acc, device=x.device)] * len(outs)
    ages: list[Tensor] = []
    if history is not None:
        slots, _ = ring_slots(step, n_store, history.shape[0])
        ages = list(history.index_select(0, slots).to(acc).unbind(0))
    if noise is None and rng is not None:
        draw = rng + torch.nn.functional.pad(step.reshape(1), (1, rng.shape[-1] - 2))
        noise = normals(x.shape, draw, torch.float32)
    return Step(
        coef=coefs,
        bias=bias,
        x=x.to(acc),
        outs=[o.to(acc) for o in outs],
        g=g,
        e=e,
        anchor=None if anchor is None else anchor.to(acc),
        noise=None if noise is None else noise.to(acc),
        history=ages,
        clip_scale=None if clip_scale is None else like_samples(clip_scale.to(acc), x),
        clip_mode=clip_mode,
    )


def _term(c: Tensor, value: Tensor) -> Tensor:
    """Return c value, and zero where c is zero, whatever the value holds; differentiable in c there too."""
    return c * torch.where((c != 0) | value.isfinite(), value, 0)


@dataclass
class ModelTerm:
    """What becomes of the model's outputs."""

    o: Tensor  # guided output
    jump: Tensor  # direct guidance term
    u: Tensor  # converted
    clipped: Tensor
    m: Tensor


@dataclass
class Forward:
    """All intermediate values of a step."""

    model: ModelTerm
    columns: list[Tensor | None]
    rows: list[Tensor]


def _clip(s: Step, u: Tensor) -> Tensor:
    if s.clip_mode == CLIP_STATIC:
        bound = s.coef[CLIP_BOUND]
        return torch.minimum(torch.maximum(u, -bound), bound)
    if s.clip_mode == CLIP_DYNAMIC:
        assert s.clip_scale is not None
        return torch.minimum(torch.maximum(u, -s.clip_scale), s.clip_scale) / s.clip_scale
    return u


def model_term(s: Step) -> ModelTerm:
    """Guide, convert and clip."""
    zero = torch.zeros_like(s.x)
    o = sum((_term(g, out) for g, out in zip(s.g, s.outs, strict=True)), zero)
    jump = sum((_term(e, out) for e, out in zip(s.e, s.outs, strict=True)), zero)
    u = _term(s.coef[C_X], s.x) + _term(s.coef[C_O], o)
    clipped = _clip(s, u)
    m = _term(s.coef[D_X], s.x) + _term(s.coef[D_U], clipped)
    if s.history:
        m = m + _term(s.coef[D_H], s.history[0])
    return ModelTerm(o, jump, u, clipped, m)


def evaluate(s: Step, anchor_mode: int) -> Forward:
    """Form the rows; A only where it is asked for."""
    model = model_term(s)
    columns: list[Tensor | None] = [s.x, s.anchor, model.m, s.noise, None, *s.history]
    columns += [None] * (N_COLUMNS - len(columns))

    def combine(row: int) -> Tensor:
        start = s.bias[row]
        total = torch.zeros_like(s.x) if start is None else torch.zeros_like(s.x) + start
        for column, value in enumerate(columns):
            c = s.coef[position(row, column)]
            if value is not None:
                total = total + _term(c, value)
            elif column != CORRECTED or not with_a:  # a missing tensor may only meet a zero coefficient
                total = torch.where(c != 0, torch.nan, total)
        return total

    with_a = anchor_mode == ANCHOR_ROW
    row_a = combine(ROW_A)
    rows = [combine(ROW_X), row_a, combine(ROW_S0), combine(ROW_S1)]
    if with_a:
        columns[CORRECTED] = row_a
        for row in (ROW_X, ROW_S0, ROW_S1):
            rows[row] = rows[row] + _term(s.coef[position(row, CORRECTED)], row_a)
    rows[ROW_X] = rows[ROW_X] + _term(s.coef[JUMP], model.jump)
    return Forward(model, columns, rows)


def solver_step(
    x: Tensor,
    outs: Sequence[Tensor],
    anchor: Tensor | None,
    history: Tensor | None,
    coef: Tensor,
    step: Tensor,
    weights: Tensor | None = None,
    elem: Tensor | None = None,
    elem_map: Tensor | None = None,
    clip_scale: Tensor | None = None,
    noise: Tensor | None = None,
    rng: Tensor | None = None,
    n_store: int = 0,
    clip_mode: int = 0,
    anchor_mode: int = 0,
) -> list[Tensor]:
    """Reference of `torch.ops.fastdiff_ops.solver_step`; see `fastdiff_ops.ops.solver_step`."""
    inputs = (x, outs, anchor, history, coef, step, weights, elem, elem_map, clip_scale, noise, rng)
    rows = evaluate(gather(*inputs, n_store, clip_mode, random_normal), anchor_mode).rows
    return _results(rows, x, history, n_store, anchor_mode)


def _results(
    rows: list[Tensor], x: Tensor, history: Tensor | None, n_store: int, anchor_mode: int
) -> list[Tensor]:
    stored = x.dtype if history is None else history.dtype
    return [
        rows[ROW_X].to(x.dtype),
        rows[ROW_A].to(x.dtype) if anchor_mode == ANCHOR_ROW else x.new_empty(0),
        rows[ROW_S0].to(stored) if n_store >= 1 else x.new_empty(0, dtype=stored),
        rows[ROW_S1].to(stored) if n_store >= 2 else x.new_empty(0, dtype=stored),
    ]


def solver_step_(
    x: Tensor,
    outs: Sequence[Tensor],
    x_out: Tensor,
    anchor: Tensor | None,
    history: Tensor | None,
    model_in: Tensor | None,
    coef: Tensor,
    step: Tensor,
    weights: Tensor | None = None,
    elem: Tensor | None = None,
    elem_map: Tensor | None = None,
    clip_scale: Tensor | None = None,
    noise: Tensor | None = None,
    rng: Tensor | None = None,
    n_store: int = 0,
    clip_mode: int = 0,
    anchor_mode: int = 0,
) -> None:
    """Reference of `torch.ops.fastdiff_ops.solver_step_`; see `fastdiff_ops.ops.solver_step_`."""
    inputs = (x, outs, anchor, history, coef, step, weights, elem, elem_map, clip_scale, noise, rng)
    rows = evaluate(gather(*inputs, n_store, clip_mode, random_normal), anchor_mode).rows
    results = _results(rows, x, history, n_store, anchor_mode)
    if history is not None and n_store:
        _, slots = ring_slots(step, n_store, history.shape[0])
        row = coef.index_select(0, step.reshape(1))[0]
        element = torch.zeros(coef.shape[-1] + 4, dtype=torch.bool, device=coef.device)
        if elem_map is not None:
            element[elem_map] = True
        for k, which in enumerate((ROW_S0, ROW_S1)[:n_store]):
            span = slice(position(which, 0), position(which, N_COLUMNS))
            active = (row[:, span] != 0).any(1) | element[span].any() | element[BIAS + which]
            slot = slots[k].reshape(1)
            kept = torch.where(like_samples(active, x), results[2 + k], history.index_select(0, slot)[0])
            history.index_copy_(0, slot, kept[None])
    x_out.copy_(results[0])
    if anchor is not None and anchor_mode == ANCHOR_ROW:
        anchor.copy_(results[1])
    if model_in is not None:
        scale = like_samples(coef.index_select(0, step.reshape(1))[0, :, C_IN], x)
        scaled = scale.to(rows[ROW_X].dtype) * rows[ROW_X]
        copies = model_in.shape[0] // max(x.shape[0], 1)
        model_in.copy_(scaled.repeat(copies, *[1] * (x.dim() - 1)))
