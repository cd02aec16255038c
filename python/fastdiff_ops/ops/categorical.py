"""Exact draws from softmax(logits / temperature): noise in float64 at the cost of reading the logits.

Sampling by argmax of logits + Gumbel noise in float32 cuts the noise off at 16.6 and so lowers the
temperature unnoticed (arXiv 2409.02908, section 4). In float64 it is right, but takes 10 to 20 times the
logits' memory. Here the noise is a function of (seed, draw, row, token), computed only for the few tokens
that can win.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

import torch
from torch import Tensor

from .._load import load_ops
from ..reference import categorical as reference
from . import _rows
from ._registration import register_reference
from ._rows import Seeds

if TYPE_CHECKING:
    from typing_extensions import Unpack

load_ops()

MAX_DRAWS = 1024

_argmax = torch.ops.fastdiff_ops.gumbel_argmax.default
_topk = torch.ops.fastdiff_ops.gumbel_topk.default


class SampledTokens(NamedTuple):
    """Tokens drawn and what is known of their distributions: each of the logits' shape without the last axis.

    All but `scores` are of p = softmax(l / score_temperature), l the processed logits before any threshold:
    float64, to about 1e-6 relative.
    """

    tokens: Tensor
    """int64; -1 where no token is left."""
    scores: Tensor
    """The largest perturbed logit T g + l, exact."""
    logprob: Tensor
    """log p of the token, in nats; -inf where there is none."""
    entropy: Tensor
    """-sum p log p, in nats."""
    margin: Tensor
    """Largest less second largest p."""
    logsumexp: Tensor
    """log sum exp(l / score_temperature)."""
    residual: Tensor
    """The odds against the token, sum over the others of exp((l_v - l_token) / score_temperature). Unlike
    p = 1 / (1 + residual) it tells near certainties apart; inf where there is no token."""


@overload
def gumbel_argmax(
    logits: Tensor,
    temperature: float | Tensor = ...,
    *,
    return_score: Literal[False] = ...,
    **options: Unpack[_rows.DrawOptions],
) -> Tensor: ...
@overload
def gumbel_argmax(
    logits: Tensor,
    temperature: float | Tensor = ...,
    *,
    return_score: Literal[True],
    **options: Unpack[_rows.DrawOptions],
) -> tuple[Tensor, Tensor]: ...
def gumbel_argmax(
    logits: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    seed: Seeds = None,
    offset: int = 0,
    rng: Tensor | None = None,
    row_ids: Tensor | None = None,
    rows: Tensor | None = None,
    uncond_logits: Tensor | None = None,
    cfg_scale: float | Tensor | None = None,
    bias: Tensor | None = None,
    suppressed: Tensor | None = None,
    forbidden: Tensor | Sequence[int] | int | None = None,
    threshold: float | Tensor | None = None,
    vocab_start: int = 0,
    vocab_size: int | None = None,
    stream: str = "auto",
    method: str = "lazy",
    check_finite: bool = False,
    return_score: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Draw a token from softmax(logits / temperature) in every row, exactly to float64.

    The result is argmax_v of z_v = T g_v + l_v with Gumbel noise g in float64: the formula that LLaDA users
    copy, without its memory. A draw depends on (seed, offset, row id, token) alone: not on batch size or
    order, other rows, threads, device, or how the vocabulary is sharded.

    Parameters
    ----------
    logits : Tensor [..., V]
        float16, bfloat16, float32 or float64; the last axis dense, the others of any stride. NaN is never
        chosen; +inf always is (the first, if there are several).
    temperature : float, or Tensor [R] or of the leading shape
        T >= 0 in float32; 0 takes the largest logit, the first of equal ones.
    seed, offset : see `make_rng`
        One seed for all rows, or a sequence of R seeds. With one, row r is drawn with row id r; with several,
        each with row id 0, as it would be alone. None draws a seed from torch's default generator.
    rng : int64 Tensor [2] or [R, 3], instead of `seed` and `offset`
        (seed, offset), or (seed, offset, row id) of each row, on the logits' device: for loops and graphs.
    row_ids : int64 Tensor [R], optional
        Names of the rows in the random stream, before what `rng` says.
    rows : int64 Tensor [R], optional
        Which rows (of the flattened leading axes) to draw from, without a gather. Default: all, R = N.
    uncond_logits : Tensor [..., V], optional
        Like `logits`: unconditional ones, for guidance l = u + (w + 1) (c - u), rounded once.
    cfg_scale : float or Tensor [R], optional
        w, required with `uncond_logits`. 0 is no guidance, bit for bit.
    bias : float32 Tensor [V] or [R, V], optional
        Added to the logits.
    suppressed : bool Tensor [V] or [R, V], optional
        True: the token is not drawn.
    forbidden : int, ints or int64 Tensor [K], optional
        Tokens of the whole vocabulary that are not drawn. Numbers in a tensor that are outside of it mean
        nothing.
    threshold : float, or Tensor [R] of float32 (float64 for float64 logits), optional
        Logits below it are not drawn: top-k, top-p and min-p, from `sampling_threshold`.
    vocab_start, vocab_size : int
        `logits` hold columns [vocab_start, vocab_start + V) of a vocabulary of `vocab_size` <= 2^28 tokens.
        The winner over shards is the one with the largest score, the smaller token if they are equal.
    stream : {"auto", "element", "block16"}
        Which noise: one number per token, or blocks of 16 (less work). "auto" is block16 from 4096 tokens on.
    method : {"lazy", "full"}
        Compute the noise where it can matter, or everywhere. The results are the same, bit for bit.
    check_finite : bool
        Raise if any of `logits` is NaN. This reads them once more and waits for the device.
    return_score : bool
        Return the winner's z as well.

    Returns
    -------
    tokens : int64 Tensor, the leading shape of `logits`, or [R] with `rows`
        -1 where every logit is -inf.
    score : float64 Tensor, same shape
        Only with `return_score`.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, dtype, device or range. Only Python numbers are checked for their
        range, not what tensors hold.

    Notes
    -----
    Source: arXiv 2409.02908 for what float32 does to the draw. Uniforms have 53 bits at every scale down to
    2^-128, and logarithms are the library's own. No gradient flows through a draw.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[0.0, 1.0, 2.0], [5.0, 0.0, 0.0]])
    >>> gumbel_argmax(logits, 0)
    tensor([2, 0])
    >>> tokens, z = gumbel_argmax(logits.expand(100, 2, 3), seed=1, return_score=True)
    >>> tokens.shape, z.dtype
    (torch.Size([100, 2]), torch.float64)
    >>> again = gumbel_argmax(logits, seed=1, row_ids=torch.tensor([198, 199]))
    >>> bool((again == tokens[99]).all())
    True
    """
    arguments, shape = _rows.draw_arguments(
        logits, temperature, seed, offset, rng, row_ids, rows, uncond_logits, cfg_scale, bias, suppressed,
        forbidden, threshold, vocab_start, vocab_size, stream, check_finite,
    )  # fmt: skip
    *row_arguments, start, size, number = arguments
    tokens, score, _ = _argmax(
        *row_arguments, None, start, size, number, _rows.choice("method", method, _rows.METHODS)
    )
    if len(shape) != 1:
        tokens, score = tokens.view(shape), score.view(shape)
    return (tokens, score) if return_score else tokens


