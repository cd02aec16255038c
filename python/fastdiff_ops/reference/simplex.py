"""The simplex grid in plain PyTorch: sort, walk along the simplex, gather (arXiv 2311.15439)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._encoding import Cells, Layout, Level, Numbers, cells_of, fma, hashed, rounded, to_table, to_x, value


def _numbered(vertices: Tensor, a: int, k: int) -> Tensor:
    """Return the entries of a dense level's vertices [..., n]: their class in Z^n / (a I + k 1 1^T) Z^n."""
    n, last = vertices.shape[-1], vertices[..., -1]
    digits = vertices[..., :-1] - last[..., None]
    turns = digits.div(a, rounding_mode="floor")
    index = (last - k * turns.sum(-1)) % (a + n * k)
    for i in reversed(range(n - 1)):
        index = index * a + (digits - a * turns)[..., i]
    return index


def _locate(x: Tensor, finite: Tensor, level: Level) -> Cells:
    n = x.shape[1]
    scale, skew = rounded(level.scale, x), rounded((math.sqrt(n + 1) - 1) / n, x)
    z = [fma(scale, x[:, i], rounded(shift, x)) for i, shift in enumerate(level.shift)]
    total = z[0]
    for part in z[1:]:
        total = total + part
    cell, place, valid = cells_of(torch.stack([fma(skew, total, part) for part in z], 1), finite)
    ordered, order = place.sort(dim=1, descending=True, stable=True)
    steps = torch.nn.functional.one_hot(order, n).cumsum(1)
    vertices = torch.cat([cell[:, None], cell[:, None] + steps], 1)
    local = _numbered(vertices, level.a, level.k) if level.dense else hashed(vertices, level.mask)

    def differences(falling: Tensor, first: Tensor) -> Tensor:
        return torch.cat([first, falling[:, :-1] - falling[:, 1:], falling[:, -1:]], 1)

    def slopes(u: Tensor) -> Tensor:
        moved = (scale * (u + skew * u.sum(1, keepdim=True))).gather(1, order)
        return differences(moved, -moved[:, :1])

    return Cells(local + level.first, differences(ordered, 1 - ordered[:, :1]), slopes, valid)


def simplex_encode(
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
    """Features [N, L F]; see `fastdiff_ops.ops.simplex_encode`."""
    return value(_locate, x, table, (scales, shifts, layout), bounds, max_level, out_dtype)


def simplex_encode_jvp(
    x: Tensor,
    table: Tensor,
    u: Tensor,
    scales: Numbers,
    shifts: Numbers,
    layout: Layout,
    bounds: int,
    max_level: int,
    deterministic: bool,
    out_dtype: torch.dtype | None,
) -> Tensor:
    """Derivative of the features along u [N, n], [N, L F]."""
    return value(_locate, x, table, (scales, shifts, layout), bounds, max_level, out_dtype, u)


def simplex_encode_vjp_x(
    x: Tensor,
    table: Tensor,
    grad: Tensor,
    scales: Numbers,
    shifts: Numbers,
    layout: Layout,
    bounds: int,
    max_level: int,
    deterministic: bool,
) -> Tensor:
    """Gradient of <grad, features> towards x, [N, n]."""
    return to_x(_locate, x, table, grad, (scales, shifts, layout), bounds, max_level)


def simplex_encode_vjp_table(
    x: Tensor,
    grad: Tensor,
    scales: Numbers,
    shifts: Numbers,
    layout: Layout,
    n_entries: int,
    bounds: int,
    max_level: int,
    deterministic: bool,
) -> Tensor:
    """Gradient of <grad, features> towards the table, [P, F]."""
    return to_table(_locate, x, grad, (scales, shifts, layout), n_entries, bounds, max_level)


def simplex_encode_vjp_table_u(
    x: Tensor,
    u: Tensor,
    grad: Tensor,
    scales: Numbers,
    shifts: Numbers,
    layout: Layout,
    n_entries: int,
    bounds: int,
    max_level: int,
    deterministic: bool,
) -> Tensor:
    """Gradient of <grad, derivative along u> towards the table, [P, F]."""
    return to_table(_locate, x, grad, (scales, shifts, layout), n_entries, bounds, max_level, u)
