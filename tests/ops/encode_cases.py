"""Calls of the encodings' operators for tests: level tables, tensors, all five operators of a lattice."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from fastdiff_ops import ops
from fastdiff_ops.ops._levels import Levels
from fastdiff_ops.reference import grid, simplex
from torch import Tensor

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
LATTICES = ("simplex", "grid")
WRAPPERS = {"simplex": ops.simplex_encode, "grid": ops.grid_encode}
LEVELS: dict[str, type[Levels]] = {"simplex": ops.SimplexLevels, "grid": ops.GridLevels}
REFERENCES = {"simplex": simplex, "grid": grid}
SUFFIXES = ("", "_jvp", "_vjp_x", "_vjp_table", "_vjp_table_u")


def some_levels(lattice: str, n: int, n_levels: int = 3, **options: Any) -> Any:
    """Return levels of which the first is dense, up to seven dimensions, and the last is hashed."""
    keys = {
        "base_resolution": 4 if n <= 3 else 2 if n <= 5 or lattice == "grid" else 1,
        "per_level_scale": 1.9 if n <= 3 else 1.5,
    }
    needed = LEVELS[lattice](n, 1, log2_hashmap_size=20, **keys).vertices[0]
    keys["log2_hashmap_size"] = min((needed - 1).bit_length(), 14 if lattice == "simplex" else 16)
    levels = LEVELS[lattice](n, n_levels, **(keys | options))
    if not options and n_levels > 1:
        assert levels.dense[0] == (n < 8 or lattice == "grid") and not levels.dense[-1], levels
    return levels


class Call(NamedTuple):
    """Arguments that the operators of a lattice share."""

    lattice: str
    levels: Any
    x: Tensor
    table: Tensor
    grad: Tensor
    u: Tensor
    switches: tuple[int, int, bool]  # bounds, max_level, deterministic

    def arguments(self, suffix: str, out_dtype: torch.dtype | None = None) -> tuple[Any, ...]:
        lists = (self.levels.scales, self.levels.shifts, self.levels.layout)
        entries = self.table.shape[0]
        return {
            "": (self.x, self.table, *lists, *self.switches, out_dtype),
            "_jvp": (self.x, self.table, self.u, *lists, *self.switches, out_dtype),
            "_vjp_x": (self.x, self.table, self.grad, *lists, *self.switches),
            "_vjp_table": (self.x, self.grad, *lists, entries, *self.switches),
            "_vjp_table_u": (self.x, self.u, self.grad, *lists, entries, *self.switches),
        }[suffix]

    def run(self, suffix: str = "", out_dtype: torch.dtype | None = None) -> Tensor:
        operator = getattr(torch.ops.fastdiff_ops, f"{self.lattice}_encode{suffix}")
        return operator(*self.arguments(suffix, out_dtype))

    def reference(self, suffix: str = "", out_dtype: torch.dtype | None = None) -> Tensor:
        function = getattr(REFERENCES[self.lattice], f"{self.lattice}_encode{suffix}")
        return function(*self.arguments(suffix, out_dtype))

    def all(self) -> list[Tensor]:
        return [self.run(suffix) for suffix in SUFFIXES]


def some_call(
    lattice: str,
    n: int,
    *,
    points: int = 37,
    features: int = 2,
    dtype: torch.dtype = F64,
    table_dtype: torch.dtype | None = None,
    bounds: int = 0,
    max_level: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    levels: Any = None,
) -> Call:
    """Return a call with random tensors; about a tenth of the coordinates are outside of the cube."""
    levels = some_levels(lattice, n) if levels is None else levels
    generator = torch.Generator().manual_seed(seed)
    spread, origin = (1.2, 0.1) if bounds == 0 else (3.0, 1.0)
    x = torch.rand(points, n, generator=generator, dtype=F64) * spread - origin
    table = torch.randn(levels.n_entries, features, generator=generator, dtype=F64)
    grad = torch.randn(points, levels.n_levels * features, generator=generator, dtype=F64)
    u = torch.randn(points, n, generator=generator, dtype=F64)
    table_dtype = table_dtype or dtype
    tensors = (x.to(dtype), table.to(table_dtype), grad.to(table_dtype), u.to(dtype))
    switches = (bounds, levels.n_levels if max_level is None else max_level, False)
    return Call(lattice, levels, *(t.to(device) for t in tensors), switches)


def check_close(got: Tensor, wanted: Tensor, tolerance: float) -> None:
    """Compare to `tolerance` times the largest number that is wanted; NaN must be where NaN is wanted."""
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    scale = wanted.nan_to_num(0.0).abs().max().item() if wanted.numel() else 0.0
    torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance * max(scale, 1e-300), equal_nan=True)
