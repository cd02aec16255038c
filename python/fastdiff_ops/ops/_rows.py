"""What the categorical operators' wrappers share: rows of logits, numbers per row, and the random stream.

Checks look at metadata and at Python numbers, never at what a tensor holds: they neither wait for a device
nor break a compiled graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias, TypedDict

import torch
from torch import Tensor

from .random import Seed, make_rng

Seeds: TypeAlias = Seed | Sequence[int] | Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_VOCAB = 1 << 28
STREAMS = {"element": 0, "block16": 1}
METHODS = {"lazy": 0, "full": 1}
# "auto" takes the blockwise stream for vocabularies this large, where its set-up has paid off
_BLOCK_VOCAB = 4096
_SMALLEST, _LARGEST = 2.0**-126, (2.0 - 2.0**-23) * 2.0**127  # normal float32
_SIGNED, _OFFSETS = 1 << 63, 1 << 32


class DrawOptions(TypedDict, total=False):
    """The options that every draw takes; `gumbel_argmax` explains them."""

    seed: Seeds
    offset: int
    rng: Tensor | None
    row_ids: Tensor | None
    rows: Tensor | None
    uncond_logits: Tensor | None
    cfg_scale: float | Tensor | None
    bias: Tensor | None
    suppressed: Tensor | None
    forbidden: Tensor | Sequence[int] | int | None
    threshold: float | Tensor | None
    vocab_start: int
    vocab_size: int | None
    stream: str
    method: str
    check_finite: bool


def check_logits(name: str, logits: object) -> None:
    """Raise unless `logits` is a floating-point tensor [..., V] whose last axis is dense."""
    if not isinstance(logits, Tensor):
        raise TypeError(f"`{name}` must be a Tensor, got {type(logits).__name__}")
    if logits.dtype not in DTYPES:
        raise TypeError(f"`{name}` must be float16, bfloat16, float32 or float64, got {logits.dtype}")
    shape = logits.shape
    if len(shape) == 0 or shape[-1] == 0:
        raise ValueError(f"`{name}` must be [..., V] with V >= 1, got shape {tuple(shape)}")
    if shape[-1] > 1 and logits.stride(-1) != 1:
        stride = f"stride {logits.stride(-1)}: make it contiguous first"
        raise ValueError(f"`{name}` must be dense along its last axis, got {stride}")
    if shape[-1] > MAX_VOCAB:
        raise ValueError(f"`{name}` must have at most 2^28 columns, got {shape[-1]}")


def as_rows(logits: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return logits [..., V] as [N, V] without a copy, and which of its rows are drawn from.

    Leading axes that no single stride describes (`hidden[:, 3:]`) become a view with gaps: then the rows that
    are meant are returned as well.
    """
    if logits.requires_grad:
        logits = logits.detach()  # a draw has no gradient
    if logits.dim() == 2:
        return logits, rows
    if logits.dim() == 1:
        return logits[None], rows
    axes = [(n, s) for n, s in zip(logits.shape[:-1], logits.stride()[:-1], strict=True) if n != 1]
    if all(outer[1] == inner[0] * inner[1] for outer, inner in pairwise(axes)):
        return logits.view(-1, logits.shape[-1]), rows
    n_rows = math.prod(logits.shape[:-1])
    if n_rows == 0:
        return logits.reshape(0, logits.shape[-1]), rows
    step = math.gcd(*(s for _, s in axes)) or 1
    index = torch.zeros((), dtype=torch.int64, device=logits.device)
    for n, s in axes:
        index = index[..., None] + torch.arange(n, device=logits.device) * (s // step)
    index = index.reshape(-1)
    last = sum((n - 1) * (s // step) for n, s in axes)
    view = logits.as_strided((last + 1, logits.shape[-1]), (step, 1))
    return view, index if rows is None else index.index_select(0, rows)


def check_tensor(name: str, value: object, like: Tensor, *dtypes: torch.dtype) -> None:
    """Raise unless `value` is a tensor of one of the dtypes on the device of the logits."""
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a Tensor, got {type(value).__name__}")
    if value.device != like.device:
        raise ValueError(f"`{name}` must be on the device of `logits`, {like.device}, got {value.device}")
    if value.dtype not in dtypes:
        raise TypeError(f"`{name}` must be {' or '.join(map(str, dtypes))}, got {value.dtype}")


def ids(name: str, value: Tensor | None, n: int | None, like: Tensor, what: str = "rows") -> Tensor | None:
    """Return int64 ids as a vector, one for each of n things."""
    if value is None:
        return None
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a Tensor, got {type(value).__name__}")
    if value.dtype != torch.int64:
        raise ValueError(f"`{name}` must be int64, got {value.dtype}")
    if value.device != like.device:
        raise ValueError(f"`{name}` must be on the device of `logits`, {like.device}, got {value.device}")
    if n is not None and value.numel() != n:
        raise ValueError(f"`{name}` must have an entry for each of {n} {what}, got {value.numel()}")
    return value if value.dim() == 1 else value.reshape(-1)


def per_row(
    name: str,
    value: float | Tensor,
    n_rows: int,
    like: Tensor,
    dtype: torch.dtype = torch.float32,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    positive: bool = False,
) -> Tensor:
    """Return a number for all rows ([1]) or for each ([R]); a Python number is checked against its range."""
    if isinstance(value, Tensor):
        if value.device != like.device:
            raise ValueError(f"`{name}` must be on the device of `logits`, {like.device}, got {value.device}")
        if value.dtype not in DTYPES:
            raise TypeError(f"`{name}` must be a float or a floating-point Tensor, got {value.dtype}")
        if value.numel() != 1 and value.numel() != n_rows:
            wanted = f"1 number or one for each of {n_rows} rows"
            raise ValueError(f"`{name}` must have {wanted}, got shape {tuple(value.shape)}")
        if value.requires_grad:
            value = value.detach()
        if value.dim() != 1:
            value = value.reshape(-1)
        return value if value.dtype == dtype else value.to(dtype)
    if isinstance(value, bool) or not isinstance(value, (float, int)):
        raise TypeError(f"`{name}` must be a float or a Tensor, got {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"`{name}` must be in [{low:g}, {high:g}], got {value}")
    if low == 0 and value < _SMALLEST and (positive or value > 0):
        raise ValueError(f"`{name}` must be {'' if positive else '0 or '}at least 2^-126, got {value}")
    return torch.full((1,), value, dtype=dtype, device=like.device)


def temperatures(
    name: str, value: float | Tensor, n_rows: int, like: Tensor, positive: bool = False
) -> Tensor:
    """Return float32 temperatures as `per_row` does: 0 or at least 2^-126, so that float32 holds them."""
    return per_row(name, value, n_rows, like, low=0.0, high=_LARGEST, positive=positive)


def thresholds(value: float | Tensor, n_rows: int, logits: Tensor) -> Tensor:
    """Return thresholds in the type that logits are computed in: a rounded one would cut elsewhere."""
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    if isinstance(value, Tensor):
        check_tensor("threshold", value, logits, dtype)
    return per_row("threshold", value, n_rows, logits, dtype)


def guidance(
    uncond_logits: Tensor | None, cfg_scale: float | Tensor | None, n_rows: int, logits: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Return the unconditional logits and the scale of each row, or neither."""
    if (uncond_logits is None) != (cfg_scale is None):
        raise ValueError("`uncond_logits` and `cfg_scale` go together")
    if uncond_logits is None or cfg_scale is None:
        return None, None
    check_tensor("uncond_logits", uncond_logits, logits, logits.dtype)
    check_logits("uncond_logits", uncond_logits)
    if uncond_logits.shape != logits.shape:
        wanted, got = tuple(logits.shape), tuple(uncond_logits.shape)
        raise ValueError(f"`uncond_logits` must have the shape of `logits`, {wanted}, got {got}")
    return uncond_logits, per_row("cfg_scale", cfg_scale, n_rows, logits, low=-_LARGEST, high=_LARGEST)


def vocabulary_mask(
    name: str, value: Tensor | None, n_rows: int, logits: Tensor, *dtypes: torch.dtype
) -> Tensor | None:
    """Return a tensor [V], [1, V], [R, V] or [..., V] as [1 or R, V]."""
    if value is None:
        return None
    check_tensor(name, value, logits, *dtypes)
    width = logits.shape[-1]
    flat = value[None] if value.dim() < 2 else value.flatten(0, -2)
    if value.dim() == 0 or flat.shape[1] != width or flat.shape[0] not in (1, n_rows):
        raise ValueError(f"`{name}` must have shape [1 or {n_rows}, {width}], got {tuple(value.shape)}")
    return flat.detach() if flat.requires_grad else flat


def forbidden_ids(value: Tensor | Sequence[int] | int | None, vocab_size: int, like: Tensor) -> Tensor | None:
    """Return token numbers as an int64 vector; Python numbers must be tokens of the vocabulary."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        check_tensor("forbidden", value, like, torch.int64)
        return value if value.dim() == 1 else value.reshape(-1)
    numbers = [value] if isinstance(value, int) else value
    if not isinstance(numbers, Sequence) or isinstance(numbers, str | bytes):
        raise TypeError(f"`forbidden` must be an int, ints or a Tensor, got {type(value).__name__}")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"`forbidden` must hold ints, got {type(number).__name__}")
        if not 0 <= number < vocab_size:
            raise ValueError(f"`forbidden` must be in [0, {vocab_size}), got {number}")
    return torch.tensor(numbers, dtype=torch.int64, device=like.device)


def rng_of(
    seed: Seeds,
    rng: Tensor | None,
    offset: int,
    n: int,
    like: Tensor,
    what: str = "rows",
) -> Tensor:
    """Return the `rng` tensor of a call: the one given, or what `seed` and `offset` mean."""
    if rng is None:
        if type(seed) is int and 0 <= seed < _SIGNED and type(offset) is int and 0 <= offset < _OFFSETS:
            return torch.tensor((seed, offset), device=like.device)  # what make_rng says, ten times as fast
        state = make_rng(seed, offset, device=like.device)
        if state.dim() == 2 and state.shape[0] != n:
            raise ValueError(
                f"`seed` must be one seed or {n}, one for each of the {what}, got {state.shape[0]}"
            )
        return state
    if seed is not None or offset != 0:
        raise ValueError("give `rng`, or `seed` and `offset`, not both")
    if not isinstance(rng, Tensor):
        raise TypeError(f"`rng` must be a Tensor, got {type(rng).__name__}")
    if rng.dtype != torch.int64:
        raise TypeError(f"`rng` must be torch.int64, got {rng.dtype}")
    if rng.device != like.device:
        raise ValueError(f"`rng` must be on the device of `logits`, {like.device}, got {rng.device}")
    if rng.shape != (2,) and rng.shape != (n, 3):
        raise ValueError(f"`rng` must have shape [2] or [{n}, 3], got {tuple(rng.shape)}")
    return rng


def choice(name: str, value: str, options: dict[str, int]) -> int:
    """Return the number of a named option."""
    try:
        return options[value]
    except (KeyError, TypeError):
        raise ValueError(f"`{name}` must be one of {', '.join(options)}, got {value!r}") from None


def stream_number(stream: str, vocab_size: int) -> int:
    """Return which noise stream is meant: "auto" is block16 from 4096 tokens on."""
    if stream == "auto":
        return STREAMS["block16" if vocab_size >= _BLOCK_VOCAB else "element"]
    if stream not in STREAMS:
        raise ValueError(f"`stream` must be one of auto, {', '.join(STREAMS)}, got {stream!r}")
    return STREAMS[stream]


def vocabulary(vocab_start: int, vocab_size: int | None, width: int) -> int:
    """Return the size of the whole vocabulary, of which the logits hold columns from `vocab_start` on."""
    if vocab_size is None:
        if vocab_start != 0:
            raise ValueError("`vocab_size` must be given with `vocab_start`: the noise depends on it")
        return width
    for name, number in (("vocab_start", vocab_start), ("vocab_size", vocab_size)):
        if not isinstance(number, int | torch.SymInt):
            raise TypeError(f"`{name}` must be an int, got {type(number).__name__}")
    if vocab_start < 0 or vocab_start + width > vocab_size:
        held = f"[{vocab_start}, {vocab_start + width})"
        raise ValueError(f"`logits` hold columns {held}, which are not inside a `vocab_size` of {vocab_size}")
    if vocab_size > MAX_VOCAB:
        raise ValueError(f"`vocab_size` must be at most 2^28, got {vocab_size}")
    return vocab_size


def row_arguments(
    logits: Tensor,
    temperature: float | Tensor,
    rows: Tensor | None,
    uncond_logits: Tensor | None,
    cfg_scale: float | Tensor | None,
    bias: Tensor | None,
    suppressed: Tensor | None,
    forbidden: Tensor | Sequence[int] | int | None,
    vocab_size: int,
) -> tuple[tuple[Tensor | None, ...], torch.Size]:
    """Return (logits [N, V], temperature, rows, ..., forbidden), checked, and the shape of the result."""
    rows = ids("rows", rows, None, logits)
    shape = logits.shape[:-1] if rows is None else rows.shape
    n_rows = shape.numel()
    flat, index = as_rows(logits, rows)
    heat = temperatures("temperature", temperature, n_rows, logits)
    base, scale = guidance(uncond_logits, cfg_scale, n_rows, logits)
    if base is not None:
        strides = base.stride()
        base, base_index = as_rows(base, rows)
        if (index is not rows or base_index is not rows) and strides != logits.stride():
            raise ValueError(f"`uncond_logits` must have the strides of `logits`, got {strides}")
    if bias is not None:
        bias = vocabulary_mask("bias", bias, n_rows, logits, torch.float32)
    if suppressed is not None:
        suppressed = vocabulary_mask("suppressed", suppressed, n_rows, logits, torch.bool)
    if forbidden is not None:
        forbidden = forbidden_ids(forbidden, vocab_size, logits)
    return (flat, heat, index, base, scale, bias, suppressed, forbidden), shape


def draw_arguments(
    logits: Tensor,
    temperature: float | Tensor,
    seed: Seeds,
    offset: int,
    rng: Tensor | None,
    row_ids: Tensor | None,
    rows: Tensor | None,
    uncond_logits: Tensor | None,
    cfg_scale: float | Tensor | None,
    bias: Tensor | None,
    suppressed: Tensor | None,
    forbidden: Tensor | Sequence[int] | int | None,
    threshold: float | Tensor | None,
    vocab_start: int,
    vocab_size: int | None,
    stream: str,
    check_finite: bool,
) -> tuple[tuple[Tensor | int | None, ...], torch.Size]:
    """Return the checked arguments of an operator up to its stream, and the shape of its result."""
    check_logits("logits", logits)
    width = logits.shape[-1]
    size = vocabulary(vocab_start, vocab_size, width)
    if check_finite and bool(logits.isnan().any()):
        raise ValueError("`logits` must not be NaN, as `check_finite` asks")
    (flat, heat, *processing), shape = row_arguments(
        logits, temperature, rows, uncond_logits, cfg_scale, bias, suppressed, forbidden, size
    )
    n_rows = shape.numel()
    state = rng_of(seed, rng, offset, n_rows, logits)
    names = None if row_ids is None else ids("row_ids", row_ids, n_rows, logits)
    floor = None if threshold is None else thresholds(threshold, n_rows, logits)
    number = stream_number(stream, size)
    return (flat, heat, state, names, *processing, floor, vocab_start, size, number), shape