def sample_with_scores(
    logits: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    score_temperature: float | Tensor = 1.0,
    seed: Seeds = None,
    offset: int = 0,
    rng: Tensor | None = None,
    row_ids: Tensor | None = None,
    rows: Tensor | None = None,
    uncond_logits: Tensor | None = None,
    cfg_scale: float | Tensor | None = None,
    bias: Tensor | None = None,
    suppressed: Tensor | None = None,
    forbidden: Tensor | Sequence[int] | int | None = None,
    threshold: float | Tensor | None = None,
    vocab_start: int = 0,
    vocab_size: int | None = None,
    stream: str = "auto",
    method: str = "lazy",
    check_finite: bool = False,
) -> SampledTokens:
    """Draw tokens as `gumbel_argmax` does, with the confidence measures that decoders rank positions by.

    Parameters
    ----------
    score_temperature : float, or Tensor [R] or of the leading shape
        Temperature > 0 of the distribution that is measured: 1 in LLaDA, that of the draw in Dream.
    logits, temperature, ...
        See `gumbel_argmax`.

    Returns
    -------
    SampledTokens
        (tokens, scores, logprob, entropy, margin, logsumexp, residual), from one pass over the logits. With a
        vocabulary in shards all but the first two are of this shard.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, dtype, device or range.

    Examples
    --------
    >>> import torch
    >>> drawn = sample_with_scores(torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]), 0)
    >>> drawn.tokens, drawn.margin.round(decimals=4)
    (tensor([0, 0]), tensor([0.0000, 0.9996], dtype=torch.float64))
    """
    arguments, shape = _rows.draw_arguments(
        logits, temperature, seed, offset, rng, row_ids, rows, uncond_logits, cfg_scale, bias, suppressed,
        forbidden, threshold, vocab_start, vocab_size, stream, check_finite,
    )  # fmt: skip
    *row_arguments, start, size, number = arguments
    scale = _rows.temperatures("score_temperature", score_temperature, shape.numel(), logits, positive=True)
    method_number = _rows.choice("method", method, _rows.METHODS)
    tokens, score, stats = _argmax(*row_arguments, scale, start, size, number, method_number)
    if len(shape) != 1:
        tokens, score, stats = tokens.view(shape), score.view(shape), stats.view(*shape, 5)
    return SampledTokens(tokens, score, *stats.unbind(-1))


