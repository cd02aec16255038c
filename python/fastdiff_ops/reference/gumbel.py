"""The noise of a categorical draw: Gumbel numbers that depend on (seed, draw, row, token) alone.

Uniforms of full range, 2^-129 to 1 - 2^-53, keep 53 bits at every size, so nothing is cut off in the tails
(arXiv 2409.02908 shows what a cut costs).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .exact import exponential, fd_log
from .random import philox4x32

ELEMENT, BLOCK16 = 0, 1
(TAG_PREFIX, TAG_TAIL, TAG_BLOCK_PREFIX, TAG_BLOCK_TAIL, TAG_INNER_PREFIX, TAG_INNER_TAIL) = range(6)

_WORD = 0xFFFFFFFF
_CHUNK = 1 << 19  # numbers evaluated at once


def stream_of_rows(
    rng: Tensor, row_ids: Tensor | None, n_rows: int
) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """Return the Philox key (two words), draw number and 64-bit id of each row, int64 [R] each.

    `row_ids` names the rows; else the third column of an `rng` [R, 3] does; else they are 0..R-1.
    """
    states = rng.reshape(-1, rng.shape[-1]).expand(n_rows, -1)
    if row_ids is None:
        row_ids = states[:, 2] if rng.dim() == 2 else torch.arange(n_rows, device=rng.device)
    seed = states[:, 0]
    return (seed & _WORD, (seed >> 32) & _WORD), states[:, 1] & _WORD, row_ids


def philox_words(
    tag: int, index: Tensor, row: Tensor, draw: Tensor, key: tuple[Tensor, Tensor]
) -> tuple[Tensor, ...]:
    """Return the four words of counter (tag << 28 | index, row low, row high, draw); arguments broadcast."""
    counter = torch.broadcast_tensors(tag << 28 | index, row & _WORD, (row >> 32) & _WORD, draw)
    return philox4x32(counter, key)


def _half(words: tuple[Tensor, ...], j: Tensor) -> Tensor:
    """Return half j (0..7) of four words, 16 bits."""
    word = words[3]
    for k in (2, 1, 0):
        word = torch.where(j >> 1 == k, words[k], word)
    return (word >> (16 * (j & 1))) & 0xFFFF


def full_range_uniform(prefix: Tensor, tail: tuple[Tensor, ...]) -> Tensor:
    """Return the fraction of 128 bits, 16 in `prefix` and 112 in `tail`, to 53 bits: in [2^-129, 1).

    The last of the 53 bits is always set, for all that follow it. So the number is never 0 nor 1 and has full
    precision however small it is.
    """
    t0, t1, t2, t3 = tail
    pieces = [t0 >> 16, t0 & 0xFFFF, t1 >> 16, t1 & 0xFFFF, t2 >> 16, t2 & 0xFFFF, t3 >> 16]
    pieces = list(torch.broadcast_tensors(prefix, *pieces)) + [torch.zeros_like(prefix)] * 5
    window, leading = pieces[:5], torch.zeros_like(t0)
    for k in range(1, 9):  # drop leading pieces that are zero
        empty = window[0] == 0
        if not bool(empty.any()):
            break
        window = [torch.where(empty & (leading == 16 * (k - 1)), pieces[k + i], window[i]) for i in range(5)]
        leading = torch.where(empty, torch.full_like(leading, 16 * k), leading)
    bits_of_first = torch.frexp(window[0].double()).exponent.long()  # 0 only if all 128 bits are
    zeros = torch.where(window[0] == 0, 0, 16 - bits_of_first)
    high = (window[0] << 32) | (window[1] << 16) | window[2]
    low = (window[3] << 16) | window[4]
    significand = (high << (5 + zeros)) | (low >> (27 - zeros)) | 1
    w = torch.ldexp(significand.double(), -53 - leading - zeros)
    return torch.where(window[0] == 0, 2.0**-129, w)


def standard_exponential(
    tags: tuple[int, int],
    prefix_index: Tensor,
    tail_index: Tensor,
    row: Tensor,
    draw: Tensor,
    key: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Return a standard exponential per index, and the last word of its tail (block16 takes 4 bits of it)."""
    prefix = _half(philox_words(tags[0], prefix_index >> 3, row, draw, key), prefix_index & 7)
    tail = philox_words(tags[1], tail_index, row, draw, key)
    return exponential(full_range_uniform(prefix, tail)), tail[3]


def exponentials(
    tokens: Tensor, row: Tensor, draw: Tensor, key: tuple[Tensor, Tensor], stream: int
) -> Tensor:
    """Return E of every (row, token), independent standard exponentials; float64 [R, n].

    Parameters
    ----------
    tokens : int64 [n], global token numbers
    row, draw : int64 [R]
    key : two int64 [R]
    stream : 0 element: a number for each token. 1 block16: tokens 4096 tau + 256 i + r, i = 0..15, are a
        block; its minimum is an exponential / 16, sits at a uniform place, and the others exceed it by
        independent exponentials.
    """
    row, draw, key = row[:, None], draw[:, None], (key[0][:, None], key[1][:, None])
    v = tokens[None]
    if stream == ELEMENT:
        return standard_exponential((TAG_PREFIX, TAG_TAIL), v, v, row, draw, key)[0]
    block, place = ((v >> 12) << 8) | (v & 255), (v >> 8) & 15
    tags = (TAG_BLOCK_PREFIX, TAG_BLOCK_TAIL)
    minimum, word = standard_exponential(tags, block, block, row, draw, key)
    minimum = minimum / 16
    tags = (TAG_INNER_PREFIX, TAG_INNER_TAIL)
    excess, _ = standard_exponential(tags, (block << 4) | place, v, row, draw, key)
    return torch.where(place == word & 15, minimum, minimum + excess)


def gumbel_noise(
    rng: Tensor, row_ids: Tensor | None, n_rows: int, stream: int, start: int, stop: int
) -> Tensor:
    """Return the Gumbel noise of tokens start..stop-1 in every row: float64 [R, stop - start]."""
    key, draw, row = stream_of_rows(rng, row_ids, n_rows)
    tokens = torch.arange(start, stop, device=rng.device)
    noise = [
        -fd_log(exponentials(tokens, row[part], draw[part], (key[0][part], key[1][part]), stream))
        for part in chunks(n_rows, stop - start)
    ]
    return (
        torch.cat(noise) if noise else torch.empty((0, stop - start), dtype=torch.float64, device=rng.device)
    )


def chunks(n_rows: int, width: int) -> Iterator[slice]:
    """Cut rows of some width into parts that fit into a cache."""
    step = max(1, _CHUNK // max(1, width))
    return (slice(first, first + step) for first in range(0, n_rows, step))
