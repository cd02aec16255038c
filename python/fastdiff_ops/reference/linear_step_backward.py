"""Gradient of the fused solver step: the transposed sums, and sums over elements for the coefficients.

A step is linear in its tensors, so the gradient of a column is the sum of the rows' gradients with that
column's weights. Only what is asked for is computed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from .._coefficients import (
    ANCHOR,
    BIAS,
    C_O,
    C_X,
    CLIP_BOUND,
    CORRECTED,
    D_H,
    D_U,
    D_X,
    HISTORY,
    JUMP,
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
from .linear_step import (
    ANCHOR_ROW,
    CLIP_DYNAMIC,
    CLIP_STATIC,
    NormalSource,
    Step,
    evaluate,
    gather,
    model_term,
    replaced_positions,
    ring_slots,
)
from .random import random_normal

Gradients = dict[str, Any]
Products = dict[int, tuple[Tensor, Tensor]]  # by position: the derivative is the sum of their products


def solver_step_backward(
    needs: Collection[str],
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
    anchor_mode: int,
    normals: NormalSource = random_normal,
) -> Gradients:
    """Return those gradients of `solver_step` that `needs` names.

    Names are x, outs, anchor, history, coef, weights, elem and noise. Clipping passes gradients where it did
    not clip; the scale of dynamic clipping counts as a constant. Sums over elements are taken in float64. A
    zero coefficient's gradient leaves out what is not finite in its tensor, since the step did not read it.
    """
    by_element = "coef" in needs or "elem" in needs
    values = (anchor, history) if by_element else (None, None)
    drawn = (noise, rng) if by_element else (None, None)
    s = gather(
        x, outs, *values, coef, step, weights, elem, elem_map, clip_scale, *drawn, n_store, clip_mode, normals
    )
    into = [None if g is None or g.numel() != x.numel() else g.to(s.x.dtype) for g in grads]
    if anchor_mode == ANCHOR_ROW:
        for row in (ROW_X, ROW_S0, ROW_S1):
            into[ROW_A] = _plus(into[ROW_A], s.coef[position(row, CORRECTED)], into[row])

    def column(which: int) -> Tensor:
        total = None
        for row, gradient in enumerate(into):
            total = _plus(total, s.coef[position(row, which)], gradient)
        return torch.zeros_like(s.x) if total is None else total

    found: Gradients = {}
    grad_m = column(OUTPUT)
    if "anchor" in needs and anchor is not None:
        found["anchor"] = column(ANCHOR).to(anchor.dtype)
    if "noise" in needs and noise is not None:
        found["noise"] = column(NOISE).to(noise.dtype)
    if "history" in needs and history is not None:
        ages = [column(HISTORY + age) for age in range(history.shape[0])]
        ages[0] = ages[0] + s.coef[D_H] * grad_m
        by_age = torch.stack(ages)
        slots, _ = ring_slots(step, n_store, history.shape[0])
        found["history"] = torch.zeros_like(by_age).index_copy(0, slots, by_age).to(history.dtype)
    if not {"x", "outs", "weights", "coef", "elem"} & set(needs):
        return found

    grad_clipped = s.coef[D_U] * grad_m
    grad_u = _through_clip(s, grad_clipped)
    grad_o = s.coef[C_O] * grad_u
    given = into[ROW_X]
    grad_x_next = torch.zeros_like(s.x) if given is None else given
    grad_jump = s.coef[JUMP] * grad_x_next
    if "x" in needs:
        found["x"] = (column(STATE) + s.coef[D_X] * grad_m + s.coef[C_X] * grad_u).to(x.dtype)
    if "outs" in needs:
        pairs = zip(s.g, s.e, outs, strict=True)
        found["outs"] = [(g * grad_o + e * grad_jump).to(o.dtype) for g, e, o in pairs]
    if "weights" in needs and weights is not None:
        found["weights"] = _weight_gradient(s, grad_o, grad_jump, weights, step)
    if by_element:
        products = _products(s, into, anchor_mode, grad_m, grad_clipped, grad_u, grad_x_next)
        if "coef" in needs:
            found["coef"] = _coef_gradient(s, products, coef, step, elem_map)
        if "elem" in needs and elem is not None and elem_map is not None:
            found["elem"] = _element_gradient(products, into, s.x, elem, step, elem_map)
    return found


def _plus(total: Tensor | None, weight: Tensor, gradient: Tensor | None) -> Tensor | None:
    if gradient is None:
        return total
    return weight * gradient if total is None else torch.addcmul(total, weight, gradient)


def _through_clip(s: Step, gradient: Tensor) -> Tensor:
    if s.clip_mode == CLIP_STATIC:
        return torch.where(model_term(s).u.abs() <= s.coef[CLIP_BOUND], gradient, 0)
    if s.clip_mode == CLIP_DYNAMIC:
        assert s.clip_scale is not None
        return torch.where(model_term(s).u.abs() <= s.clip_scale, gradient / s.clip_scale, 0)
    return gradient


def _products(
    s: Step,
    into: list[Tensor | None],
    anchor_mode: int,
    grad_m: Tensor,
    grad_clipped: Tensor,
    grad_u: Tensor,
    grad_x_next: Tensor,
) -> Products:
    f = evaluate(s, anchor_mode)
    products: Products = {
        C_X: (grad_u, s.x),
        C_O: (grad_u, f.model.o),
        D_X: (grad_m, s.x),
        D_U: (grad_m, f.model.clipped),
        JUMP: (grad_x_next, f.model.jump),
    }
    if s.clip_mode == CLIP_STATIC:
        outside = f.model.u.abs() > s.coef[CLIP_BOUND]
        products[CLIP_BOUND] = (grad_clipped, torch.where(outside, f.model.u.sign(), 0))
    if s.history:
        products[D_H] = (grad_m, s.history[0])
    for row, gradient in enumerate(into):
        for column, value in enumerate(f.columns):
            if gradient is not None and value is not None and (row, column) != (ROW_A, CORRECTED):
                products[position(row, column)] = (gradient, value)
    return products


def _readable(coefficient: Tensor, value: Tensor) -> Tensor:
    """Return the value, and zero where it is not finite and was not read."""
    return torch.where((coefficient != 0) | value.isfinite(), value, 0)


def _per_sample(gradient: Tensor, value: Tensor, samples: int) -> Tensor:
    """Return float64 sums over each sample, or over everything when `samples` is 1."""
    product = gradient * value
    wide = product.dtype if product.device.type == "mps" else torch.float64
    sums = product.flatten(1).sum(1, dtype=wide) if product.dim() > 1 else product.to(wide)
    return sums.sum(0, keepdim=True) if samples == 1 else sums


def _at_step(value: Tensor, like: Tensor, step: Tensor) -> Tensor:
    at = step.reshape(1) if like.shape[0] > 1 else torch.zeros_like(step.reshape(1))
    return torch.zeros_like(like).index_copy(0, at, value[None].to(like.dtype))


def _coef_gradient(
    s: Step, products: Products, coef: Tensor, step: Tensor, elem_map: Tensor | None
) -> Tensor:
    samples = coef.shape[1]
    sums = [coef.new_zeros(samples)] * coef.shape[2]
    for where, (gradient, value) in products.items():
        sums[where] = _per_sample(gradient, _readable(s.coef[where], value), samples).to(coef.dtype)
    by_position = torch.stack(sums, 1)
    if elem_map is not None:
        by_position = torch.where(replaced_positions(elem_map)[0][: coef.shape[2]], 0, by_position)
    return _at_step(by_position, coef, step)


def _weight_gradient(s: Step, grad_o: Tensor, grad_jump: Tensor, weights: Tensor, step: Tensor) -> Tensor:
    samples = weights.shape[2]
    g = [_per_sample(grad_o, _readable(w, o), samples) for w, o in zip(s.g, s.outs, strict=True)]
    e = [_per_sample(grad_jump, _readable(w, o), samples) for w, o in zip(s.e, s.outs, strict=True)]
    return _at_step(torch.stack([torch.stack(g, 1), torch.stack(e, 1)]), weights, step)


def _element_gradient(
    products: Products,
    into: list[Tensor | None],
    x: Tensor,
    elem: Tensor,
    step: Tensor,
    elem_map: Tensor,
) -> Tensor:
    def reduced(full: Tensor) -> Tensor:
        total = full.sum(0)
        shape = (*[1] * (total.dim() - elem.dim() + 2), *elem.shape[2:])
        axes = [axis for axis, size in enumerate(shape) if size == 1 and total.shape[axis] != 1]
        return (total.sum(axes, keepdim=True) if axes else total).reshape(elem.shape[2:])

    by_position = [x.new_zeros(elem.shape[2:])] * (BIAS + N_ROWS)
    for where, (gradient, value) in products.items():
        by_position[where] = reduced(gradient * value)
    for row, row_gradient in enumerate(into):
        if row_gradient is not None:
            by_position[BIAS + row] = reduced(row_gradient)
    return _at_step(torch.stack(by_position).index_select(0, elem_map), elem, step)
