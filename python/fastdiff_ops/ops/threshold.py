"""Top-k, top-p and min-p as one threshold per row, which the draws take: no sorting, no filtered copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .._load import load_ops
from ..reference import threshold as reference
from . import _rows
from ._registration import register_reference

load_ops()

_threshold = torch.ops.fastdiff_ops.sampling_threshold.default
_histogram = torch.ops.fastdiff_ops.threshold_histogram.default


def sampling_threshold(
    logits: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    top_k: int | Tensor | None = None,
    top_p: float | Tensor | None = None,
    min_p: float | Tensor | None = None,
    rows: Tensor | None = None,
    uncond_logits: Tensor | None = None,
    cfg_scale: float | Tensor | None = None,
    bias: Tensor | None = None,
    suppressed: Tensor | None = None,
    forbidden: Tensor | Sequence[int] | int | None = None,
    vocab_start: int = 0,
    vocab_size: int | None = None,
    all_reduce: Callable[[Tensor, str], Tensor] | None = None,
) -> Tensor:
    """Return the smallest logit that top-k, top-p and min-p keep, in every row.

    Each filter looks at the whole of p = softmax(l / temperature), l the processed logits (guidance, bias,
    suppressed and forbidden tokens) and keeps l >= its threshold; the result is the largest of them. Tokens
    that tie with it are kept.

    Parameters
    ----------
    logits : Tensor [..., V]
        float16, bfloat16, float32 or float64; the last axis dense. NaN counts as -inf.
    temperature : float, or Tensor [R] or of the leading shape
        T >= 0. At 0 all mass is on the maximum: top-p and min-p keep nothing else.
    top_k : int or int64 Tensor [R], optional
        The k-th largest logit. 0, or V and more: off.
    top_p : float or Tensor [R], optional
        In (0, 1]. The largest value such that tokens with l >= it have mass p or more: the token that crosses
        p is kept (nucleus sampling, arXiv 1904.09751). 1: off.
    min_p : float or Tensor [R], optional
        In [0, 1). Keeps tokens with at least min_p times the largest probability: l >= max + T ln(min_p)
        (arXiv 2407.01082). 0: off.
    rows, uncond_logits, cfg_scale, bias, suppressed, forbidden
        How logits are chosen and processed: see `gumbel_argmax`.
    vocab_start, vocab_size : int
        `logits` hold columns [vocab_start, vocab_start + V) of a vocabulary; with `all_reduce` only.
    all_reduce : callable, optional
        `all_reduce(tensor, "max" or "sum")` returns the elementwise maximum or sum over all shards of the
        vocabulary, which call this function together. The threshold is that of the whole row, bit for bit.

    Returns
    -------
    Tensor, the leading shape of `logits`, or [R] with `rows`
        float64 for float64 logits, else float32: the `threshold` of a draw. -inf where nothing is filtered,
        and where all logits are -inf.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, dtype, device or range; numbers in tensors are checked on a CPU.

    Notes
    -----
    transformers and vLLM apply top-p to what top-k has left, renormalised: with both filters they keep fewer
    tokens than this, where p is a share of the whole distribution.

    Probabilities are integers in units of 2^-b of the largest one, b = min(50, 62 - log2 V): sums of them are
    exact, so thresholds do not depend on threads, processor, device or sharding. The cut of top-p is exact to
    V 2^-b at worst (4e-9 for V = 126464), typically to 1e-11.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    >>> sampling_threshold(logits, top_p=0.6).exp()
    tensor([0.2500])
    >>> sampling_threshold(logits, top_k=1).exp(), sampling_threshold(logits, min_p=0.3).exp()
    (tensor([0.5000]), tensor([0.1500]))
    """
    _rows.check_logits("logits", logits)
    size = _rows.vocabulary(vocab_start, vocab_size, logits.shape[-1])
    processing, shape = _rows.row_arguments(
        logits, temperature, rows, uncond_logits, cfg_scale, bias, suppressed, forbidden, size
    )
    filters = row_filters(top_k, top_p, min_p, shape.numel(), logits)
    if all_reduce is not None:
        theta = _sharded(processing, filters, vocab_start, size, all_reduce)
    elif size != logits.shape[-1]:
        raise ValueError("`all_reduce` must be given for a part of a vocabulary: a filter needs all of it")
    else:
        theta, _ = threshold_of_rows(processing, filters, kept=False)
    return theta.view(shape)


def threshold_of_rows(
    processing: tuple[Tensor | None, ...], filters: tuple[Tensor | None, ...], kept: bool
) -> tuple[Tensor, Tensor]:
    """Return thresholds [R] and, if wanted, the share of softmax(l / T) that they keep; without checks."""
    logits, rows = processing[0], processing[2]
    assert logits is not None
    if any(f is not None for f in filters):
        theta, share = _threshold(*processing, *filters, kept)
        return theta, share
    n_rows = (logits if rows is None else rows).shape[0]
    share = logits.new_ones(n_rows if kept else 0, dtype=torch.float64)
    return logits.new_full((n_rows,), -torch.inf, dtype=_compute_type(logits)), share


def _compute_type(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def row_filters(
    top_k: int | Tensor | None,
    top_p: float | Tensor | None,
    min_p: float | Tensor | None,
    n_rows: int,
    logits: Tensor,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the filters as tensors [1] or [R]; None for one that is known to be off."""
    if top_k is not None and not isinstance(top_k, Tensor):
        if isinstance(top_k, bool) or not isinstance(top_k, int):
            raise TypeError(f"`top_k` must be an int or an int64 Tensor, got {type(top_k).__name__}")
        if top_k < 0:
            raise ValueError(f"`top_k` must be at least 0 (0: off), got {top_k}")
        top_k = torch.full((1,), top_k, dtype=torch.int64, device=logits.device) if top_k > 0 else None
    if top_k is not None:
        _rows.check_tensor("top_k", top_k, logits, torch.int64)
        if top_k.numel() not in (1, n_rows):
            raise ValueError(f"`top_k` must have 1 number or {n_rows}, got shape {tuple(top_k.shape)}")
        top_k = top_k.reshape(-1)
    return (
        top_k,
        _share("top_p", top_p, n_rows, logits, off=1.0),
        _share("min_p", min_p, n_rows, logits, off=0.0),
    )


