"""The five operators of an encoding in gather form, given where a lattice puts a point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PRIMES = (1, 2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737, 1958374283)
_FAR = 2.0**30  # beyond it the kernels' cell numbers overflow


class Level(NamedTuple):
    """One level as the kernels have it: `layout`'s six numbers, scale and shifts."""

    scale: float
    shift: tuple[float, ...]
    first: int
    size: int
    dense: bool
    a: int
    k: int
    mask: int
    periodic: bool


class Cells(NamedTuple):
    """Where points lie on a level."""

    entries: Tensor
    """int64 [N, K]: rows of the table."""
    weights: Tensor
    """[N, K], differentiable in x; NaN where `valid` is not."""
    slopes: Callable[[Tensor], Tensor]
    """u [N, n] -> the derivative of the weights along u, [N, K]."""
    valid: Tensor
    """bool [N]"""


# (x inside the bounds [N, n], whether it is finite [N], level) -> Cells
Locate = Callable[[Tensor, Tensor, Level], Cells]
Numbers = Sequence[float]
Layout = Sequence[int]
Lists = tuple[Numbers, Numbers, Layout]


def levels_of(lists: Lists, n: int, bounds: int) -> list[Level]:
    """Take the operators' lists apart."""
    scales, shifts, layout = lists
    return [
        Level(scale, tuple(shifts[i * n : i * n + n]), first, size, bool(dense), a, k, mask, bool(bounds))
        for i, scale in enumerate(scales)
        for first, size, dense, a, k, mask in [layout[6 * i : 6 * i + 6]]
    ]


def fma(a: Tensor | float, b: Tensor, c: Tensor | float) -> Tensor:
    """Return a b + c, rounded once (as kernels do) where the device can."""
    if b.dtype == torch.float64 or b.is_mps:
        return a * b + c
    a, c = (v.double() if isinstance(v, Tensor) else v for v in (a, c))
    return (a * b.double() + c).to(b.dtype)


def rounded(value: float, like: Tensor) -> float:
    """Return a host number as `like`'s dtype has it."""
    return float(torch.tensor(value, dtype=like.dtype))


def cells_of(y: Tensor, finite: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return cell (int64), place in it and validity of lattice coordinates [N, n]."""
    valid = finite & ((y > -_FAR) & (y < _FAR)).all(1)
    whole = torch.where(valid[:, None], y, 0.0).floor().detach()
    return whole.long(), y - whole, valid


def hashed(vertices: Tensor, mask: int) -> Tensor:
    """Hash int64 vertices [..., n] as unsigned 32-bit products, combined by xor."""
    parts = [(vertices[..., i] * PRIMES[i]) & 0xFFFFFFFF for i in range(vertices.shape[-1])]
    total = parts[0]
    for part in parts[1:]:
        total = total ^ part
    return total & mask


def value(
    locate: Locate,
    x: Tensor,
    table: Tensor,
    lists: Lists,
    bounds: int,
    max_level: int,
    out_dtype: torch.dtype | None,
    u: Tensor | None = None,
) -> Tensor:
    """Return the features [N, L F], or with `u` their derivative along u; differentiable."""
    dtype = accumulation(x, table)
    cells, inside = locate_all(locate, x.to(dtype), lists, bounds, max_level)
    rows, parts = table.to(dtype), [x.new_empty(x.shape[0], 0, dtype=dtype)]
    for cell in cells:
        weights = cell.weights if u is None else cell.slopes(torch.where(inside, u.to(dtype), 0.0))
        weights = torch.where(cell.valid[:, None], weights, 0.0)
        total = (weights[..., None] * rows[cell.entries]).sum(1)
        parts.append(torch.where(cell.valid[:, None], total, float("nan")))
    unused = x.new_zeros(x.shape[0], (len(lists[0]) - len(cells)) * table.shape[1], dtype=dtype)
    return torch.cat([*parts, unused], 1).to(out_dtype or table.dtype)


def to_x(
    locate: Locate, x: Tensor, table: Tensor, grad: Tensor, lists: Lists, bounds: int, max_level: int
) -> Tensor:
    """Return the gradient towards x of <grad, features>, [N, n]."""
    dtype = accumulation(x, table)
    cells, inside = locate_all(locate, x.to(dtype), lists, bounds, max_level)
    rows, features = table.to(dtype), table.shape[1]
    total = torch.zeros_like(x, dtype=dtype)
    axes = torch.eye(x.shape[1], dtype=dtype, device=x.device)
    for level, cell in enumerate(cells):
        upstream = grad[:, level * features : (level + 1) * features].to(dtype)
        products = (rows[cell.entries] * upstream[:, None]).sum(2)
        slopes = torch.stack([cell.slopes(axis.expand_as(x)) for axis in axes], 1)
        slopes = (slopes * products[:, None]).sum(2)
        total = total + torch.where(cell.valid[:, None], slopes, float("nan"))
    finite = (x - x == 0).all(1, keepdim=True)
    return torch.where(inside | ~finite, total, 0.0).to(x.dtype)


def to_table(
    locate: Locate,
    x: Tensor,
    grad: Tensor,
    lists: Lists,
    n_entries: int,
    bounds: int,
    max_level: int,
    u: Tensor | None = None,
) -> Tensor:
    """Return the gradient towards the table of <grad, features>, or of their derivative along u: [P, F]."""
    dtype = accumulation(x, grad)
    cells, inside = locate_all(locate, x.to(dtype), lists, bounds, max_level)
    features = grad.shape[1] // len(lists[0])
    total = x.new_zeros(n_entries, features, dtype=dtype)
    for level, cell in enumerate(cells):
        upstream = grad[:, level * features : (level + 1) * features].to(dtype)
        weights = cell.weights if u is None else cell.slopes(torch.where(inside, u.to(dtype), 0.0))
        parts = torch.where(cell.valid[:, None, None], weights[..., None] * upstream[:, None], 0.0)
        total = total.index_add(0, cell.entries.flatten(), parts.flatten(0, 1))
    return total


def accumulation(*tensors: Tensor) -> torch.dtype:
    """Return the dtype in which kernels add."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def locate_all(
    locate: Locate, x: Tensor, lists: Lists, bounds: int, max_level: int
) -> tuple[list[Cells], Tensor]:
    """Return the cells on every level in use, and where bounds let x move, bool [N, n]."""
    inside = torch.ones_like(x, dtype=torch.bool) if bounds else ~((x < 0) | (x > 1))
    finite = (x - x == 0).all(1)
    bounded = x if bounds else x.clamp(0, 1)
    return [
        locate(bounded, finite, level) for level in levels_of(lists, x.shape[1], bounds)[:max_level]
    ], inside
