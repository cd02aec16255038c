"""Sampling where no process holds whole rows: each has the logits of a part of the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from fastdiff_ops.ops import gumbel_argmax, make_rng, resolve_seed, sample_with_scores, sampling_threshold
from fastdiff_ops.ops.random import Seed

_NOTHING = torch.iinfo(torch.int64).max  # no token has this number


class VocabParallelTokens(NamedTuple):
    """Tokens of `vocab_parallel_sample`, equal on every rank, [R] each.

    tokens : int64
        Ids in the whole vocabulary; -1 where no token is allowed.
    scores : float64
        The winning perturbed logits l + T g.
    logprob, entropy, logsumexp, residual : float64, or None without `score_temperature`
        Of softmax(l / score_temperature) over the whole vocabulary, before top-k, top-p and min-p: of the
        chosen token, of the distribution, log of the normaliser, and sum of exp((l_v - l_token) / Ts) over
        the other tokens (the odds against the chosen one: 1/p - 1 without cancellation).
    """

    tokens: Tensor
    scores: Tensor
    logprob: Tensor | None
    entropy: Tensor | None
    logsumexp: Tensor | None
    residual: Tensor | None


def vocab_parallel_sample(
    logits: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    group: dist.ProcessGroup | None = None,
    vocab_start: int | None = None,
    vocab_size: int | None = None,
    top_k: int | Tensor | None = None,
    top_p: float | Tensor | None = None,
    min_p: float | Tensor | None = None,
    score_temperature: float | Tensor | None = None,
    seed: Seed | Sequence[int] | Tensor = None,
    offset: int = 0,
    row_ids: Tensor | None = None,
    uncond_logits: Tensor | None = None,
    cfg_scale: float | Tensor | None = None,
    bias: Tensor | None = None,
    suppressed: Tensor | None = None,
    forbidden: Tensor | None = None,
    stream: str = "auto",
) -> VocabParallelTokens:
    """Draw tokens from logits whose vocabulary is spread over the processes of a group.

    Every rank calls it with the same rows and gets the same tokens: bit for bit those that one process with
    the whole rows would draw, whatever the shards' widths. 16 bytes a row and rank are exchanged.

    Parameters
    ----------
    logits : floating-point Tensor [R, Vs]
        This rank's columns of every row, Vs >= 1; widths may differ between ranks.
    temperature : float or Tensor [R]
        0 takes the argmax.
    group : ProcessGroup, optional
        Default: the default group.
    vocab_start, vocab_size : int, optional
        This rank's columns are [vocab_start, vocab_start + Vs) of vocab_size. Default: shards lie side by
        side in rank order, which costs an exchange of their widths, and a wait; give both where it matters.
    top_k, top_p, min_p : number or Tensor [R], optional
        Filters over the whole vocabulary, as in `fastdiff_ops.ops.sampling_threshold`.
    score_temperature : float or Tensor [R], optional
        > 0: also return statistics of softmax(logits / score_temperature).
    seed : int, torch.Generator, PhiloxState, None, or R ints
        The same on every rank, except that of a Generator and None, rank 0's numbers are used everywhere. A
        PhiloxState is read, not moved on.
    offset, row_ids
        Draw number and names of the rows, as in `fastdiff_ops.ops.gumbel_argmax`.
    uncond_logits, bias, suppressed : Tensor, optional
        This rank's columns: [R, Vs], [1 or R, Vs], [1 or R, Vs].
    cfg_scale : float or Tensor [R], optional
    forbidden : int64 Tensor [K], optional
        Ids in the whole vocabulary, the same on every rank.
    stream : "auto", "element" or "block16"

    Returns
    -------
    VocabParallelTokens

    Raises
    ------
    ValueError, TypeError
        A bad argument. It is raised before this rank exchanges anything, so that other ranks wait for it:
        raise it on all, or let the launcher end them.
    RuntimeError
        If torch.distributed is not initialised.

    Notes
    -----
    A token's noise depends on its id in the whole vocabulary, not on where it is stored, so each rank finds
    the exact winner of its columns, and the largest of those (ties: the smallest id) is the winner. The
    statistics are sums of the ranks' sums in rank order: the same on every rank and in every run, but rounded
    differently from one process's.

    Examples
    --------
    >>> import torch, torch.distributed as dist
    >>> from fastdiff_ops.ops import gumbel_argmax
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> logits = torch.randn(5, 100)
    >>> drawn = vocab_parallel_sample(logits, 0.8, seed=1)
    >>> bool((drawn.tokens == gumbel_argmax(logits, 0.8, seed=1)).all())
    True
    >>> dist.destroy_process_group()
    """
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[1] == 0:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"`logits` must be a Tensor [rows, columns of this rank], got {got}")
    if (vocab_start is None) != (vocab_size is None):
        raise ValueError("`vocab_start` and `vocab_size` go together")
    rng = _common_rng(seed, offset, logits, group)
    if vocab_start is None or vocab_size is None:
        vocab_start, vocab_size = _place(logits, group)
    processing: dict[str, Any] = {
        "uncond_logits": uncond_logits,
        "cfg_scale": cfg_scale,
        "bias": bias,
        "suppressed": suppressed,
        "forbidden": forbidden,
        "vocab_start": vocab_start,
        "vocab_size": vocab_size,
    }
    if not (top_k is None and top_p is None and min_p is None):
        processing["threshold"] = sampling_threshold(
            logits,
            temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            **processing,
            all_reduce=partial(_all_reduce, group),
        )
    drawing: dict[str, Any] = {**processing, "rng": rng, "row_ids": row_ids, "stream": stream}
    if score_temperature is None:
        tokens, scores = gumbel_argmax(logits, temperature, **drawing, return_score=True)
        tokens, scores, _ = _merge(tokens, scores, [], group)
        return VocabParallelTokens(tokens, scores, None, None, None, None)
    local = sample_with_scores(logits, temperature, score_temperature=score_temperature, **drawing)
    return _statistics(local, group)


def _group(group: dist.ProcessGroup | None) -> dist.ProcessGroup:
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError("torch.distributed is not initialised: call init_process_group first")
    if group is not None:
        return group
    default = dist.group.WORLD
    assert default is not None
    return default


def _common_rng(
    seed: Seed | Sequence[int] | Tensor, offset: int, logits: Tensor, group: dist.ProcessGroup | None
) -> Tensor:
    """The stream all ranks draw from: rank 0's, where the seed is drawn itself."""
    drawn = seed is None or isinstance(seed, torch.Generator)
    state = resolve_seed(seed) if seed is None or isinstance(seed, torch.Generator) else seed
    batch = None if isinstance(state, int) else len(logits)
    rng = make_rng(state, offset, batch=batch, device=logits.device)
    if drawn:
        _group(group)
        dist.broadcast(rng, group=group, group_src=0)
    return rng