def _share(name: str, value: float | Tensor | None, n_rows: int, logits: Tensor, off: float) -> Tensor | None:
    """Return a number between 0 and 1 for each row; one end of the range means off, the other is outside."""
    if value is None:
        return None
    if not isinstance(value, Tensor):
        number = _rows.per_row(name, value, n_rows, logits, torch.float64)
        if not (0 <= value <= 1 and value != 1 - off):
            wanted = "(0, 1]" if off == 1 else "[0, 1)"
            raise ValueError(f"`{name}` must be in {wanted}, got {value}")
        return None if value == off else number
    _rows.check_tensor(name, value, logits, torch.float32, torch.float64)
    return _rows.per_row(name, value, n_rows, logits, value.dtype)


# ---- a vocabulary in shards


def _sharded(
    processing: tuple[Tensor | None, ...],
    filters: tuple[Tensor | None, Tensor | None, Tensor | None],
    vocab_start: int,
    vocab_size: int,
    all_reduce: Callable[[Tensor, str], Tensor],
) -> Tensor:
    """Return the threshold of rows of which every shard holds some columns: radix passes in step.

    In each pass the shards add up histograms (of counts for top-k, of masses for top-p) and choose the bin
    that holds the wanted rank; it extends the keys' known prefix.
    """
    logits, temperature, *others, forbidden = processing
    assert logits is not None
    if forbidden is not None:
        forbidden = forbidden - vocab_start
    top_k, top_p, min_p = filters
    # at temperature 0 min-p keeps the maximum alone
    cold, half = (torch.full((1,), x, device=logits.device) for x in (0.0, 0.5))
    row_max, _ = threshold_of_rows((logits, cold, *others, forbidden), (None, None, half), kept=False)
    row_max = all_reduce(row_max, "max")
    theta = torch.full_like(row_max, -torch.inf)
    if top_k is not None or top_p is not None:
        part = (logits, temperature, *others, forbidden)
        theta = _select(part, top_k, top_p, row_max, vocab_size, all_reduce)
    if min_p is not None:  # the maximum is all that it looks at
        column = (row_max[:, None], temperature, *[None] * 6)
        theta = torch.maximum(theta, threshold_of_rows(column, (None, None, min_p), kept=False)[0])
    return theta


