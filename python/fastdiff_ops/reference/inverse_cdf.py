"""Draws from probabilities as they are given, by inversion, with float64 sums in a fixed shape."""

from __future__ import annotations

import torch
from torch import Tensor

from .gumbel import full_range_uniform, philox_words, stream_of_rows

TAG_INVERSE_CDF = 9
CHUNK = 64
TILE = CHUNK * CHUNK


def _sum64(a: Tensor) -> Tensor:
    """Sum over the last axis of 64, adding halves until one number is left."""
    while a.shape[-1] > 1:
        half = a.shape[-1] // 2
        a = a[..., :half] + a[..., half:]
    return a[..., 0]


def _search(sums: Tensor, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the running sum passes x, else the last place that is not zero; and the sum before it."""
    positive = sums > 0
    running = torch.cat([before[:, None], torch.where(positive, sums, 0.0)], 1).cumsum(1)
    passes = positive & (running[:, 1:] > x[:, None])
    last = positive.shape[1] - 1 - positive.flip(1).int().argmax(1)
    place = torch.where(passes.any(1), passes.int().argmax(1), last)
    return place, running.gather(1, place[:, None])[:, 0]


def inverse_cdf(probs: Tensor, rng: Tensor, row_ids: Tensor | None) -> Tensor:
    """Reference of `torch.ops.fastdiff_ops.inverse_cdf`; see `fastdiff_ops.ops.inverse_cdf`."""
    n_rows, width = probs.shape
    where, probs = probs.device, probs.cpu().double()
    p = torch.where(probs >= 0, probs, torch.nan)
    p = torch.nn.functional.pad(p, (0, -width % TILE)).view(n_rows, -1, CHUNK, CHUNK)
    chunks = _sum64(p)
    tiles = _sum64(chunks)
    zero = torch.zeros(n_rows, dtype=torch.float64)
    total = torch.cat([zero[:, None], tiles], 1).cumsum(1)[:, -1]
    key, draw, row = stream_of_rows(rng.cpu(), None if row_ids is None else row_ids.cpu(), n_rows)
    words = philox_words(TAG_INVERSE_CDF, torch.zeros_like(row), row, draw, key)
    x = full_range_uniform(words[3] & 0xFFFF, words) * total
    rows = torch.arange(n_rows)
    tile, before = _search(tiles, x, zero)
    chunk, before = _search(chunks[rows, tile], x, before)
    place, _ = _search(p[rows, tile, chunk], x, before)
    token = tile * TILE + chunk * CHUNK + place
    return torch.where((total > 0) & (total < torch.inf), token, -1).to(where)
