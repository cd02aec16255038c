"""The random stream in plain PyTorch: integer Philox exactly, normals by library functions in float64.

The kernels' normals are float32 results of fixed polynomials, so these agree with them to a few 1e-7;
uniforms and derived seeds agree exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TAG_NORMAL, TAG_UNIFORM, TAG_DERIVE = 10, 11, 15

_WORD = 0xFFFFFFFF
_INDEX_BITS = 28
# How many random bits a uniform of each type takes: as many as its mantissa holds, so that it never rounds up
# to 1.
_UNIFORM_BITS = {torch.float16: 11, torch.bfloat16: 8, torch.float32: 24, torch.float64: 53}


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the high and the low word of the 64-bit product of two words, in int64 without overflow."""
    low, high = a * (b & 0xFFFF), a * (b >> 16)
    low = low + ((high & 0xFFFF) << 16)
    return (high >> 16) + (low >> 32), low & _WORD


def philox4x32(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 (Salmon et al., SC 2011) on int64 tensors that hold 32-bit words.

    Parameters
    ----------
    counter : four int64 tensors of one shape (or broadcastable), values in [0, 2^32)
    key : two int64 tensors, likewise

    Returns
    -------
    tuple of four int64 tensors, values in [0, 2^32)

    Examples
    --------
    >>> zero = torch.zeros((), dtype=torch.int64)
    >>> [f"{int(w):08x}" for w in philox4x32([zero] * 4, [zero] * 2)]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(0xD2511F53, c0)
        high1, low1 = _multiply(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return c0, c1, c2, c3


def stream_words(
    tag: int, samples: int, blocks: Tensor, rng: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the words of the given blocks of every sample's stream, each int64 [samples, len(blocks)].

    Parameters
    ----------
    tag : which stream (design: "One random stream")
    samples : number of samples B
    blocks : int64 [n], block numbers inside a sample
    rng : int64 [2] = (seed, draw), then the samples are numbered 0..B-1; or [B, 3] = (seed, draw, sample id)
    """
    rows = rng.reshape(-1, rng.shape[-1])
    seed, draw = rows[:, 0:1], rows[:, 1:2] & _WORD
    ids = rows[:, 2:3] if rng.dim() == 2 else torch.arange(samples, device=rng.device)[:, None]
    counter = [(tag << _INDEX_BITS) | (blocks & ((1 << _INDEX_BITS) - 1)), ids & _WORD]
    counter += [((ids >> 32) + (blocks >> _INDEX_BITS)) & _WORD, draw]
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    return philox4x32([c0, c1, c2, c3], [seed & _WORD, (seed >> 32) & _WORD])


def _elements(parts: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Interleave the elements of each block and drop what the last block has too many."""
    return torch.stack(list(parts), -1).flatten(1)[:, : math.prod(size[1:])].reshape(tuple(size))


def _blocks(size: Sequence[int], per_block: int, rng: Tensor) -> Tensor:
    return torch.arange(-(-math.prod(size[1:]) // per_block), device=rng.device)


def random_normal(size: Sequence[int], rng: Tensor, dtype: torch.dtype) -> Tensor:
    """Reference of `torch.ops.fastdiff_ops.random_normal`; see `fastdiff_ops.ops.randn`."""
    where, rng = rng.device, rng.cpu()  # not every device has float64
    words = stream_words(TAG_NORMAL, size[0], _blocks(size, 4, rng), rng)
    values: list[Tensor] = []
    for radius_word, angle_word in (words[:2], words[2:]):
        # one rounding to float32, which is fma(float(w), 2^-32, 2^-33)
        u = (radius_word.float().double() * 2.0**-32 + 2.0**-33).float().double()
        radius = torch.sqrt(-2.0 * torch.log(u))
        fraction = (angle_word << 2) & _WORD
        signed = torch.where(fraction >= 1 << 31, fraction - (1 << 32), fraction).float().double()
        angle = (signed * 2.0**-32 + (angle_word >> 30)) * (math.pi / 2)
        values += [radius * torch.cos(angle), radius * torch.sin(angle)]
    return _elements(values, size).float().to(dtype).to(where)


def random_uniform(size: Sequence[int], rng: Tensor, dtype: torch.dtype) -> Tensor:
    """Reference of `torch.ops.fastdiff_ops.random_uniform`; see `fastdiff_ops.ops.rand`."""
    where, rng = rng.device, rng.cpu()
    bits = _UNIFORM_BITS[dtype]
    if dtype == torch.float64:
        words = stream_words(TAG_UNIFORM, size[0], _blocks(size, 2, rng), rng)
        numbers = [(words[k] << 21) | (words[k + 1] >> 11) for k in (0, 2)]
    else:
        words = stream_words(TAG_UNIFORM, size[0], _blocks(size, 4, rng), rng)
        numbers = [word >> (32 - bits) for word in words]
    return _elements([n.to(dtype) * 2.0**-bits for n in numbers], size).to(where)
