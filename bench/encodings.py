"""The competitors of the encodings: our two grids, and the same in plain torch as projects write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from fastdiff_ops import ops
from fastdiff_ops.ops import GridLevels, SimplexLevels
from torch import Tensor

from .interleave import Competitor

FORWARD, BOTH = "forward", "forward + backward"
SIMPLEX, CUBIC, GATHER = "simplex", "cubic", "embedding alone"
TORCH, COMPILED = "torch", "torch.compile"
PRIMES = (1, 2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737, 1958374283)
LEVELS, LOG2_ENTRIES, BASE, FINEST = 16, 19, 16, 2048
NOTES = {
    SIMPLEX: "`ops.simplex_encode`, checked, 16 levels, float32, two features; backward to the table",
    CUBIC: "`ops.grid_encode`: the same code with 2^n corners",
    f"{SIMPLEX}, {TORCH}": "skew, sort, one_hot, F.embedding, a loop over the levels",
    f"{CUBIC}, {TORCH}": "all corners at once, F.embedding, a loop over the levels",
    GATHER: "F.embedding of as many random entries as the simplex grid reads, indices given",
}


@dataclass(frozen=True)
class Job:
    """Random points in `n` dimensions."""

    n: int
    points: int
    device: str = "cpu"

    @property
    def growth(self) -> float:
        """From level to level."""
        return float((FINEST / BASE) ** (1 / (LEVELS - 1)))

    def levels(self, lattice: str) -> Any:
        """The grid of the comparison: base 16, finest 2048, 2^19 entries a level."""
        kind = SimplexLevels if lattice == SIMPLEX else GridLevels
        return kind(self.n, LEVELS, LOG2_ENTRIES, BASE, self.growth)


def simplex_level(
    x: Tensor, table: Tensor, numbers: Tensor, shift: Tensor, ints: Tensor, dense: bool
) -> Tensor:
    """Features of one level of the simplex grid."""
    n = x.shape[1]
    z = numbers[0] * x + shift
    y = z + ((n + 1) ** 0.5 - 1) / n * z.sum(1, keepdim=True)
    cell = y.floor()
    place, order = (y - cell).sort(dim=1, descending=True)
    steps = torch.nn.functional.one_hot(order, n).cumsum(1)
    vertices = cell.long()[:, None] + torch.cat([torch.zeros_like(steps[:, :1]), steps], 1)
    weights = torch.cat([1 - place[:, :1], place[:, :-1] - place[:, 1:], place[:, -1:]], 1)
    if dense:
        a, k = ints[1], ints[2]
        last = vertices[..., -1]
        digits = vertices[..., :-1] - last[..., None]
        turns = digits.div(a, rounding_mode="floor")
        index = (last - k * turns.sum(-1)) % (a + n * k)
        for i in reversed(range(n - 1)):
            index = index * a + (digits - a * turns)[..., i]
    else:
        index = hashed(vertices, ints[3])
    return (weights[..., None] * torch.nn.functional.embedding(index + ints[0], table)).sum(1)


def cubic_level(
    x: Tensor, table: Tensor, numbers: Tensor, shift: Tensor, ints: Tensor, dense: bool
) -> Tensor:
    """Features of one level of the cubic grid."""
    n = x.shape[1]
    y = numbers[0] * x + shift
    cell = y.floor()
    place = y - cell
    axes = torch.arange(n, device=x.device)
    bits = (torch.arange(1 << n, device=x.device)[:, None] >> axes) & 1
    vertices = cell.long()[:, None] + bits
    weights = torch.where(bits.bool(), place[:, None], 1 - place[:, None]).prod(2)
    if dense:
        index = vertices[..., -1]
        for i in reversed(range(n - 1)):
            index = index * ints[1] + vertices[..., i]
    else:
        index = hashed(vertices, ints[3])
    return (weights[..., None] * torch.nn.functional.embedding(index + ints[0], table)).sum(1)


def hashed(vertices: Tensor, mask: Tensor) -> Tensor:
    """The usual hash of integer coordinates."""
    key = vertices[..., 0]
    for i in range(1, vertices.shape[-1]):
        key = key ^ (vertices[..., i] * PRIMES[i])
    return key & mask


def in_torch(level: Callable[..., Tensor], levels: Any, job: Job) -> Callable[[Tensor, Tensor], Tensor]:
    """All levels of a grid, one after the other; what differs between levels is in tensors."""
    n, device = job.n, job.device
    rows = []
    for i, scale in enumerate(levels.scales):
        offset, _, dense, a, k, mask = levels.layout[6 * i : 6 * i + 6]
        numbers = torch.tensor([scale], dtype=torch.float32, device=device)
        shift = torch.tensor(levels.shifts[n * i : n * i + n], dtype=torch.float32, device=device)
        rows.append((numbers, shift, torch.tensor([offset, a, k, mask], device=device), dense))

    def encode(x: Tensor, table: Tensor) -> Tensor:
        return torch.cat([level(x, table, a, b, c, bool(dense)) for a, b, c, dense in rows], 1)

    return encode


def competitors(job: Job, peers: Mapping[str, Sequence[str]]) -> Iterator[Competitor]:
    """Ours, and of the others those that `peers` names for a lattice (TORCH, COMPILED, GATHER)."""
    generator = torch.Generator().manual_seed(job.n)
    x = torch.rand(job.points, job.n, generator=generator).to(job.device)
    for lattice, operator, level in (
        (SIMPLEX, ops.simplex_encode, simplex_level),
        (CUBIC, ops.grid_encode, cubic_level),
    ):
        levels = job.levels(lattice)
        table = torch.rand(levels.n_entries, 2, generator=generator).to(job.device).requires_grad_()
        grad = torch.rand(job.points, 2 * LEVELS, generator=generator).to(job.device)

        def ours(x: Tensor, table: Tensor, operator: Any = operator, levels: Any = levels) -> Tensor:
            features: Tensor = operator(x, table, levels)
            return features

        ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {lattice: ours}
        if TORCH in peers[lattice]:
            ways[f"{lattice}, {TORCH}"] = in_torch(level, levels, job)
        if COMPILED in peers[lattice]:
            ways[f"{lattice}, {COMPILED}"] = in_torch(torch.compile(level, dynamic=False), levels, job)
        want = ours(x[:64], table.detach())
        for name, way in ways.items():
            close = torch.isclose(
                way(x[:64], table.detach()) if COMPILED not in name else want, want, atol=2e-2
            )
            if close.float().mean() < 0.99:
                raise RuntimeError(f"{name} computes something else")
            yield Competitor(f"{name}, {FORWARD}", forward(way, x, table.detach()))
            yield Competitor(f"{name}, {BOTH}", both(way, x, table, grad))
        if GATHER in peers[lattice]:
            entries = table.detach()
            index = torch.randint(0, 1 << LOG2_ENTRIES, (LEVELS, job.points, job.n + 1), generator=generator)
            index = (index + torch.tensor(levels.layout[::6])[:, None, None]).clamp_(max=len(entries) - 1)
            yield Competitor(GATHER, embedding(index.to(job.device), entries))


def forward(way: Callable[[Tensor, Tensor], Tensor], x: Tensor, table: Tensor) -> Callable[[], object]:
    return lambda: way(x, table)


def both(
    way: Callable[[Tensor, Tensor], Tensor], x: Tensor, table: Tensor, grad: Tensor
) -> Callable[[], object]:
    def call() -> object:
        with torch.enable_grad():
            return torch.autograd.grad(way(x, table), table, grad)

    return call


def embedding(index: Tensor, table: Tensor) -> Callable[[], object]:
    return lambda: [torch.nn.functional.embedding(level, table) for level in index]


def scaling(n: int, log2_entries: int, points: int) -> Iterator[Competitor]:
    """Both grids on one level of 2^log2_entries entries, hashed where a cell is small enough."""
    x = torch.rand(points, n, generator=torch.Generator().manual_seed(n))
    scale = {1: 500_000, 2: 4000, 3: 2000}.get(n, 300)
    for name, kind, operator in (
        (SIMPLEX, SimplexLevels, ops.simplex_encode),
        (CUBIC, GridLevels, ops.grid_encode),
    ):
        levels = kind(n, 1, log2_entries, scale, 1.0)
        table = torch.rand(levels.n_entries, 2)

        def call(operator: Any = operator, levels: Any = levels, table: Tensor = table) -> object:
            features: Tensor = operator(x, table, levels)
            return features

        yield Competitor(name, call)
