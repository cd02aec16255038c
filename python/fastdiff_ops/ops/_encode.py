"""What both encodings share: checks of a call, fakes, and derivatives among the five operators of a lattice.

With E the features, V their gradient towards x, J their derivative along u, S and S' the gradients of E and J
towards the table, differentiating any of them gives others of them, so every order exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ._levels import Levels, check_choice, check_int
from ._registration import register_reference

BOUNDS = {"clamp": 0, "extend": 1}
FEATURES = (1, 2, 4, 8)
POINT_DTYPES = (torch.float32, torch.float64)
TABLE_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# d/dx of <u, V(x, table, grad)>; None where it vanishes
SecondDerivative = Callable[..., Tensor] | None


def encode(
    operator: Callable[..., Tensor],
    kind: type[Levels],
    x: Tensor,
    table: Tensor,
    levels: Levels,
    bounds: str,
    out_dtype: torch.dtype | None,
    max_level: int | None,
    deterministic: bool | None,
) -> Tensor:
    """Check the arguments of a wrapper and call its operator."""
    _check(kind, x, table, levels)
    check_choice("bounds", bounds, tuple(BOUNDS))
    if out_dtype is not None and out_dtype not in TABLE_DTYPES:
        raise TypeError(f"`out_dtype` must be float16, bfloat16, float32 or float64, got {out_dtype}")
    if max_level is None:
        max_level = levels.n_levels
    else:
        check_int("max_level", max_level, 0, levels.n_levels)
    if deterministic is None:
        deterministic = torch.are_deterministic_algorithms_enabled()
    elif not isinstance(deterministic, bool):
        raise TypeError(f"`deterministic` must be a bool or None, got {type(deterministic).__name__}")
    if out_dtype is None and table.dtype != torch.float64:
        out_dtype = autocast_dtype(x.device)
    lists = (levels.scales, levels.shifts, levels.layout)
    return operator(x, table, *lists, BOUNDS[bounds], max_level, deterministic, out_dtype)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the dtype to which autocast takes results on a device, None where it is off."""
    kind = device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def _check(kind: type[Levels], x: Tensor, table: Tensor, levels: Levels) -> None:
    if not isinstance(levels, kind):
        raise TypeError(f"`levels` must be {kind.__name__}, got {type(levels).__name__}")
    for name, value in (("x", x), ("table", table)):
        if not isinstance(value, Tensor):
            raise TypeError(f"`{name}` must be a Tensor, got {type(value).__name__}")
    if x.dtype not in POINT_DTYPES:
        raise TypeError(
            f"`x` must be float32 or float64 (fewer digits cannot hold a fine level), got {x.dtype}"
        )
    if table.dtype not in TABLE_DTYPES:
        raise TypeError(f"`table` must be float16, bfloat16, float32 or float64, got {table.dtype}")
    if x.dim() != 2 or x.shape[1] != levels.n:
        raise ValueError(f"`x` must have shape [N, {levels.n}], got {tuple(x.shape)}")
    if table.dim() != 2 or table.shape[0] != levels.n_entries or table.shape[1] not in FEATURES:
        wanted = f"[{levels.n_entries}, 1, 2, 4 or 8]"
        raise ValueError(f"`table` must have shape {wanted}, got {tuple(table.shape)}")
    if table.device != x.device:
        raise ValueError(f"`table` must be on the device of `x`, {x.device}, got {table.device}")


def _save(ctx: Any, inputs: tuple[Any, ...], tensors: int, entries: int | None) -> None:
    """Keep what a backward pass needs: tensors, the level lists, and the three switches."""
    ctx.save_for_backward(*inputs[:tensors])
    ctx.lists = tuple(inputs[tensors : tensors + 3])
    rest = inputs[tensors + 3 :]
    if entries is None:
        ctx.entries, ctx.switches = inputs[1].shape[0], tuple(rest[:3])
    else:
        ctx.entries, ctx.switches = rest[0], tuple(rest[1:4])


