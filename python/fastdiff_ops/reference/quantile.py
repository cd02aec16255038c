"""Per-sample quantile of |u|, by sorting."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .._coefficients import C_O, C_X

TORCH_QUANTILE_LIMIT = 1 << 24


def quantile_rank(q: float, n: int, dtype: torch.dtype) -> tuple[int, float]:
    """Return the lower rank k and the weight w of rank k + 1 for the interpolated quantile of n values.

    As in torch.quantile, q (n - 1) is rounded to the values' own type, so that the results can be compared;
    float32 cannot number more than 2^24 values (torch refuses them), so beyond that it is float64 here.
    """
    exact = dtype == torch.float64 or n > TORCH_QUANTILE_LIMIT
    kind = torch.float64 if exact else torch.float32
    rank = (torch.tensor(q, dtype=kind) * torch.tensor(n - 1, dtype=kind)).item()
    below = math.floor(rank)
    return below, rank - below


def abs_quantile(
    x: Tensor,
    outs: Sequence[Tensor],
    coef: Tensor,
    step: Tensor,
    weights: Tensor | None,
    q: float,
    floor: float,
    cap: float,
) -> Tensor:
    """Reference of `torch.ops.fastdiff_ops.abs_quantile`; see `fastdiff_ops.ops.abs_quantile`."""
    acc = torch.float64 if x.dtype == torch.float64 else torch.float32
    at = step.reshape(1)

    def term(factor: Tensor, value: Tensor) -> Tensor:
        factor = factor.to(acc).reshape(-1, *[1] * (x.dim() - 1))
        return torch.where(factor != 0, factor * value.to(acc), 0)

    row = coef.index_select(0, at)[0]
    output = torch.zeros_like(x, dtype=acc)
    if weights is None:
        for out in outs:
            output = output + out.to(acc)
    else:
        g = weights.index_select(0, at if weights.shape[0] > 1 else torch.zeros_like(at))[0, 0]
        for k, out in enumerate(outs):
            output = output + term(g[:, k], out)
    u = (term(row[:, C_X], x) + term(row[:, C_O], output)).flatten(1)
    below, weight = quantile_rank(q, u.shape[1], acc)
    ordered = u.abs().sort(1).values
    low, high = ordered[:, below], ordered[:, below + (weight > 0)]
    # from the nearer end, as torch.lerp does; an infinite upper end is the result (torch.quantile gives NaN)
    value = low + weight * (high - low) if weight < 0.5 else high - (high - low) * (1 - weight)
    value = torch.where((low == high) | high.isinf(), high, value)
    value = torch.where(u.isnan().any(1), torch.nan, value)
    return torch.clamp(value, floor, cap)
