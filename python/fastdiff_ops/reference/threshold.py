"""Top-k, top-p and min-p as one threshold per row, by sorting.

Masses are integers, round(2^b exp((l - max) / T)), so that sums of them have no order: the kernels, and
shards of a vocabulary, find the same threshold to the last bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .categorical import processed_logits
from .exact import fd_log, fma

RADIX_BITS = 11
RADIX_BINS = 1 << RADIX_BITS

_LOG2_E = 1.4426950408889634
_FAR = -64.0
# 2^f on [-1/2, 1/2], minimax, highest power first
_EXP2 = (
    7.072585949269223e-09,
    1.0208690299958306e-07,
    1.321544258792169e-06,
    1.5252657260200837e-05,
    0.0001540353044173605,
    0.0013333558230164974,
    0.009618129107606888,
    0.05550410866444772,
    0.24022650695910097,
    0.69314718055995,
    1.0,
)


def mass_bits(vocab_size: int) -> int:
    """Return b: the mass of a row's maximum is 2^b, so that all masses of a row add up to at most 2^62."""
    return min(50, 62 - (vocab_size - 1).bit_length())


def masses(value: Tensor, row_max: Tensor, temperature: Tensor, bits: int) -> Tensor:
    """Return round(2^bits exp((l - max) / T)) as int64 [R, V]; at T = 0 only the maximum has mass."""
    top, wide = row_max.double()[:, None], value.double()
    heat = temperature.double()
    y = (wide - top) * (torch.full_like(heat, _LOG2_E) / heat)[:, None]  # number / tensor is not rounded once
    y = torch.where(wide == top, 0.0, y)
    y = torch.where(y > _FAR, y, _FAR)
    near = torch.round(y)
    f = y - near
    p = torch.full_like(f, _EXP2[0])
    for coefficient in _EXP2[1:]:
        p = fma(p, f, torch.full_like(f, coefficient))
    scale = torch.ldexp(torch.ones_like(f), (near + bits).int())
    return (fma(p, scale, torch.full_like(f, 2.0**52)) - 2.0**52).long()


def mass_target(top_p: Tensor, total: Tensor) -> Tensor:
    """Return ceil(p M), p rounded up to a multiple of 2^-53: in limbs, since the product has 115 bits."""
    p = torch.ceil(top_p.double() * 2.0**53).long()
    p_high, p_low = p >> 26, p & ((1 << 26) - 1)
    m_high, m_low = total >> 31, total & ((1 << 31) - 1)
    last = p_low * m_low
    middle = p_high * m_low + 32 * p_low * m_high + (last >> 26) + ((last & ((1 << 26) - 1)) != 0)
    return 16 * p_high * m_high + ((middle + (1 << 27) - 1) >> 27)


def min_p_threshold(row_max: Tensor, temperature: Tensor, min_p: Tensor) -> Tensor:
    """Return max + T ln(min_p), rounded up to the type of the maximum; -inf where min_p is 0."""
    wide = fma(temperature.double(), fd_log(min_p.double().clamp(min=2.0**-1022)), row_max.double())
    theta = wide.to(row_max.dtype)
    theta = torch.where(theta.double() < wide, torch.nextafter(theta, theta.new_tensor(torch.inf)), theta)
    return torch.where(min_p > 0, theta, -torch.inf)


def descending_keys(value: Tensor) -> Tensor:
    """Return integers that order as the logits do, the largest first: 32 bits in int64, or 64 (unsigned)."""
    value = value + 0.0
    if value.dtype == torch.float64:
        bits = value.view(torch.int64)
        return torch.where(bits < 0, bits, bits ^ torch.iinfo(torch.int64).max)
    bits = value.view(torch.int32).long()
    return torch.where(bits < 0, bits & 0xFFFFFFFF, bits ^ 0x7FFFFFFF)


def logits_of_keys(keys: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the logits that `descending_keys` were made from."""
    if dtype == torch.float64:
        bits = torch.where(keys < 0, keys, keys ^ torch.iinfo(torch.int64).max)
        return bits.view(torch.float64)
    bits = torch.where(keys >= 1 << 31, keys - (1 << 32), keys ^ 0x7FFFFFFF)
    return bits.int().view(torch.float32)


def radix_passes(dtype: torch.dtype) -> tuple[tuple[int, int], ...]:
    """Return (shift, bits) of each radix pass over the keys of logits."""
    left, passes = (64 if dtype == torch.float64 else 32), []
    while left > 0:
        bits = min(RADIX_BITS, left)
        left -= bits
        passes.append((left, bits))
    return tuple(passes)


def sampling_threshold(
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
    """Reference of `torch.ops.fastdiff_ops.sampling_threshold`; see `fastdiff_ops.ops.sampling_threshold`."""
    value = processed_logits(logits, rows, uncond_logits, cfg_scale, bias, suppressed, forbidden)
    n_rows, width = value.shape
    heat = temperature.expand(n_rows)
    ordered, order = value.sort(1, descending=True)
    top = ordered[:, 0]
    mass = masses(value, top, heat, mass_bits(width))
    total = mass.sum(1)
    theta = torch.full_like(top, -torch.inf)
    if top_k is not None:
        k = top_k.expand(n_rows)
        kth = ordered.gather(1, (k - 1).clamp(0, width - 1)[:, None])[:, 0]
        theta = torch.where((k > 0) & (k < width), kth, theta)
    if top_p is not None:
        p = top_p.expand(n_rows)
        before = mass.gather(1, order).cumsum(1) < mass_target(p, total)[:, None]
        crossing = ordered.gather(1, before.sum(1, keepdim=True).clamp(max=width - 1))[:, 0]
        theta = torch.where(p < 1, torch.maximum(theta, crossing), theta)
    if min_p is not None:
        theta = torch.maximum(theta, min_p_threshold(top, heat, min_p.expand(n_rows)))
    theta = torch.where(top == -torch.inf, -torch.inf, theta + 0.0)
    if not kept:
        return theta, theta.new_empty(0, dtype=torch.float64)
    inside = torch.where(value >= theta[:, None], mass, 0).sum(1)
    share = torch.where(theta == -torch.inf, 1.0, inside.double() / total.double())
    return theta, share


def threshold_histogram(
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
    """Reference of `torch.ops.fastdiff_ops.threshold_histogram`: the counts and masses of one radix pass."""
    value = processed_logits(logits, rows, uncond_logits, cfg_scale, bias, suppressed, forbidden)
    n_rows = value.shape[0]
    keys = descending_keys(value)
    shift, bits = radix_passes(value.dtype)[radix_pass]
    digits = (keys >> shift) & ((1 << bits) - 1)
    high = (keys >> shift) >> bits
    if radix_pass > 0 and value.dtype == torch.float64:
        high &= (1 << (64 - shift - bits)) - 1  # int64 shifts bring the sign along
    elif radix_pass == 0:
        high = torch.zeros_like(high)
    mass = masses(value, row_max, temperature.expand(n_rows), mass_bits(vocab_size))
    weights = torch.stack([torch.ones_like(mass), mass], 1)
    weights = torch.where(high[:, None] == prefix[:, :, None], weights, 0)
    out = torch.zeros(n_rows, 2, RADIX_BINS, dtype=torch.int64, device=logits.device)
    return out.scatter_add_(2, digits[:, None].expand(-1, 2, -1), weights)
