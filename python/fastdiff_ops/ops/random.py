"""Random numbers that depend on nothing but (seed, offset, sample, element): not on device, threads or batch.

The library's generator is the counter-based Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy
as 1, 2, 3", SC 2011): a number is computed from its place, so a sample drawn alone, in a permuted batch or on
another machine is the same sample.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex, TypeAlias

import torch
from torch import Tensor

from .._load import load_ops
from ..reference import random as stream
from ._registration import register_reference

load_ops()

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_OFFSETS = 1 << 32
_SEEDS = 1 << 64


def _integer(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(f"`{name}` must be an int, got {type(value).__name__}")
    number = operator.index(value)
    if not low <= number < high:
        raise ValueError(f"`{name}` must be in [{low}, {high}), got {number}")
    return number


@dataclass
class PhiloxState:
    """A place in the random stream: which seed, and how many draws have been used.

    It is mutable: a sampler advances the state it was given, so that its next run draws fresh numbers. The
    operators themselves (`randn`, `rand`, `solver_step`) only read it.

    Attributes
    ----------
    seed : int
        0 <= seed < 2^64; negative numbers from -2^63 are taken modulo 2^64, as `torch.manual_seed` does.
    offset : int
        Number of the next draw, 0 <= offset < 2^32.

    Raises
    ------
    ValueError, TypeError
        If either is out of range or no integer.

    Examples
    --------
    >>> state = PhiloxState(seed=7)
    >>> state.advance(50)
    >>> state
    PhiloxState(seed=7, offset=50)
    >>> state.fork(0) == state.fork(1)
    False
    """

    seed: int
    offset: int = 0

    def __post_init__(self) -> None:
        self.seed = _integer("seed", self.seed, -(_SEEDS >> 1), _SEEDS) % _SEEDS
        self.offset = _integer("offset", self.offset, 0, _OFFSETS)

    def advance(self, draws: int) -> None:
        """Use up `draws` draws, in place."""
        self.offset = _integer("offset", self.offset + _integer("draws", draws, 0, _OFFSETS), 0, _OFFSETS)

    def fork(self, k: int) -> PhiloxState:
        """Return the k-th derived state, 0 <= k < 2^28: a new seed, at draw 0.

        The new seed is a function of the seed and k alone (stream tag 15), not of the offset.
        """
        index = _integer("k", k, 0, 1 << 28)
        counter = [torch.tensor(word) for word in (stream.TAG_DERIVE << 28 | index, 0, 0, 0)]
        key = [torch.tensor(self.seed & 0xFFFFFFFF), torch.tensor(self.seed >> 32)]
        low, high, _, _ = stream.philox4x32(counter, key)
        return PhiloxState(int(low) | int(high) << 32)


Seed: TypeAlias = int | torch.Generator | PhiloxState | None


def resolve_seed(seed: Seed = None) -> PhiloxState:
    """Return the Philox state that a `seed` argument means.

    Parameters
    ----------
    seed : int, torch.Generator, PhiloxState or None
        An int is a seed, at draw 0. A PhiloxState is returned itself. From a generator 64 bits are drawn,
        which advances it (and waits for the device it lives on); None is torch's default CPU generator, so
        that `torch.manual_seed` makes runs repeatable.

    Raises
    ------
    TypeError, ValueError
        If `seed` is none of these or out of range.

    Examples
    --------
    >>> resolve_seed(3)
    PhiloxState(seed=3, offset=0)
    >>> a = resolve_seed(torch.Generator().manual_seed(0))
    >>> b = resolve_seed(torch.Generator().manual_seed(0))
    >>> a == b
    True
    """
    if isinstance(seed, PhiloxState):
        return seed
    if seed is None or isinstance(seed, torch.Generator):
        device = "cpu" if seed is None else seed.device
        high, low = torch.randint(1 << 32, (2,), generator=seed, device=device, dtype=torch.int64).tolist()
        return PhiloxState(high << 32 | low)
    if isinstance(seed, bool) or not isinstance(seed, SupportsIndex):
        wanted = "an int, torch.Generator, PhiloxState or None"
        raise TypeError(f"`seed` must be {wanted}, got {type(seed).__name__}")
    return PhiloxState(operator.index(seed))


def make_rng(
    seed: Seed | Sequence[int] | Tensor = None,
    offset: int = 0,
    *,
    batch: int | None = None,
    sample_ids: Tensor | Sequence[int] | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the `rng` tensor that operators take: which stream each sample reads.

    Parameters
    ----------
    seed : int, torch.Generator, PhiloxState, None, or B ints (a sequence or a 1-d integer tensor)
        One seed for all samples, or a seed for each sample.
    offset : int
        Draw number, added to that of a PhiloxState; the sum must be below 2^32.
    batch : int, optional
        Number of samples B, if it is to be checked.
    sample_ids : B ints in [0, 2^32), optional
        Names of the samples inside a seed's stream. Default: 0..B-1; with a seed per sample, all 0, so that
        each is what it would be alone.
    device : torch.device or str
        Where the operator's data is.

    Returns
    -------
    int64 Tensor
        [2] = (seed, offset) when one seed numbers its samples 0..B-1, else [B, 3] = (seed, offset, sample
        id). Seeds from 2^63 on appear negative: it is the bits that count.

    Raises
    ------
    ValueError, TypeError
        If something is out of range, or lengths differ.

    Examples
    --------
    >>> make_rng(5, offset=2)
    tensor([5, 2])
    >>> make_rng([5, 6])
    tensor([[5, 0, 0],
            [6, 0, 0]])
    >>> make_rng(5, sample_ids=[4, 1])
    tensor([[5, 0, 4],
            [5, 0, 1]])
    """
    number = _integer("offset", offset, 0, _OFFSETS)
    ids = None if sample_ids is None else _integers("sample_ids", sample_ids)
    if isinstance(seed, Tensor | Sequence) and not (isinstance(seed, Tensor) and seed.dim() == 0):
        states = [PhiloxState(s, number) for s in _integers("seed", seed)]
        ids = [0] * len(states) if ids is None else ids
    else:
        state = resolve_seed(int(seed) if isinstance(seed, Tensor) else seed)
        states = [PhiloxState(state.seed, _integer("offset", state.offset + number, 0, _OFFSETS))]
        if ids is not None:
            states *= len(ids)
    if ids is None:
        return torch.tensor([_signed(states[0].seed), states[0].offset], device=device)
    if len(states) != len(ids):
        raise ValueError(f"`seed` and `sample_ids` must have one length, got {len(states)} and {len(ids)}")
    if batch is not None and len(ids) != batch:
        raise ValueError(
            f"`seed` and `sample_ids` must have an entry for each sample: {batch}, got {len(ids)}"
        )
    rows = [
        [_signed(s.seed), s.offset, _integer("sample_ids", i, 0, 1 << 32)]
        for s, i in zip(states, ids, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.int64, device=device).reshape(-1, 3)


def _integers(name: str, values: Tensor | Sequence[int]) -> list[int]:
    if isinstance(values, Tensor):
        if values.dim() != 1 or values.dtype not in _INTEGERS:
            got = f"{values.dtype} of shape {tuple(values.shape)}"
            raise ValueError(f"`{name}` must be a 1-d integer tensor, got {got}")
        return [int(v) for v in values.tolist()]
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise TypeError(f"`{name}` must be a sequence of ints or a Tensor, got {type(values).__name__}")
    return [_integer(name, v, -(_SEEDS >> 1), _SEEDS) for v in values]


def _signed(seed: int) -> int:
    return seed - _SEEDS if seed >= _SEEDS >> 1 else seed


def randn(
    shape: Sequence[int],
    *,
    seed: Seed | Sequence[int] | Tensor = None,
    offset: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    sample_ids: Tensor | Sequence[int] | None = None,
) -> Tensor:
    """Return standard normals, the noise that `sample` and `solver_step` draw.

    Parameters
    ----------
    shape : sequence of ints [B, *S]
        Axis 0 counts samples.
    seed, offset, sample_ids
        Which stream each sample reads, see `make_rng`. A PhiloxState is read, not advanced.
    dtype : torch.dtype
        float16, bfloat16, float32 or float64. All hold the same float32 number, converted.
    device : torch.device or str

    Returns
    -------
    Tensor [B, *S], contiguous

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    Box-Muller in float32 on 32-bit words: |z| <= 6.77. The numbers are bit for bit those of every device and
    processor.

    Examples
    --------
    >>> x = randn((4, 3), seed=1)
    >>> bool((x[2:3] == randn((1, 3), seed=1, sample_ids=[2])).all())
    True
    """
    rng = _checked(shape, seed, offset, dtype, device, sample_ids)
    values: Tensor = torch.ops.fastdiff_ops.random_normal.default(shape, rng, dtype)
    return values


def rand(
    shape: Sequence[int],
    *,
    seed: Seed | Sequence[int] | Tensor = None,
    offset: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    sample_ids: Tensor | Sequence[int] | None = None,
) -> Tensor:
    """Return uniform numbers in [0, 1): multiples of 2^-p with as many bits p as the type's significand has.

    Arguments, result and errors are those of `randn`. The stream is another one: normals and uniforms of one
    seed are independent. The types up to float32 hold one number, truncated to their p bits; float64 uses two
    words of the stream for each number.

    Examples
    --------
    >>> x = rand((2, 1000), seed=1)
    >>> bool((x >= 0).all() and (x < 1).all())
    True
    """
    rng = _checked(shape, seed, offset, dtype, device, sample_ids)
    values: Tensor = torch.ops.fastdiff_ops.random_uniform.default(shape, rng, dtype)
    return values


def _checked(
    shape: Sequence[int],
    seed: Seed | Sequence[int] | Tensor,
    offset: int,
    dtype: torch.dtype,
    device: torch.device | str,
    sample_ids: Tensor | Sequence[int] | None,
) -> Tensor:
    if not isinstance(shape, Sequence):
        raise TypeError(f"`shape` must be a sequence of ints, got {type(shape).__name__}")
    if len(shape) == 0 or any(n < 0 for n in shape):
        raise ValueError(f"`shape` must be [B, *S] with an axis of samples, sizes >= 0, got {tuple(shape)}")
    if dtype not in DTYPES:
        raise TypeError(f"`dtype` must be float16, bfloat16, float32 or float64, got {dtype}")
    return make_rng(seed, offset, batch=shape[0], sample_ids=sample_ids, device=device)


@torch.library.register_fake("fastdiff_ops::random_normal")
@torch.library.register_fake("fastdiff_ops::random_uniform")
def _(size: Sequence[int], rng: Tensor, dtype: torch.dtype) -> Tensor:
    return rng.new_empty(size, dtype=dtype)


register_reference("random_normal", stream.random_normal)
register_reference("random_uniform", stream.random_uniform)
