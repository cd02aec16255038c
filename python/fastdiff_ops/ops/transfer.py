"""Which of the positions drawn in a decoding step are committed, and which stay masked."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .._load import load_ops
from ..reference import hitting as reference
from ._registration import register_reference

load_ops()

_FLOATS = (torch.float32, torch.float64)
_INTEGERS = (torch.int64, torch.int32)


def select_transfer(
    score: Tensor | None,
    candidate: Tensor,
    *,
    count: Tensor | int | None = None,
    threshold: Tensor | float | None = None,
    factor: Tensor | float | None = None,
    residual: Tensor | None = None,
    entropy: Tensor | None = None,
    entropy_bound: Tensor | float | None = None,
) -> Tensor:
    """Choose the positions that a step of parallel decoding commits, by exactly one of four rules.

    Candidates are ranked by score, the largest first; equal scores by position, the smaller first; NaN last.
    With c the score, a confidence in [0, 1] for `factor`:

    ================= =========================================================== ============
    rule              commits                                                     of
    ================= =========================================================== ============
    ``count``         the first k, or all if there are fewer; none for k = 0      LLaDA
    ``threshold``     all with c >= threshold, and the first in any case          Fast-dLLM
    ``factor``        the first n, n the largest with (n + 1) (1 - c_(n)) <       Fast-dLLM
                      factor, but at least one
    ``entropy_bound`` the longest prefix with sum H - max H <= bound, but at      EB-Sampler
                      least one
    ================= =========================================================== ============

    (arXiv 2502.09992, 2505.22618, 2505.24857)

    Parameters
    ----------
    score : float32 or float64 Tensor [B, L], or None with `residual`
        Larger is better: confidence, margin, negative entropy, noise.
    candidate : bool Tensor [B, L]
        Positions that may be committed, L < 2^31. Others are never chosen, whatever they hold.
    count : int, or int32 or int64 Tensor [] or [B]
    threshold, factor, entropy_bound : float, or float32 or float64 Tensor [] or [B]
        `factor` and `entropy_bound` are not negative; entropies and their bound have one unit.
    residual : float32 or float64 Tensor [B, L], optional
        Odds against the token, r >= 0, as `sample_with_scores` returns them: confidence c = 1 / (1 + r). They
        take the place of `score`, which is not read then. Ranks follow r, and 1 - c = 1 / (1 + 1 / r) in
        float64 is exact to rounding where c itself would be 1.
    entropy : float32 or float64 Tensor [B, L]
        H of each position, for `entropy_bound` and only there. The score may be another one: it says in which
        order the prefix grows. Added in float64 in that order; NaN ends the prefix.

    Returns
    -------
    bool Tensor [B, L]

    Raises
    ------
    ValueError, TypeError
        If there is not exactly one rule, or a shape, dtype, device or number does not fit. Numbers in tensors
        are checked on the CPU; elsewhere a negative count is 0, and a NaN bound commits the first candidate.

    Notes
    -----
    `threshold` is compared in the type of `score`, as torch compares with a Python number; with `residual` it
    is 1 - c <= 1 - threshold in float64. So threshold = 0 commits all, a threshold above 1 commits one.

    Public code for `factor` differs at the last candidate: if only that one fails, it commits all.

    Examples
    --------
    >>> score = torch.tensor([[0.9, 0.2, 0.97, 0.99]])
    >>> candidate = torch.tensor([[True, True, True, False]])
    >>> select_transfer(score, candidate, count=1)
    tensor([[False, False,  True, False]])
    >>> select_transfer(score, candidate, threshold=0.9)
    tensor([[ True, False,  True, False]])

    Confidences that float32 cannot tell from 1:

    >>> r = torch.tensor([[3e-12, 1e-12]])
    >>> select_transfer(None, torch.ones(1, 2, dtype=torch.bool), residual=r, factor=5e-12)
    tensor([[False,  True]])
    """
    if not isinstance(candidate, Tensor):
        raise TypeError(f"`candidate` must be a Tensor, got {type(candidate).__name__}")
    if candidate.dtype != torch.bool:
        raise TypeError(f"`candidate` must be torch.bool, got {candidate.dtype}")
    if candidate.dim() != 2:
        raise ValueError(f"`candidate` must be 2-D [B, L], got shape {tuple(candidate.shape)}")
    rules = {"count": count, "threshold": threshold, "factor": factor, "entropy_bound": entropy_bound}
    given = [name for name, value in rules.items() if value is not None]
    if len(given) != 1:
        got = ", ".join(given) or "none"
        raise ValueError(f"give exactly one of `count`, `threshold`, `factor`, `entropy_bound`, got {got}")
    (rule,) = given
    if (entropy is None) != (rule != "entropy_bound"):
        raise ValueError(f"`entropy` goes with `entropy_bound`, got the rule `{rule}`")
    values = score if residual is None else residual
    _check_values("score" if residual is None else "residual", values, candidate)
    if entropy is not None:
        _check_values("entropy", entropy, candidate)
        entropy = entropy.detach()
    limit = _limit(rule, rules[rule], candidate)
    assert values is not None
    chosen: Tensor = torch.ops.fastdiff_ops.select_transfer.default(
        values.detach(), candidate, limit, entropy, list(rules).index(rule), residual is not None
    )
    return chosen


def _check_values(name: str, value: object, candidate: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a Tensor, got {type(value).__name__}")
    if value.dtype not in _FLOATS:
        raise TypeError(f"`{name}` must be float32 or float64, got {value.dtype}")
    _check_place(name, value, candidate)
    if value.shape != candidate.shape:
        raise ValueError(f"`{name}` must have shape {tuple(candidate.shape)}, got {tuple(value.shape)}")


def _check_place(name: str, value: Tensor, candidate: Tensor) -> None:
    if value.device != candidate.device:
        wanted = f"on the device of `candidate`, {candidate.device}"
        raise ValueError(f"`{name}` must be {wanted}, got {value.device}")


def _limit(name: str, value: Any, candidate: Tensor) -> Tensor:
    """Return a rule's parameter as [1] or [B], int64 for a count, else float64."""
    batch, counts = candidate.shape[0], name == "count"
    dtype = torch.int64 if counts else torch.float64
    if isinstance(value, Tensor):
        if value.dtype not in (_INTEGERS if counts else _FLOATS):
            wanted = "int32 or int64" if counts else "float32 or float64"
            raise TypeError(f"`{name}` must be {wanted}, got {value.dtype}")
        _check_place(name, value, candidate)
        if value.dim() > 1 or (value.dim() == 1 and value.shape[0] not in (1, batch)):
            raise ValueError(f"`{name}` must be a number or [{batch}], got shape {tuple(value.shape)}")
        return value.detach().to(dtype).reshape(-1)
    kinds = (int, torch.SymInt) if counts else (int, float)
    fits = isinstance(value, kinds) and not isinstance(value, bool)
    if not fits:
        raise TypeError(f"`{name}` must be {'an int' if counts else 'a float'}, got {type(value).__name__}")
    if not value >= (-math.inf if name == "threshold" else 0):
        raise ValueError(f"`{name}` must be a number{' >= 0' * (name != 'threshold')}, got {value}")
    limit: Tensor = torch.full((1,), value, dtype=dtype, device=candidate.device)
    return limit


@torch.library.register_fake("fastdiff_ops::select_transfer")
def _(
    score: Tensor, candidate: Tensor, limit: Tensor, entropy: Tensor | None, rule: int, residual: bool
) -> Tensor:
    return torch.empty_like(candidate, memory_format=torch.contiguous_format)


register_reference("select_transfer", reference.select_transfer)
