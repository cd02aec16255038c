"""The fused solver step and its gradient, term by term.

The notation is that of `docs/architecture.md`: guided output o = sum_k g_k outs_k, converted value
u = c_x x + c_o o, model term m = d_x x + d_u clip(u) + d_h h0; then rows A, X, S0, S1 as weighted sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._coefficients import (
    ANCHOR,
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
    HISTORY,
    JUMP,
    N_COLUMNS,
    N_ROWS,
    NOISE,
    OUTPUT,
    ROW_A,
    ROW_S0,
    ROW_S1,
    ROW_X,
    STATE,
    position,
)
from .random import random_normal

ANCHOR_ROW = 2
CLIP_STATIC, CLIP_DYNAMIC = 1, 2

NormalSource = Callable[[Sequence[int], Tensor, torch.dtype], Tensor]


@dataclass
class _Step:
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


def _like_samples(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.dim() - 1))


def ring_slots(step: Tensor, n_store: int, length: int) -> tuple[Tensor, Tensor]:
    """Return the slots of ages 0..length-1 and the slots of S0, S1, as int64 tensors on the step's device."""
    head = (step * n_store) % max(length, 1)
    ages = torch.arange(length, device=step.device)
    return (head - 1 - ages) % max(length, 1), (head + torch.arange(2, device=step.device)) % max(length, 1)


def _replaced(elem_map: Tensor) -> tuple[Tensor, Tensor]:
    """Return, by position, whether an element coefficient stands in, and which; read on the device."""
    hits = elem_map == torch.arange(BIAS + N_ROWS, device=elem_map.device)[:, None]
    return hits.any(1), hits.int().argmax(1)


def _gather(
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
) -> _Step:
    wide = x.dtype == torch.float64 or (history is not None and history.dtype == torch.float64)
    acc = torch.float64 if wide else torch.float32
    at = step.reshape(1)
    row = coef.index_select(0, at)[0].to(acc)
    coefs = [_like_samples(row[:, k], x) for k in range(row.shape[1])]
    bias: list[Tensor | None] = [None] * 4
    if elem is not None and elem_map is not None:
        values = elem.index_select(0, at if elem.shape[0] > 1 else torch.zeros_like(at))[0].to(acc)
        values = values.reshape(-1, *[1] * (x.dim() - values.dim()), *values.shape[1:])
        replaced, which = _replaced(elem_map)
        for k in ELEMENT_POSITIONS if elem_map.numel() else ():
            element = values.index_select(0, which[k : k + 1])
            if k >= BIAS:
                bias[k - BIAS] = torch.where(replaced[k], element, 0)
            else:
                coefs[k] = torch.where(replaced[k], element, coefs[k])
    g = e = []
    if weights is not None:
        w = weights.index_select(0, at if weights.shape[0] > 1 else torch.zeros_like(at))[0].to(acc)
        g = [_like_samples(w[0, :, k], x) for k in range(len(outs))]
        e = [_like_samples(w[1, :, k], x) for k in range(len(outs))]
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
    return _Step(
        coef=coefs,
        bias=bias,
        x=x.to(acc),
        outs=[o.to(acc) for o in outs],
        g=g,
        e=e,
        anchor=None if anchor is None else anchor.to(acc),
        noise=None if noise is None else noise.to(acc),
        history=ages,
        clip_scale=None if clip_scale is None else _like_samples(clip_scale.to(acc), x),
        clip_mode=clip_mode,
    )


def _term(c: Tensor, value: Tensor) -> Tensor:
    """Return c value, and zero where c is zero, whatever the value holds; differentiable in c there too."""
    return c * torch.where((c != 0) | value.isfinite(), value, 0)


@dataclass
class _Forward:
    o: Tensor
    jump: Tensor
    u: Tensor
    clipped: Tensor
    columns: list[Tensor | None]
    rows: list[Tensor]


def _clip(s: _Step, u: Tensor) -> Tensor:
    if s.clip_mode == CLIP_STATIC:
        bound = s.coef[CLIP_BOUND]
        return torch.minimum(torch.maximum(u, -bound), bound)
    if s.clip_mode == CLIP_DYNAMIC:
        assert s.clip_scale is not None
        return torch.minimum(torch.maximum(u, -s.clip_scale), s.clip_scale) / s.clip_scale
    return u


