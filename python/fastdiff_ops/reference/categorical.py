"""Exact draws from softmax(logits / temperature), evaluated in full: this is the definition.

A token's noise is a function of (seed, draw, row, token) alone. The kernels compute it only where it can
matter and must find the same token and the same perturbed logit, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .exact import fd_log, fma
from .gumbel import chunks, exponentials, stream_of_rows


def processed_logits(
    logits: Tensor,
    rows: Tensor | None,
    uncond_logits: Tensor | None,
    cfg_scale: Tensor | None,
    bias: Tensor | None,
    suppressed: Tensor | None,
    forbidden: Tensor | None,
    vocab_start: int = 0,
) -> Tensor:
    """Return the logits that are drawn from, before any threshold: [R, V], float32 or float64.

    In this order: guidance u + (w + 1) (c - u) as one fma, bias, suppressed and forbidden tokens, NaN; the
    last three become -inf.
    """
    kind = torch.float64 if logits.dtype == torch.float64 else torch.float32
    chosen = logits if rows is None else logits.index_select(0, rows)
    value = chosen.to(kind)
    if uncond_logits is not None and cfg_scale is not None:
        base = (uncond_logits if rows is None else uncond_logits.index_select(0, rows)).to(kind)
        w = cfg_scale.to(kind)[:, None]
        value = torch.where(w == 0, value, fma(w + 1, value - base, base))
    if bias is not None:
        value = value + bias.to(kind)
    if suppressed is not None:
        value = value.masked_fill(suppressed, -torch.inf)
    if forbidden is not None:
        local = forbidden - vocab_start
        local = local[(local >= 0) & (local < value.shape[1])]
        value = value.index_fill(1, local, -torch.inf)
    return value.masked_fill(value.isnan(), -torch.inf)


def perturbed_logits(value: Tensor, threshold: Tensor | None, temperature: Tensor, noise: Tensor) -> Tensor:
    """Return z = fma(T, g, l) in float64, l where T = 0; -inf below the threshold."""
    if threshold is not None:
        value = value.masked_fill(value < threshold.to(value.dtype)[:, None], -torch.inf)
    value, t = value.double(), temperature.double()[:, None]
    return torch.where(t == 0, value, fma(t, noise, value))


def draw_statistics(value: Tensor, tokens: Tensor, score_temperature: Tensor) -> Tensor:
    """Return logprob of the token, entropy, top-2 margin, logsumexp and residual odds: float64 [R, 5].

    All of p = softmax(value / score_temperature); `tokens` are columns, -1 for none (then the first is -inf
    and the last inf). Infinite logits share all mass equally, and their logsumexp is inf. A row of -inf has
    entropy and margin 0.
    """
    value, scale = value.double(), score_temperature.double()
    most = value.max(1).values
    # of infinite logits only these count, and are equal
    value = torch.where((most == torch.inf)[:, None], torch.where(value == torch.inf, 0.0, -torch.inf), value)
    base = torch.where(most.isfinite(), most, 0.0)
    shifted = (value - base[:, None]) / scale[:, None]
    weight = shifted.exp()
    total = weight.sum(1).clamp(min=1.0)  # at least 1, but in an empty row
    lse = most / scale + total.log()
    entropy = total.log() - torch.where(weight > 0, weight * shifted, 0.0).sum(1) / total
    pair = torch.nn.functional.pad(weight, (0, 1)).topk(2, 1).values
    margin = (pair[:, 0] - pair[:, 1]) / total
    at = tokens.clamp(min=0)[:, None]
    own = shifted.gather(1, at)[:, 0]
    none = (tokens < 0) | (own == -torch.inf)
    others = weight.scatter(1, at, 0.0).sum(1)
    logprob = torch.where(none, -torch.inf, own - total.log())
    residual = torch.where(none, torch.inf, others / own.exp())
    return torch.stack([logprob, entropy, margin, lse, residual], 1)


def _rows(value: Tensor | None, part: slice) -> Tensor | None:
    """Return the given rows of a tensor that has one for each row of the result, or one for all."""
    return value if value is None or value.shape[0] == 1 else value[part]


def _candidates(
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
    stream: int,
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield some rows of the result, their processed logits and their perturbed logits, [r, V] each."""
    n_rows, width = (logits if rows is None else rows).shape[0], logits.shape[1]
    key, draw, row = stream_of_rows(rng, row_ids, n_rows)
    rows = torch.arange(n_rows, device=logits.device) if rows is None else rows
    tokens = torch.arange(vocab_start, vocab_start + width, device=logits.device)
    for part in chunks(n_rows, width):
        value = processed_logits(
            logits,
            rows[part],
            uncond_logits,
            _rows(cfg_scale, part),
            _rows(bias, part),
            _rows(suppressed, part),
            forbidden,
            vocab_start,
        )
        noise = -fd_log(exponentials(tokens, row[part], draw[part], (key[0][part], key[1][part]), stream))
        yield (
            part,
            value,
            perturbed_logits(value, _rows(threshold, part), temperature.expand(n_rows)[part], noise),
        )