def _place(logits: Tensor, group: dist.ProcessGroup | None) -> tuple[int, int]:
    """This rank's first column and the size of the vocabulary, shards side by side in rank order."""
    width = torch.tensor([logits.shape[1]], device=logits.device)
    widths = _gather(width, group).flatten().tolist()
    return sum(widths[: dist.get_rank(group)]), sum(widths)


def _all_reduce(group: dist.ProcessGroup | None, values: Tensor, how: str) -> Tensor:
    values = values.clone()
    dist.all_reduce(values, dist.ReduceOp.MAX if how == "max" else dist.ReduceOp.SUM, _group(group))
    return values


def _gather(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """[ranks, *values.shape], the same everywhere."""
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size(_group(group)))]
    dist.all_gather(parts, values.contiguous(), group=group)
    return torch.stack(parts)


def _ordered(z: Tensor) -> Tensor:
    """Float64 as int64 in the same order, -0 and 0 alike."""
    bits = (z + 0.0).view(torch.int64)
    return bits ^ ((bits >> 63) & torch.iinfo(torch.int64).max)


def _merge(
    tokens: Tensor, z: Tensor, others: list[Tensor], group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Global winners, their z, and what ranks say of `others` [ranks, len(others), R]: one exchange.

    The token -1 of a shard without candidates comes with z = -inf, which nothing else has.
    """
    packed = torch.stack([_ordered(z), tokens, *(other.view(torch.int64) for other in others)])
    everyone = _gather(packed, group)
    keys, ids = everyone[:, 0], everyone[:, 1]
    best = keys.max(0).values
    winners = torch.where(keys == best, ids, _NOTHING).min(0).values
    score = (best ^ ((best >> 63) & torch.iinfo(torch.int64).max)).view(torch.float64)
    return winners, score, everyone[:, 2:].contiguous().view(torch.float64)


def _statistics(local: Any, group: dist.ProcessGroup | None) -> VocabParallelTokens:
    """Statistics of whole rows from those of the shards.

    With Z_r = exp(logsumexp of shard r) and Z their sum: entropy = sum_r Z_r / Z (H_r + log Z - log Z_r), and
    the residual of the winner w in shard s = residual_s + sum_{r != s} exp(log Z_r - l_w / Ts).
    """
    scaled = local.logprob + local.logsumexp  # l / Ts of the shard's own token
    others = [local.logsumexp, local.entropy, local.residual, scaled]
    tokens, z, everyone = _merge(local.tokens, local.scores, [*others, local.tokens.double()], group)
    lse, entropy, residual, scaled, ids = everyone.unbind(1)
    infinite = lse == torch.inf  # such logits share all mass: a shard has residual + 1 of them
    shares = torch.where(infinite, torch.log1p(residual), lse)
    shares = torch.where(infinite.any(0) & ~infinite, -torch.inf, shares)
    here = ids == tokens  # where the winner is
    winner = torch.where(infinite.any(0), 0.0, torch.where(here, scaled, 0.0).sum(0))
    largest = shares.max(0).values
    total = torch.zeros_like(largest)
    for share in shares:  # rank by rank: a fixed order
        total = total + torch.exp(share - largest)
    log_z = largest + total.log()
    entropy_of_all, odds = torch.zeros_like(log_z), torch.zeros_like(log_z)
    for r, share in enumerate(shares):
        weight = torch.exp(share - log_z)
        part = weight * (entropy[r] + log_z - share)
        entropy_of_all = entropy_of_all + torch.where(weight > 0, part, 0.0)
        odds = odds + torch.where(here[r], residual[r], torch.exp(share - winner))
    nothing = tokens < 0
    log_z = torch.where(nothing, -torch.inf, torch.where(infinite.any(0), torch.inf, log_z))
    return VocabParallelTokens(
        tokens,
        z,
        torch.where(nothing, -torch.inf, -torch.log1p(odds)),
        torch.where(nothing, 0.0, entropy_of_all),
        log_z,
        torch.where(nothing, torch.inf, odds),
    )