def gumbel_topk(
    logits: Tensor,
    k: int,
    temperature: float | Tensor = 1.0,
    *,
    seed: Seeds = None,
    offset: int = 0,
    rng: Tensor | None = None,
    row_ids: Tensor | None = None,
    rows: Tensor | None = None,
    uncond_logits: Tensor | None = None,
    cfg_scale: float | Tensor | None = None,
    bias: Tensor | None = None,
    suppressed: Tensor | None = None,
    forbidden: Tensor | Sequence[int] | int | None = None,
    threshold: float | Tensor | None = None,
    vocab_start: int = 0,
    vocab_size: int | None = None,
    stream: str = "auto",
    check_finite: bool = False,
) -> tuple[Tensor, Tensor]:
    """Draw k tokens without replacement from softmax(logits / temperature) in every row.

    These are the k largest perturbed logits, in order: the first is the draw of `gumbel_argmax`, each further
    one is a draw from what is left (Plackett-Luce; Kool et al., "Stochastic Beams and Where to Find Them",
    arXiv 1903.06059).

    Parameters
    ----------
    k : int
        1 <= k <= min(V, 1024).
    logits, temperature, ...
        See `gumbel_argmax`.

    Returns
    -------
    tokens : int64 Tensor [..., k]
        In falling order of score; -1 where fewer than k tokens are left.
    scores : float64 Tensor [..., k]
        The perturbed logits; -inf where there is no token.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, dtype, device or range.

    Examples
    --------
    >>> import torch
    >>> tokens, scores = gumbel_topk(torch.tensor([[0.0, 3.0, 1.0]]), 2, 0)
    >>> tokens, scores
    (tensor([[1, 2]]), tensor([[3., 1.]], dtype=torch.float64))
    """
    arguments, shape = _rows.draw_arguments(
        logits, temperature, seed, offset, rng, row_ids, rows, uncond_logits, cfg_scale, bias, suppressed,
        forbidden, threshold, vocab_start, vocab_size, stream, check_finite,
    )  # fmt: skip
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"`k` must be an int, got {type(k).__name__}")
    if not 1 <= k <= min(MAX_DRAWS, logits.shape[-1]):
        raise ValueError(f"`k` must be in [1, {min(MAX_DRAWS, logits.shape[-1])}], got {k}")
    tokens, scores = _topk(*arguments, k)
    if len(shape) != 1:
        tokens, scores = tokens.view(*shape, k), scores.view(*shape, k)
    return tokens, scores


@torch.library.register_fake("fastdiff_ops::gumbel_argmax")
def _(
    logits: Tensor,
    temperature: Tensor,
    rng: Tensor,
    row_ids: Tensor | None,
    rows: Tensor | None,
    uncond_logits: Tensor | None,
    cfg_scale: Tensor | None,
    bias: Tensor | None,
    suppressed: Tensor | None,
    forbidden: Tensor | None,
    threshold: Tensor | None,
    score_temperature: Tensor | None,
    vocab_start: int,
    vocab_size: int,
    stream: int,
    method: int,
) -> tuple[Tensor, Tensor, Tensor]:
    n_rows = (logits if rows is None else rows).shape[0]
    stats = (0,) if score_temperature is None else (n_rows, 5)
    kinds = (((n_rows,), torch.int64), ((n_rows,), torch.float64), (stats, torch.float64))
    tokens, score, numbers = (logits.new_empty(shape, dtype=dtype) for shape, dtype in kinds)
    return tokens, score, numbers


@torch.library.register_fake("fastdiff_ops::gumbel_topk")
def _(
    logits: Tensor,
    temperature: Tensor,
    rng: Tensor,
    row_ids: Tensor | None,
    rows: Tensor | None,
    uncond_logits: Tensor | None,
    cfg_scale: Tensor | None,
    bias: Tensor | None,
    suppressed: Tensor | None,
    forbidden: Tensor | None,
    threshold: Tensor | None,
    vocab_start: int,
    vocab_size: int,
    stream: int,
    k: int,
) -> tuple[Tensor, Tensor]:
    shape = ((logits if rows is None else rows).shape[0], k)
    return logits.new_empty(shape, dtype=torch.int64), logits.new_empty(shape, dtype=torch.float64)


register_reference("gumbel_argmax", reference.gumbel_argmax)
register_reference("gumbel_topk", reference.gumbel_topk)