def _evaluate(s: _Step) -> _Forward:
    zero = torch.zeros_like(s.x)
    o = sum((_term(g, out) for g, out in zip(s.g, s.outs, strict=True)), zero)
    jump = sum((_term(e, out) for e, out in zip(s.e, s.outs, strict=True)), zero)
    u = _term(s.coef[C_X], s.x) + _term(s.coef[C_O], o)
    clipped = _clip(s, u)
    m = _term(s.coef[D_X], s.x) + _term(s.coef[D_U], clipped)
    if s.history:
        m = m + _term(s.coef[D_H], s.history[0])
    columns: list[Tensor | None] = [s.x, s.anchor, m, s.noise, None, *s.history]
    columns += [None] * (N_COLUMNS - len(columns))

    def combine(row: int) -> Tensor:
        start = s.bias[row]
        total = zero if start is None else zero + start
        for column, value in enumerate(columns):
            c = s.coef[position(row, column)]
            if value is not None:
                total = total + _term(c, value)
            elif column != CORRECTED:  # a missing tensor may only meet a zero coefficient
                total = torch.where(c != 0, torch.nan, total)
        return total

    row_a = combine(ROW_A)
    rows = [combine(ROW_X), row_a, combine(ROW_S0), combine(ROW_S1)]
    for row in (ROW_X, ROW_S0, ROW_S1):
        rows[row] = rows[row] + _term(s.coef[position(row, CORRECTED)], row_a)
    rows[ROW_X] = rows[ROW_X] + _term(s.coef[JUMP], jump)
    columns[CORRECTED] = row_a
    return _Forward(o, jump, u, clipped, columns, rows)


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
    rows = _evaluate(_gather(*inputs, n_store, clip_mode, random_normal)).rows
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
    rows = _evaluate(_gather(*inputs, n_store, clip_mode, random_normal)).rows
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
            kept = torch.where(_like_samples(active, x), results[2 + k], history.index_select(0, slot)[0])
            history.index_copy_(0, slot, kept[None])
    x_out.copy_(results[0])
    if anchor is not None and anchor_mode == ANCHOR_ROW:
        anchor.copy_(results[1])
    if model_in is not None:
        scale = _like_samples(coef.index_select(0, step.reshape(1))[0, :, C_IN], x)
        scaled = scale.to(rows[ROW_X].dtype) * rows[ROW_X]
        copies = model_in.shape[0] // max(x.shape[0], 1)
        model_in.copy_(scaled.repeat(copies, *[1] * (x.dim() - 1)))


def solver_step_backward(
    grads: Sequence[Tensor | None],
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
    normals: NormalSource = random_normal,
) -> dict[str, Tensor | list[Tensor] | None]:
    """Return the gradients of `solver_step` for x, outs, anchor, history, coef, weights, elem and noise.

    The step is linear in its tensors, so its gradient is the transposed step; clipping passes gradients where
    it did not clip, and its scale counts as a constant. Sums over elements (coef, weights) are taken in
    float64.
    """
    inputs = (x, outs, anchor, history, coef, step, weights, elem, elem_map, clip_scale, noise, rng)
    s = _gather(*inputs, n_store, clip_mode, normals)
    f = _evaluate(s)
    zero = torch.zeros_like(s.x)
    into = [zero if g is None or g.numel() != x.numel() else g.to(zero.dtype) for g in grads]
    for row in (ROW_X, ROW_S0, ROW_S1):
        into[ROW_A] = into[ROW_A] + s.coef[position(row, CORRECTED)] * into[row]
    columns = [
        sum((s.coef[position(row, column)] * into[row] for row in range(4)), zero)
        for column in range(N_COLUMNS)
    ]
    grad_m = columns[OUTPUT]
    grad_u = s.coef[D_U] * grad_m
    if clip_mode == CLIP_STATIC:
        grad_u = torch.where(f.u.abs() <= s.coef[CLIP_BOUND], grad_u, 0)
    elif clip_mode == CLIP_DYNAMIC:
        assert s.clip_scale is not None
        grad_u = torch.where(f.u.abs() <= s.clip_scale, grad_u / s.clip_scale, 0)
    grad_o = s.coef[C_O] * grad_u
    grad_jump = s.coef[JUMP] * into[ROW_X]

    products = {
        C_X: (grad_u, s.x),
        C_O: (grad_u, f.o),
        D_X: (grad_m, s.x),
        D_U: (grad_m, f.clipped),
        JUMP: (into[ROW_X], f.jump),
    }
    if s.history:
        products[D_H] = (grad_m, s.history[0])
    for row in range(4):
        for column, value in enumerate(f.columns):
            if value is not None and (row, column) != (ROW_A, CORRECTED):
                products[position(row, column)] = (into[row], value)

    grad_history = None
    if history is not None:
        by_age = torch.stack(columns[HISTORY : HISTORY + history.shape[0]])
        by_age[0] = by_age[0] + s.coef[D_H] * grad_m
        slots, _ = ring_slots(step, n_store, history.shape[0])
        grad_history = torch.zeros_like(by_age).index_copy(0, slots, by_age).to(history.dtype)
    return {
        "x": (columns[STATE] + s.coef[D_X] * grad_m + s.coef[C_X] * grad_u).to(x.dtype),
        "outs": [(g * grad_o + e * grad_jump).to(o.dtype) for g, e, o in zip(s.g, s.e, outs, strict=True)],
        "anchor": None if anchor is None else columns[ANCHOR].to(anchor.dtype),
        "history": grad_history,
        "coef": _coef_gradient(products, coef, step, elem_map),
        "weights": None if weights is None else _weight_gradient(grad_o, grad_jump, s.outs, weights, step),
        "elem": None if elem is None else _element_gradient(products, into, elem, step, elem_map),
        "noise": None if noise is None else columns[NOISE].to(noise.dtype),
    }


