"""Hitting times, reveal steps, commitment and remasking in plain PyTorch, equal to kernels bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from .random import philox4x32

TAG_HIT, TAG_REMASK = 6, 7
COUNT, THRESHOLD, FACTOR, ENTROPY_BOUND = range(4)

_WORD = 0xFFFFFFFF
_SIGN = -(1 << 63)


def position_bits(tag: int, shape: Sequence[int], rng: Tensor, sequence_ids: Tensor | None) -> Tensor:
    """Return the 64 random bits of every position, int64 [B, L] on the CPU; they are meant as unsigned.

    Parameters
    ----------
    tag : which stream
    shape : [B, L]
    rng : int64 [2] = (seed, draw) or [B, 3] = (seed, draw, sequence id)
    sequence_ids : int64 [B], optional; otherwise those of `rng`, or 0..B-1
    """
    batch, length = shape
    rows = rng.cpu().reshape(-1, rng.shape[-1])
    if sequence_ids is not None:
        ids = sequence_ids.cpu()
    else:
        ids = rows[:, 2] if rng.dim() == 2 else torch.arange(batch)
    counter = [torch.tensor(tag << 28), torch.arange(length), ids[:, None] & _WORD, rows[:, 1:2] & _WORD]
    seed = rows[:, 0:1]
    key = torch.broadcast_tensors(seed & _WORD, (seed >> 32) & _WORD)
    high, low, _, _ = philox4x32(torch.broadcast_tensors(*counter), key)
    return ((high << 32) | low).expand(batch, length)


def as_uniform(bits: Tensor) -> Tensor:
    """Return n 2^-64 to 53 significant bits, the last one sticky: float64 in (0, 1)."""
    high, low = (bits >> 32) & _WORD, bits & _WORD
    _, exponent = torch.frexp(torch.where(high > 0, high, low).double())  # exact: 32 bits at most
    zeros = torch.where(high > 0, 32, 64) - exponent
    significand = ((bits << zeros.clamp(max=63)) >> 11) & ((1 << 53) - 1) | 1
    u = torch.ldexp(significand.double(), -53 - zeros)
    return torch.where(bits == 0, 2.0**-65, u)


def first_hitting_times(
    mask: Tensor, rng: Tensor, sequence_ids: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Reference of `torch.ops.fastdiff_ops.first_hitting_times`; see the wrapper of that name."""
    masked = mask.cpu()
    bits = position_bits(TAG_HIT, mask.shape, rng, sequence_ids)
    by_key = (bits ^ _SIGN).argsort(dim=1, descending=True, stable=True)
    masked_first = masked.gather(1, by_key).long().argsort(dim=1, descending=True, stable=True)
    order = by_key.gather(1, masked_first)
    count = masked.sum(1)
    hit = torch.arange(mask.shape[1]) < count[:, None]
    u = torch.where(hit, as_uniform(bits).gather(1, order), 0.0)
    where = mask.device
    return torch.where(hit, order, -1).int().to(where), u.to(where), count.int().to(where)


def reveal_steps(mask: Tensor, mask_prob: Tensor, rng: Tensor, sequence_ids: Tensor | None) -> Tensor:
    """Reference of `torch.ops.fastdiff_ops.reveal_steps`; see `fastdiff_ops.ops.reveal_steps`."""
    grid = mask_prob.cpu()
    hit = grid[0] * as_uniform(position_bits(TAG_HIT, mask.shape, rng, sequence_ids))
    above = (grid > hit[..., None]).sum(-1)
    return torch.where(mask.cpu(), above.clamp(min=1) - 1, -1).int().to(mask.device)


def remask_(
    tokens: Tensor,
    prob: Tensor,
    eligible: Tensor | None,
    mask_id: int,
    rng: Tensor,
    sequence_ids: Tensor | None,
) -> Tensor:
    """Reference of `torch.ops.fastdiff_ops.remask_`; see `fastdiff_ops.ops.remask_`."""
    bits = position_bits(TAG_REMASK, tokens.shape, rng, sequence_ids)
    p = prob.cpu().double().expand(tokens.shape)
    # p 2^64 as an unsigned number in int64: its upper half does not fit, and wraps to the negative numbers
    upper = p >= 0.5
    scaled = torch.where(upper, p - 0.5, p).clamp(0, 0.5 - 2.0**-54) * 2.0**64
    limit = scaled.long() ^ torch.where(upper, _SIGN, 0)
    happens = (p >= 1) | ((p > 0) & ((bits ^ _SIGN) < (limit ^ _SIGN)))
    remasked = happens.to(tokens.device) & (tokens != mask_id)
    if eligible is not None:
        remasked &= eligible
    tokens.masked_fill_(remasked, mask_id)
    return remasked


def select_transfer(
    score: Tensor, candidate: Tensor, limit: Tensor, entropy: Tensor | None, rule: int, residual: bool
) -> Tensor:
    """Reference of `torch.ops.fastdiff_ops.select_transfer`; see `fastdiff_ops.ops.select_transfer`."""
    values, wanted = score.cpu(), candidate.cpu()
    bound = limit.cpu().expand(len(wanted))
    chosen = torch.zeros_like(wanted)
    for b in range(len(wanted)):
        places = wanted[b].nonzero()[:, 0]
        value = values[b, places]
        rank = torch.where(value.isnan(), -torch.inf, -value if residual else value)
        # best first; NaN after -inf; ties in the order of positions
        order = value.isnan().long().argsort(stable=True)
        order = order[rank[order].argsort(descending=True, stable=True)]
        places, value = places[order], value[order]
        n = len(places)
        if n == 0:
            continue
        shortfall = 1 / (1 + 1 / value.double()) if residual else 1 - value.double()
        if rule == COUNT:
            taken = torch.arange(n) < bound[b]
        elif rule == THRESHOLD and residual:
            taken = shortfall <= 1 - bound[b]
        elif rule == THRESHOLD:
            taken = value >= bound[b].to(value.dtype)
        elif rule == FACTOR:
            taken = torch.arange(2, n + 2) * shortfall < bound[b]
        else:
            assert entropy is not None
            h = entropy.cpu()[b, places].double()
            sums = torch.tensor(list(itertools.accumulate(h.tolist())), dtype=torch.float64)  # one by one
            taken = (sums - h.cummax(0).values <= bound[b]).long().cumprod(0).bool()
        if rule != COUNT:
            taken[0] = True
        chosen[b, places[taken]] = True
    return chosen.to(candidate.device)