def register_family(
    name: str, reference: dict[str, Callable[..., Any]], second_derivative: SecondDerivative
) -> Callable[..., Tensor]:
    """Register fakes, gradients and references of a lattice's five operators; return the first.

    Parameters
    ----------
    name : "simplex_encode" or "grid_encode"
    reference : the plain functions, by operator name
    second_derivative : (x, table, u, grad, *level lists, bounds, max_level, deterministic) -> [N, n]
    """
    family = torch.ops.fastdiff_ops
    value: Callable[..., Tensor] = getattr(family, name).default
    along: Callable[..., Tensor] = getattr(family, f"{name}_jvp").default
    to_x: Callable[..., Tensor] = getattr(family, f"{name}_vjp_x").default
    to_table: Callable[..., Tensor] = getattr(family, f"{name}_vjp_table").default
    to_table_along: Callable[..., Tensor] = getattr(family, f"{name}_vjp_table_u").default

    def curve(ctx: Any, x: Tensor, table: Tensor, u: Tensor, grad: Tensor) -> Tensor:
        if second_derivative is None:
            return torch.zeros_like(x)
        return second_derivative(x, table, u, grad, *ctx.lists, *ctx.switches)

    def into(ctx: Any, x: Tensor, grad: Tensor, table: Tensor) -> Tensor:
        return to_table(x, grad, *ctx.lists, ctx.entries, *ctx.switches).to(table.dtype)

    def into_along(ctx: Any, x: Tensor, u: Tensor, grad: Tensor, table: Tensor) -> Tensor:
        return to_table_along(x, u, grad, *ctx.lists, ctx.entries, *ctx.switches).to(table.dtype)

    def value_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, table = ctx.saved_tensors
        need = ctx.needs_input_grad
        dx = to_x(x, table, grad, *ctx.lists, *ctx.switches) if need[0] else None
        return dx, into(ctx, x, grad, table) if need[1] else None, *[None] * 7

    def to_x_backward(ctx: Any, u: Tensor) -> tuple[Any, ...]:
        x, table, grad = ctx.saved_tensors
        need = ctx.needs_input_grad
        dx = curve(ctx, x, table, u, grad) if need[0] else None
        dtable = into_along(ctx, x, u, grad, table) if need[1] else None
        dgrad = along(x, table, u, *ctx.lists, *ctx.switches, grad.dtype) if need[2] else None
        return dx, dtable, dgrad, *[None] * 6

    def along_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, table, u = ctx.saved_tensors
        need = ctx.needs_input_grad
        dx = curve(ctx, x, table, u, grad) if need[0] else None
        dtable = into_along(ctx, x, u, grad, table) if need[1] else None
        du = to_x(x, table, grad, *ctx.lists, *ctx.switches).to(u.dtype) if need[2] else None
        return dx, dtable, du, *[None] * 7

    def to_table_backward(ctx: Any, table: Tensor) -> tuple[Any, ...]:
        x, grad = ctx.saved_tensors
        need = ctx.needs_input_grad
        dx = to_x(x, table, grad, *ctx.lists, *ctx.switches) if need[0] else None
        dgrad = value(x, table, *ctx.lists, *ctx.switches, grad.dtype) if need[1] else None
        return dx, dgrad, *[None] * 7

    def to_table_along_backward(ctx: Any, table: Tensor) -> tuple[Any, ...]:
        x, u, grad = ctx.saved_tensors
        need = ctx.needs_input_grad
        dx = curve(ctx, x, table, u, grad) if need[0] else None
        du = to_x(x, table, grad, *ctx.lists, *ctx.switches).to(u.dtype) if need[1] else None
        dgrad = along(x, table, u, *ctx.lists, *ctx.switches, grad.dtype) if need[2] else None
        return dx, du, dgrad, *[None] * 7

    def setup(tensors: int, with_table: bool) -> Callable[..., None]:
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            _save(ctx, inputs, tensors, None if with_table else tensors)

        return setup_context

    for suffix, fake, backward, tensors, with_table in (
        ("", _fake_value, value_backward, 2, True),
        ("_jvp", _fake_along, along_backward, 3, True),
        ("_vjp_x", _fake_to_x, to_x_backward, 3, True),
        ("_vjp_table", _fake_to_table, to_table_backward, 2, False),
        ("_vjp_table_u", _fake_to_table_along, to_table_along_backward, 3, False),
    ):
        operator = f"fastdiff_ops::{name}{suffix}"
        torch.library.register_fake(operator, fake)
        torch.library.register_autograd(operator, backward, setup_context=setup(tensors, with_table))
        register_reference(f"{name}{suffix}", reference[f"{name}{suffix}"])
    return value


Numbers = Sequence[float]
Layout = Sequence[int]


def _fake_value(
    x: Tensor,
    table: Tensor,
    scales: Numbers,
    shifts: Numbers,
    layout: Layout,
    bounds: int,
    max_level: int,
    deterministic: bool,
    out_dtype: torch.dtype | None,
) -> Tensor:
    return x.new_empty(x.shape[0], len(scales) * table.shape[1], dtype=out_dtype or table.dtype)


def _fake_along(x: Tensor, table: Tensor, u: Tensor, scales: Numbers, *rest: Any) -> Tensor:
    return _fake_value(x, table, scales, *rest)


def _fake_to_x(x: Tensor, table: Tensor, grad: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


def _fake_to_table(
    x: Tensor, grad: Tensor, scales: Numbers, shifts: Numbers, layout: Layout, n_entries: int, *rest: Any
) -> Tensor:
    wide = torch.float64 in (x.dtype, grad.dtype)
    dtype = torch.float64 if wide else torch.float32
    return x.new_empty(n_entries, grad.shape[1] // len(scales), dtype=dtype)


def _fake_to_table_along(x: Tensor, u: Tensor, grad: Tensor, *rest: Any) -> Tensor:
    return _fake_to_table(x, grad, *rest)