def _per_sample(product: Tensor, samples: int) -> Tensor:
    """Return the float64 sums over each sample, or over everything when `samples` is 1."""
    sums = product.double().flatten(1).sum(1) if product.dim() > 1 else product.double()
    return sums.sum(0, keepdim=True) if samples == 1 else sums


def _at_step(value: Tensor, like: Tensor, step: Tensor) -> Tensor:
    at = step.reshape(1) if like.shape[0] > 1 else torch.zeros_like(step.reshape(1))
    return torch.zeros_like(like).index_copy(0, at, value[None].to(like.dtype))


def _coef_gradient(
    products: dict[int, tuple[Tensor, Tensor]], coef: Tensor, step: Tensor, elem_map: Tensor | None
) -> Tensor:
    samples = coef.shape[1]
    nothing = torch.zeros(samples, dtype=torch.float64, device=coef.device)
    sums = [nothing] * coef.shape[2]
    for where, (gradient, value) in products.items():
        sums[where] = _per_sample(gradient * value, samples)
    by_position = torch.stack(sums, 1)
    if elem_map is not None:
        by_position = torch.where(_replaced(elem_map)[0][: coef.shape[2]], 0, by_position)
    return _at_step(by_position, coef, step)


def _weight_gradient(
    grad_o: Tensor, grad_jump: Tensor, outs: list[Tensor], weights: Tensor, step: Tensor
) -> Tensor:
    samples = weights.shape[2]
    g = torch.stack([_per_sample(grad_o * o, samples) for o in outs], 1)
    e = torch.stack([_per_sample(grad_jump * o, samples) for o in outs], 1)
    return _at_step(torch.stack([g, e]), weights, step)


def _element_gradient(
    products: dict[int, tuple[Tensor, Tensor]],
    into: list[Tensor],
    elem: Tensor,
    step: Tensor,
    elem_map: Tensor | None,
) -> Tensor:
    def reduced(full: Tensor) -> Tensor:
        total = full.sum(0)
        shape = (*[1] * (total.dim() - elem.dim() + 2), *elem.shape[2:])
        axes = [axis for axis, size in enumerate(shape) if size == 1 and total.shape[axis] != 1]
        return (total.sum(axes, keepdim=True) if axes else total).reshape(elem.shape[2:])

    assert elem_map is not None
    nothing = into[0].new_zeros(elem.shape[2:])
    by_position = [nothing] * (BIAS + N_ROWS)
    for where, (gradient, value) in products.items():
        by_position[where] = reduced(gradient * value)
    for row in range(N_ROWS):
        by_position[BIAS + row] = reduced(into[row])
    return _at_step(torch.stack(by_position).index_select(0, elem_map), elem, step)
