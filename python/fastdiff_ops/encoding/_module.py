"""What the modules of both encodings share: the table, its initial values, shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..ops._encode import BOUNDS, FEATURES, TABLE_DTYPES
from ..ops._levels import MAX_LEVELS, Levels, check_choice, check_int
from ..ops.random import Seed, rand

INITIAL = 1e-4
DEFAULT_SCALE = 1.5


class Encoding(nn.Module):
    """A table of features and the levels that it belongs to; use `SimplexEncoding` or `GridEncoding`."""

    table: nn.Parameter
    levels: Any

    def __init__(
        self,
        operator: Callable[..., Tensor],
        levels: Levels,
        n_features_per_level: int,
        bounds: str,
        interpolation: str,
        dtype: torch.dtype,
        device: torch.device | str | None,
        seed: Seed,
    ) -> None:
        super().__init__()
        check_int("n_features_per_level", n_features_per_level, 1, FEATURES[-1])
        if n_features_per_level not in FEATURES:
            raise ValueError(f"`n_features_per_level` must be 1, 2, 4 or 8, got {n_features_per_level!r}")
        check_choice("bounds", bounds, tuple(BOUNDS))
        if interpolation != "Linear":
            why = "no other one is continuous and exact for linear functions here"
            raise ValueError(f'`interpolation` must be "Linear" ({why}), got {interpolation!r}')
        if dtype not in TABLE_DTYPES:
            raise TypeError(f"`dtype` must be float16, bfloat16, float32 or float64, got {dtype}")
        numbers = levels.n_entries * n_features_per_level
        if numbers >= 1 << 31:
            raise ValueError(f"the levels need {numbers} parameters together: it must be less than 2^31")
        self.levels = levels
        self.n_features_per_level = n_features_per_level
        self.bounds = bounds
        self._operator = operator
        shape = (levels.n_entries, n_features_per_level)
        self.table = nn.Parameter(torch.empty(shape, dtype=dtype, device=device))
        self.reset_parameters(seed)

    @property
    def n_input_dims(self) -> int:
        """n, the length of the last axis of the input."""
        return int(self.levels.n)

    @property
    def n_output_dims(self) -> int:
        """L F, the length of the last axis of the output."""
        return int(self.levels.n_levels) * self.n_features_per_level

    @torch.no_grad()
    def reset_parameters(self, seed: Seed = None) -> None:
        """Draw the table from U(-1e-4, 1e-4): the same numbers for every device and dtype."""
        if self.table.is_meta:
            return
        values = rand((1, self.table.numel()), seed=seed, device=self.table.device)
        self.table.copy_(values.mul_(2 * INITIAL).sub_(INITIAL).view_as(self.table))

    def forward(
        self, x: Tensor, max_level: int | None = None, *, out_dtype: torch.dtype | None = None
    ) -> Tensor:
        """Encode points (..., n) as features (..., L F); see `fastdiff_ops.ops.simplex_encode`."""
        if x.dim() == 0 or x.shape[-1] != self.levels.n:
            raise ValueError(f"`x` must have shape (..., {self.levels.n}), got {tuple(x.shape)}")
        options = {"bounds": self.bounds, "max_level": max_level, "out_dtype": out_dtype}
        flat = self._operator(x.reshape(-1, self.levels.n), self.table, self.levels, **options)
        return flat.reshape(*x.shape[:-1], self.n_output_dims)

    def vertex_count(self) -> list[int]:
        """Return how many vertices the unit cube needs on each level; they share `levels.sizes` entries."""
        return list(self.levels.vertices)

    def extra_repr(self) -> str:
        """Return what `print` shows of the module."""
        levels = self.levels
        keys = ("n_levels", "log2_hashmap_size", "base_resolution")
        text = ", ".join(f"{key}={getattr(levels, key)}" for key in keys)
        text += f", per_level_scale={levels.per_level_scale:.6g}"
        text += f", n_features_per_level={self.n_features_per_level}"
        dense = f"{sum(levels.dense)} of {levels.n_levels} levels dense"
        return f"{self.n_input_dims} -> {self.n_output_dims}, {text}, {levels.n_entries} entries, {dense}"


def level_scale(
    per_level_scale: float | None, finest_resolution: float | None, base_resolution: int, n_levels: int
) -> float:
    """Return the growth of the resolution from level to level that two alternative arguments mean."""
    if finest_resolution is None:
        return DEFAULT_SCALE if per_level_scale is None else per_level_scale
    if per_level_scale is not None:
        raise ValueError("`finest_resolution` and `per_level_scale` exclude each other")
    check_int("base_resolution", base_resolution, 1, None)
    check_int("n_levels", n_levels, 2, MAX_LEVELS)  # one level has no growth
    if isinstance(finest_resolution, bool) or not isinstance(finest_resolution, int | float):
        raise TypeError(f"`finest_resolution` must be a number, got {type(finest_resolution).__name__}")
    if not (math.isfinite(finest_resolution) and finest_resolution >= base_resolution):
        wanted = f"at least `base_resolution` = {base_resolution}"
        raise ValueError(f"`finest_resolution` must be finite and {wanted}, got {finest_resolution}")
    return float((finest_resolution / base_resolution) ** (1 / (n_levels - 1)))
