"""The fused solver step: every row of a solver's table, applied in one pass over memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import reference
from .._coefficients import MAX_HISTORY, MAX_OUTPUTS, N_COEF
from .._load import load_ops
from ._registration import register_reference

load_ops()

CLIP_MODES = {"none": 0, "static": 1, "dynamic": 2}
ANCHOR_MODES = {"same": 0, "keep": 1, "row": 2}
MAX_DIMS, MAX_ELEMENTS = 10, 64
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_step = torch.ops.fastdiff_ops.solver_step.default
_step_ = torch.ops.fastdiff_ops.solver_step_.default


def solver_step(
    x: Tensor,
    outs: Sequence[Tensor],
    coef: Tensor,
    step: Tensor,
    *,
    anchor: Tensor | None = None,
    history: Tensor | None = None,
    weights: Tensor | None = None,
    elem: Tensor | None = None,
    elem_map: Tensor | None = None,
    clip_scale: Tensor | None = None,
    noise: Tensor | None = None,
    rng: Tensor | None = None,
    n_store: int = 0,
    clip_mode: str = "none",
    anchor_mode: str = "same",
) -> list[Tensor]:
    """Apply one row of a coefficient table in one pass; differentiable.

    With o = sum_k g_k outs_k, u = c_x x + c_o o and m = d_x x + d_u clip(u) + d_h history[newest], each
    result is a weighted sum of x, the anchor, m, noise and the stored values (`Row`); row A comes first and
    the others may use it. A zero coefficient contributes nothing, whatever its tensor holds.

    Parameters
    ----------
    x : Tensor [B, *S]
        State at which the model was evaluated; float16, bfloat16, float32 or float64.
    outs : sequence of 1 to 4 Tensors [B, *S]
        Raw model outputs of the guidance branches; they may be slices of one batched output.
    coef : float64 Tensor [E, 1 or B, 64]
        Coefficient table, from `pack_coef`.
    step : int64 Tensor []
        Which row of `coef` applies. It is read on the device: when it changes, nothing recompiles or
        synchronises.
    anchor : Tensor [B, *S], optional
        State from which the solver step started. Same dtype as `x`.
    history : Tensor [K, B, *S], optional
        Ring of K <= 8 stored values. Age j sits in slot (head - 1 - j) mod K, head = step n_store mod K.
    weights : float64 Tensor [1 or E, 2, 1 or B, len(outs)], optional
        Guidance weights: index 0 builds o, index 1 goes straight into x_next. Required for more than one
        output.
    elem : float32 or float64 Tensor [1 or E, n, *S'], optional
        Element coefficients, S' broadcastable to S.
    elem_map : int64 Tensor [n], optional
        Which position of the coefficient vector each of them replaces; 64 + r is an additive bias of row r.
    clip_scale : float32 or float64 Tensor [B], optional
        Scale of dynamic thresholding, from `abs_quantile`.
    noise : Tensor [B, *S], optional
        Standard normals. When absent and a row asks for noise, they are drawn in the kernel from `rng`.
    rng : int64 Tensor [2] or [B, 3], optional
        (seed, offset) or, per sample, (seed, offset, sample id). The draw number is offset + step.
    n_store : {0, 1, 2}
        How many rows (S0, S1) are pushed into the history.
    clip_mode : {"none", "static", "dynamic"}
        Thresholding of u: none, clamp(u, -bound, bound), or clamp(u, -s, s) / s.
    anchor_mode : {"same", "keep", "row"}
        Whether the next anchor is x_next, stays, or is row A.

    Returns
    -------
    list of 4 Tensors
        x_next, the new anchor, S0 and S1; those not asked for have size 0.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, dtype or device.

    Notes
    -----
    float32 accumulation, float64 if `x` or `history` is float64; the terms of a row are accumulated with fma
    in a fixed order, so results do not depend on device, SIMD level or thread count.

    Examples
    --------
    One Euler step of dx/dt = v from t = 1 to t = 0.9:

    >>> import torch
    >>> from fastdiff_ops import ops
    >>> rows = ops.Row(state=1.0, output=-0.1).to_array().reshape(1, 1, 13).repeat(4, axis=1)
    >>> rows[:, 1:] = 0
    >>> coef = torch.from_numpy(ops.pack_coef(rows, [[0.0, 1.0]]))
    >>> x, v = torch.ones(1, 3), torch.full((1, 3), 2.0)
    >>> ops.solver_step(x, [v], coef, torch.tensor(0))[0]
    tensor([[0.8000, 0.8000, 0.8000]])
    """
    _check(x, outs, coef, step, anchor, history, weights, elem, elem_map, clip_scale, noise, rng)
    _check_modes(n_store, clip_mode, anchor_mode, clip_scale)
    arguments = (x, list(outs), anchor, history, coef, step, weights, elem, elem_map, clip_scale, noise, rng)
    results: list[Tensor] = _step(*arguments, n_store, CLIP_MODES[clip_mode], ANCHOR_MODES[anchor_mode])
    return results


def solver_step_(
    x: Tensor,
    outs: Sequence[Tensor],
    x_out: Tensor,
    coef: Tensor,
    step: Tensor,
    *,
    anchor: Tensor | None = None,
    history: Tensor | None = None,
    model_in: Tensor | None = None,
    weights: Tensor | None = None,
    elem: Tensor | None = None,
    elem_map: Tensor | None = None,
    clip_scale: Tensor | None = None,
    noise: Tensor | None = None,
    rng: Tensor | None = None,
    n_store: int = 0,
    clip_mode: str = "none",
    anchor_mode: str = "same",
) -> None:
    """Apply one row of a coefficient table in place: no allocation, the history ring advances by itself.

    Arguments are those of `solver_step`, and:

    Parameters
    ----------
    x_out : Tensor [B, *S]
        Receives x_next; dtype and memory order of `x`; must not overlap an input.
    anchor : Tensor [B, *S], optional
        Receives row A when `anchor_mode` is "row".
    history : Tensor [K, B, *S], optional
        Receives rows S0 and S1 in slots head and head + 1; a row without coefficients leaves its slot alone.
    model_in : Tensor [R B, *S], optional
        Receives R copies of c_in x_next in the dtype of the model's outputs: the next network input.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, dtype, memory order or device.
    RuntimeError
        If gradients are being recorded and an argument requires one: use `solver_step`.

    Examples
    --------
    >>> import torch
    >>> from fastdiff_ops import ops
    >>> rows = ops.Row(state=1.0, output=-0.1).to_array().reshape(1, 1, 13).repeat(4, axis=1)
    >>> rows[:, 1:] = 0
    >>> coef = torch.from_numpy(ops.pack_coef(rows, [[0.0, 1.0]]))
    >>> x, v, x_out = torch.ones(1, 3), torch.full((1, 3), 2.0), torch.empty(1, 3)
    >>> ops.solver_step_(x, [v], x_out, coef, torch.tensor(0))
    >>> x_out
    tensor([[0.8000, 0.8000, 0.8000]])
    """
    _check(x, outs, coef, step, anchor, history, weights, elem, elem_map, clip_scale, noise, rng)
    _check_modes(n_store, clip_mode, anchor_mode, clip_scale)
    _check_like("x_out", x_out, x)
    if model_in is not None:
        _check_model_in(model_in, x, outs[0])
    if anchor_mode == "row" and anchor is None:
        raise ValueError('`anchor` must be given when `anchor_mode` is "row"')
    if n_store and (history is None or history.shape[0] % n_store):
        got = None if history is None else history.shape[0]
        raise ValueError(f"`history` must have a multiple of `n_store` = {n_store} slots, got {got}")
    tensors = (x, *outs, x_out, anchor, history, model_in, weights, coef, elem, noise)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        raise RuntimeError("solver_step_ writes in place and has no gradient: use solver_step")
    arguments = (x, list(outs), x_out, anchor, history, model_in, coef, step, weights, elem, elem_map)
    modes = (n_store, CLIP_MODES[clip_mode], ANCHOR_MODES[anchor_mode])
    _step_(*arguments, clip_scale, noise, rng, *modes)


def _check(
    x: Tensor,
    outs: Sequence[Tensor],
    coef: Tensor,
    step: Tensor,
    anchor: Tensor | None,
    history: Tensor | None,
    weights: Tensor | None,
    elem: Tensor | None,
    elem_map: Tensor | None,
    clip_scale: Tensor | None,
    noise: Tensor | None,
    rng: Tensor | None,
) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"`x` must be a Tensor, got {type(x).__name__}")
    if x.dtype not in DTYPES:
        raise TypeError(f"`x` must be float16, bfloat16, float32 or float64, got {x.dtype}")
    if not 1 <= x.dim() <= MAX_DIMS:
        raise ValueError(f"`x` must have 1 to {MAX_DIMS} axes [B, *S], got {x.dim()}")
    if not isinstance(outs, (list, tuple)):
        raise TypeError(f"`outs` must be a list or tuple of tensors, got {type(outs).__name__}")
    if not 1 <= len(outs) <= MAX_OUTPUTS:
        raise ValueError(f"`outs` must hold 1 to {MAX_OUTPUTS} tensors, got {len(outs)}")
    batch, n_outs = x.shape[0], len(outs)
    for k, out in enumerate(outs):
        _check_tensor(f"outs[{k}]", out, x, shape=x.shape, dtypes=(outs[0].dtype,) if k else DTYPES)
    numbers = torch.float32 if x.is_mps else torch.float64  # that device has no float64
    _check_tensor("coef", coef, x, dtypes=(numbers,))
    if coef.dim() != 3 or coef.shape[1] not in (1, batch) or coef.shape[2] != N_COEF:
        raise ValueError(f"`coef` must have shape [E, 1 or {batch}, {N_COEF}], got {tuple(coef.shape)}")
    _check_tensor("step", step, x, shape=(), dtypes=(torch.int64,))
    if anchor is not None:
        _check_like("anchor", anchor, x)
    if history is not None:
        _check_tensor("history", history, x, dtypes=DTYPES)
        if history.shape[1:] != x.shape or not 1 <= history.shape[0] <= MAX_HISTORY:
            wanted = f"[K, {', '.join(map(str, x.shape))}] with 1 <= K <= {MAX_HISTORY}"
            raise ValueError(f"`history` must have shape {wanted}, got {tuple(history.shape)}")
    if weights is None:
        if n_outs > 1:
            raise ValueError(f"`weights` must be given for {n_outs} outputs")
    else:
        _check_tensor("weights", weights, x, dtypes=(numbers,))
        shape = tuple(weights.shape)
        steps, samples = (1, coef.shape[0]), (1, batch)
        good = len(shape) == 4 and shape[0] in steps and shape[2] in samples
        if not good or (shape[1], shape[3]) != (2, n_outs):
            wanted = f"[1 or {coef.shape[0]}, 2, 1 or {batch}, {n_outs}]"
            raise ValueError(f"`weights` must have shape {wanted}, got {shape}")
    if (elem is None) != (elem_map is None):
        raise ValueError("`elem` and `elem_map` go together")
    if elem is not None and elem_map is not None:
        _check_elements(elem, elem_map, x, coef)
    if clip_scale is not None:
        _check_tensor("clip_scale", clip_scale, x, shape=(batch,), dtypes=(torch.float32, torch.float64))
    if noise is not None:
        _check_tensor("noise", noise, x, shape=x.shape, dtypes=DTYPES)
    if rng is not None:
        _check_tensor("rng", rng, x, dtypes=(torch.int64,))
        if tuple(rng.shape) not in ((2,), (batch, 3)):
            raise ValueError(f"`rng` must have shape [2] or [{batch}, 3], got {tuple(rng.shape)}")


def _check_tensor(
    name: str,
    value: Tensor,
    x: Tensor,
    *,
    shape: Sequence[int] | None = None,
    dtypes: Sequence[torch.dtype] = (),
) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a Tensor, got {type(value).__name__}")
    if value.device != x.device:
        raise ValueError(f"`{name}` must be on the device of `x`, {x.device}, got {value.device}")
    if dtypes and value.dtype not in dtypes:
        raise TypeError(f"`{name}` must be {' or '.join(map(str, dtypes))}, got {value.dtype}")
    if shape is not None and value.shape != torch.Size(shape):
        raise ValueError(f"`{name}` must have shape {tuple(shape)}, got {tuple(value.shape)}")


def _check_like(name: str, value: Tensor, x: Tensor) -> None:
    _check_tensor(name, value, x, shape=x.shape, dtypes=(x.dtype,))


def _check_elements(elem: Tensor, elem_map: Tensor, x: Tensor, coef: Tensor) -> None:
    _check_tensor("elem", elem, x, dtypes=(torch.float32, torch.float64))
    _check_tensor("elem_map", elem_map, x, dtypes=(torch.int64,))
    sample, tail = x.shape[1:], elem.shape[2:]
    fits = elem.dim() >= 2 and len(tail) <= len(sample)
    fits = fits and all(a in (1, b) for a, b in zip(reversed(tail), reversed(sample), strict=False))
    if not fits or elem.shape[0] not in (1, coef.shape[0]) or elem.shape[1] > MAX_ELEMENTS:
        wanted = f"[1 or {coef.shape[0]}, n <= {MAX_ELEMENTS}, *S'] with S' broadcastable to {tuple(sample)}"
        raise ValueError(f"`elem` must have shape {wanted}, got {tuple(elem.shape)}")
    if elem_map.shape != (elem.shape[1],):
        raise ValueError(f"`elem_map` must have shape ({elem.shape[1]},), got {tuple(elem_map.shape)}")


def _check_model_in(model_in: Tensor, x: Tensor, out: Tensor) -> None:
    _check_tensor("model_in", model_in, x, dtypes=(out.dtype,))
    batch = x.shape[0]
    fits = model_in.dim() == x.dim() and model_in.shape[1:] == x.shape[1:]
    if not fits or model_in.shape[0] % max(batch, 1) or model_in.shape[0] < batch:
        wanted = f"[R * {batch}, {', '.join(map(str, x.shape[1:]))}]"
        raise ValueError(f"`model_in` must have shape {wanted}, got {tuple(model_in.shape)}")


def _check_modes(n_store: int, clip_mode: str, anchor_mode: str, clip_scale: Tensor | None) -> None:
    if n_store not in (0, 1, 2):
        raise ValueError(f"`n_store` must be 0, 1 or 2, got {n_store!r}")
    if clip_mode not in CLIP_MODES:
        raise ValueError(f"`clip_mode` must be one of {', '.join(CLIP_MODES)}, got {clip_mode!r}")
    if anchor_mode not in ANCHOR_MODES:
        raise ValueError(f"`anchor_mode` must be one of {', '.join(ANCHOR_MODES)}, got {anchor_mode!r}")
    if clip_mode == "dynamic" and clip_scale is None:
        raise ValueError('`clip_scale` must be given when `clip_mode` is "dynamic"')


def _dense_like(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an empty tensor in the order that the kernels write: channels-last if x is, else contiguous."""
    memory_format = torch.contiguous_format
    if not x.is_contiguous():
        for dims, candidate in ((4, torch.channels_last), (5, torch.channels_last_3d)):
            if x.dim() == dims and x.is_contiguous(memory_format=candidate):
                memory_format = candidate
    return torch.empty_like(x, dtype=dtype, memory_format=memory_format)


@torch.library.register_fake("fastdiff_ops::solver_step")
def _(
    x: Tensor,
    outs: list[Tensor],
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
) -> list[Tensor]:
    stored = x.dtype if history is None else history.dtype
    return [
        _dense_like(x, x.dtype),
        _dense_like(x, x.dtype) if anchor_mode == ANCHOR_MODES["row"] else x.new_empty(0),
        _dense_like(x, stored) if n_store >= 1 else x.new_empty(0, dtype=stored),
        _dense_like(x, stored) if n_store >= 2 else x.new_empty(0, dtype=stored),
    ]


@torch.library.register_fake("fastdiff_ops::solver_step_")
def _(*arguments: Any) -> None:
    return None


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, outs, anchor, history, coef, step, weights, elem, elem_map, clip_scale, noise, rng, *modes = inputs
    ctx.save_for_backward(
        x, anchor, history, coef, step, weights, elem, elem_map, clip_scale, noise, rng, *outs
    )
    ctx.modes = tuple(modes)


def _normals(size: Sequence[int], rng: Tensor, dtype: torch.dtype) -> Tensor:
    noise: Tensor = torch.ops.fastdiff_ops.random_normal.default(size, rng, dtype)
    return noise


_ARGUMENTS = ("x", "outs", "anchor", "history", "coef", "step", "weights", "elem", "elem_map", "clip_scale")


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    x, anchor, history, coef, step, weights, elem, elem_map, clip_scale, noise, rng, *outs = ctx.saved_tensors
    inputs = (x, outs, anchor, history, coef, step, weights, elem, elem_map, clip_scale, noise, rng)
    asked = zip((*_ARGUMENTS, "noise"), ctx.needs_input_grad, strict=False)
    needs = {name for name, need in asked if (any(need) if isinstance(need, (list, tuple)) else need)}
    modes: tuple[int, int, int] = ctx.modes
    found = reference.solver_step_backward(needs, grads, *inputs, *modes, _normals)
    found.setdefault("outs", [None] * len(outs))
    return (*(found.get(name) for name in (*_ARGUMENTS, "noise")), None, None, None, None)


torch.library.register_autograd("fastdiff_ops::solver_step", _backward, setup_context=_setup_context)
register_reference("solver_step", reference.solver_step)
register_reference("solver_step_", reference.solver_step_)
