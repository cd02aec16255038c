"""The cubic grid in plain PyTorch: 2^n corners, multilinear weights (Instant-NGP, arXiv 2201.05989)."""

from __future__ import annotations

import torch
from torch import Tensor

from ._encoding import (
    Cells,
    Layout,
    Level,
    Numbers,
    accumulation,
    cells_of,
    fma,
    hashed,
    levels_of,
    locate_all,
    rounded,
    to_table,
    to_x,
    value,
)


def _numbered(vertices: Tensor, level: Level) -> Tensor:
    """Return the entries of a dense level's vertices [..., n]: strides 1, a, a^2, ..; the end wraps."""
    index = vertices[..., 0]
    for i in range(1, vertices.shape[-1]):
        index = index + vertices[..., i] * level.a**i
    return torch.where(index >= level.size, index - level.size, index)


class _Corners:
    """A cell's corners: which side each is on along each axis, and their weights' factors."""

    def __init__(self, place: Tensor) -> None:
        n = place.shape[1]
        k = torch.arange(1 << n, device=place.device)
        self.bits = torch.stack([k >> i & 1 for i in range(n)], 1)
        self.signs = (2 * self.bits - 1).to(place.dtype)
        self.factors = torch.where(self.bits.bool(), place[:, None], 1 - place[:, None])

    def product(self, *without: int) -> Tensor:
        """Return the product of the factors, with signs instead of them along the axes `without`."""
        result = torch.ones_like(self.factors[..., 0])
        for i in range(self.factors.shape[2]):
            result = result * (self.signs[:, i] if i in without else self.factors[..., i])
        return result


def _corners_of(x: Tensor, finite: Tensor, level: Level) -> tuple[Tensor, Tensor, _Corners]:
    """Return the first corner of each point's cell, whether there is one, and the corners."""
    scale = rounded(level.scale, x)
    z = [fma(scale, x[:, i], rounded(shift, x)) for i, shift in enumerate(level.shift)]
    cell, place, valid = cells_of(torch.stack(z, 1), finite)
    return cell, valid, _Corners(place)


def _locate(x: Tensor, finite: Tensor, level: Level) -> Cells:
    cell, valid, corners = _corners_of(x, finite, level)
    vertices = cell[:, None] + corners.bits
    if level.dense:
        local = _numbered(vertices % level.a if level.periodic else vertices, level)
    else:
        local = hashed(vertices, level.mask)

    def slopes(u: Tensor) -> Tensor:
        parts = [u[:, i, None] * corners.product(i) for i in range(u.shape[1])]
        return rounded(level.scale, x) * torch.stack(parts).sum(0)

    return Cells(local + level.first, corners.product(), slopes, valid)


def grid_encode(
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
    """Features [N, L F]; see `fastdiff_ops.ops.grid_encode`."""
    return value(_locate, x, table, (scales, shifts, layout), bounds, max_level, out_dtype)


def grid_encode_jvp(
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


def grid_encode_vjp_x(
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


def grid_encode_vjp_table(
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


def grid_encode_vjp_table_u(
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


def grid_encode_vjp_xx(
    x: Tensor,
    table: Tensor,
    u: Tensor,
    grad: Tensor,
    scales: Numbers,
    shifts: Numbers,
    layout: Layout,
    bounds: int,
    max_level: int,
    deterministic: bool,
) -> Tensor:
    """Gradient towards x of <grad, derivative along u>, [N, n]; differentiable in every tensor."""
    dtype = accumulation(x, table)
    lists, n, features = (scales, shifts, layout), x.shape[1], table.shape[1]
    at, along, rows = x.to(dtype), u.to(dtype), table.to(dtype)
    cells, inside = locate_all(_locate, at, lists, bounds, max_level)
    along = torch.where(inside, along, 0.0)
    bounded, finite = at if bounds else at.clamp(0, 1), (at - at == 0).all(1)
    total = [torch.zeros_like(at[:, 0]) for _ in range(n)]
    for i, (cell, level) in enumerate(zip(cells, levels_of(lists, n, bounds), strict=False)):
        upstream = grad[:, i * features : (i + 1) * features].to(dtype)
        products = (rows[cell.entries] * upstream[:, None]).sum(2)
        corners = _corners_of(bounded, finite, level)[2]
        for a in range(n):
            for b in range(a):
                mixed = rounded(level.scale, at) ** 2 * (products * corners.product(a, b)).sum(1)
                total[a] = total[a] + mixed * along[:, b]
                total[b] = total[b] + mixed * along[:, a]
    missing = ~torch.stack([cell.valid for cell in cells], 1).all(1) if cells else ~finite
    result = torch.where(inside, torch.stack(total, 1), 0.0)
    return torch.where(missing[:, None], float("nan"), result).to(x.dtype)