def _select(
    processing: tuple[Tensor | None, ...],
    top_k: Tensor | None,
    top_p: Tensor | None,
    row_max: Tensor,
    vocab_size: int,
    all_reduce: Callable[[Tensor, str], Tensor],
) -> Tensor:
    n_rows, device = row_max.shape[0], row_max.device
    off = torch.zeros(n_rows, dtype=torch.bool, device=device)
    active = [
        off if top_k is None else (top_k > 0) & (top_k < vocab_size),
        off if top_p is None else top_p < 1,
    ]
    wanted = torch.stack([x.expand(n_rows) for x in active], 1) & (row_max > -torch.inf)[:, None]
    prefix = torch.where(wanted, 0, -1)
    rank = torch.zeros(n_rows, 2, dtype=torch.int64, device=device)
    if top_k is not None:
        rank[:, 0] = top_k - 1
    for number, (_, bits) in enumerate(reference.radix_passes(row_max.dtype)):
        counts = _histogram(*processing, row_max, prefix, number, vocab_size)
        sums = all_reduce(counts, "sum").cumsum(2)
        if number == 0 and top_p is not None:
            rank[:, 1] = reference.mass_target(top_p, sums[:, 1, -1]) - 1
        digit = (sums <= rank[:, :, None]).sum(2).clamp(max=reference.RADIX_BINS - 1)
        below = sums.gather(2, (digit - 1).clamp(min=0)[:, :, None])[:, :, 0]
        rank = rank - torch.where(digit > 0, below, 0)
        prefix = torch.where(wanted, prefix << bits | digit, -1)
    logits = reference.logits_of_keys(prefix, row_max.dtype)
    return torch.where(wanted, logits, -torch.inf).amax(1)


@torch.library.register_fake("fastdiff_ops::sampling_threshold")
def _(
    logits: Tensor,
    temperature: Tensor,
    rows: Tensor | None,
    uncond_logits: Tensor | None,
    cfg_scale: Tensor | None,
    bias: Tensor | None,
    suppressed: Tensor | None,
    forbidden: Tensor | None,
    top_k: Tensor | None,
    top_p: Tensor | None,
    min_p: Tensor | None,
    kept: bool,
) -> tuple[Tensor, Tensor]:
    n_rows = (logits if rows is None else rows).shape[0]
    theta = logits.new_empty(n_rows, dtype=_compute_type(logits))
    return theta, logits.new_empty(n_rows if kept else 0, dtype=torch.float64)


@torch.library.register_fake("fastdiff_ops::threshold_histogram")
def _(
    logits: Tensor,
    temperature: Tensor,
    rows: Tensor | None,
    uncond_logits: Tensor | None,
    cfg_scale: Tensor | None,
    bias: Tensor | None,
    suppressed: Tensor | None,
    forbidden: Tensor | None,
    row_max: Tensor,
    prefix: Tensor,
    radix_pass: int,
    vocab_size: int,
) -> Tensor:
    n_rows = (logits if rows is None else rows).shape[0]
    return logits.new_empty((n_rows, 2, reference.RADIX_BINS), dtype=torch.int64)


register_reference("sampling_threshold", reference.sampling_threshold)
register_reference("threshold_histogram", reference.threshold_histogram)