def gumbel_argmax(
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
    """Reference of `torch.ops.fastdiff_ops.gumbel_argmax`; see `fastdiff_ops.ops.gumbel_argmax`."""
    n_rows = (logits if rows is None else rows).shape[0]
    tokens = torch.empty(n_rows, dtype=torch.int64, device=logits.device)
    scores = torch.empty(n_rows, dtype=torch.float64, device=logits.device)
    scored = score_temperature is not None
    stats = scores.new_empty((n_rows, 5) if scored else (0,))
    parts = _candidates(
        logits, temperature, rng, row_ids, rows, uncond_logits, cfg_scale, bias, suppressed, forbidden,
        threshold, vocab_start, stream,
    )  # fmt: skip
    for part, value, z in parts:
        best = z.argmax(1)  # the first of equal ones
        score = z.gather(1, best[:, None])[:, 0]
        best = torch.where(score == -torch.inf, -1, best)
        scores[part] = score
        tokens[part] = torch.where(best < 0, -1, best + vocab_start)
        if score_temperature is not None:
            stats[part] = draw_statistics(value, best, score_temperature.expand(n_rows)[part])
    return tokens, scores, stats


def gumbel_topk(
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
    """Reference of `torch.ops.fastdiff_ops.gumbel_topk`; see `fastdiff_ops.ops.gumbel_topk`."""
    n_rows = (logits if rows is None else rows).shape[0]
    tokens = torch.empty((n_rows, k), dtype=torch.int64, device=logits.device)
    scores = torch.empty((n_rows, k), dtype=torch.float64, device=logits.device)
    parts = _candidates(
        logits, temperature, rng, row_ids, rows, uncond_logits, cfg_scale, bias, suppressed, forbidden,
        threshold, vocab_start, stream,
    )  # fmt: skip
    for part, _, z in parts:
        z, order = torch.sort(z, dim=1, descending=True, stable=True)
        scores[part] = z[:, :k]
        tokens[part] = torch.where(z[:, :k] == -torch.inf, -1, order[:, :k] + vocab_start)
    return tokens, scores


def first_hitting_step_(
    tokens: Tensor,
    logits: Tensor,
    positions: Tensor,
    temperature: Tensor,
    rng: Tensor,
    sequence_ids: Tensor | None,
    uncond_logits: Tensor | None,
    cfg_scale: Tensor | None,
    bias: Tensor | None,
    suppressed: Tensor | None,
    forbidden: Tensor | None,
    threshold: Tensor | None,
    stream: int,
    method: int,
) -> Tensor:
    """Reference of `torch.ops.fastdiff_ops.first_hitting_step_`; see the wrapper in `fastdiff_ops.ops`."""
    (batch, k), (_, given, width) = positions.shape, logits.shape
    places = positions.long()
    if bool((places >= tokens.shape[1]).any()):
        raise IndexError(f"`positions` must be below the length {tokens.shape[1]}, got {int(places.max())}")
    states = rng.reshape(-1, rng.shape[-1]).expand(batch, -1)
    if sequence_ids is None:
        sequence_ids = states[:, 2] if rng.dim() == 2 else torch.arange(batch, device=rng.device)
    where = torch.arange(k, device=tokens.device).expand(batch, k) if given == k else places.clamp(min=0)
    keys = (sequence_ids[:, None] << 32 | places.clamp(min=0)).flatten()
    rows = (torch.arange(batch, device=tokens.device)[:, None] * given + where).flatten()
    row_rng = torch.cat([states[:, :2].repeat_interleave(k, 0), keys[:, None]], 1)
    flat = None if uncond_logits is None else uncond_logits.reshape(-1, width)
    drawn, _, _ = gumbel_argmax(
        logits.reshape(-1, width), temperature, row_rng, None, rows, flat, cfg_scale, bias, suppressed,
        forbidden, threshold, None, 0, width, stream, method,
    )  # fmt: skip
    drawn = torch.where(places < 0, -1, drawn.reshape(batch, k))
    sequence, column = (drawn >= 0).nonzero(as_tuple=True)
    tokens[sequence, places[sequence, column]] = drawn[sequence, column]
    return drawn
