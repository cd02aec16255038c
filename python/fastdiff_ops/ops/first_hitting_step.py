"""The fused step of a first-hitting sampler: draw the tokens of given positions and write them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._load import load_ops
from ..reference import categorical as reference
from . import _rows
from ._registration import register_reference
from ._rows import Seeds

load_ops()

_step_ = torch.ops.fastdiff_ops.first_hitting_step_.default


def first_hitting_step_(
    tokens: Tensor,
    logits: Tensor,
    positions: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    seed: Seeds = None,
    offset: int = 0,
    rng: Tensor | None = None,
    sequence_ids: Tensor | None = None,
    gathered: bool | None = None,
    uncond_logits: Tensor | None = None,
    cfg_scale: float | Tensor | None = None,
    bias: Tensor | None = None,
    suppressed: Tensor | None = None,
    forbidden: Tensor | Sequence[int] | int | None = None,
    threshold: float | Tensor | None = None,
    stream: str = "auto",
    method: str = "lazy",
) -> Tensor:
    """Draw the tokens of the given positions, exactly, and write them into the sequences: one launch.

    A first-hitting sampler (arXiv 2409.02908, algorithm 1) reveals one masked position of each sequence with
    every network call. Only that row of the logits is read. A draw depends on (seed, offset, sequence id,
    position, token) alone.

    Parameters
    ----------
    tokens : int64 Tensor [B, L]
        Written in place at `positions`.
    logits : Tensor [B, V], [B, k, V] or [B, L, V]
        Rows for `positions` themselves (`gathered`), or of all positions; the last axis dense.
    positions : int32 Tensor [B] or [B, k]
        Where to draw, distinct within a sequence and below L; -1: nothing is drawn there.
    temperature, cfg_scale, threshold
        As in `gumbel_argmax`, for all rows or [B k], in the order of `positions`.
    seed, offset, rng : as in `gumbel_argmax`
        A seed for all sequences, or a seed for each: `rng` is int64 [2] or [B, 3].
    sequence_ids : int64 Tensor [B], optional
        Names of the sequences in the random stream, in [0, 2^32); default 0..B-1, or what `rng` says. Two
        equal ones get the same noise.
    gathered : bool, optional
        Whether logits[:, j] belongs to positions[:, j], rather than to position j. Needed only where the
        shape does not tell, k = L.
    uncond_logits, bias, suppressed, forbidden, stream, method
        As in `gumbel_argmax`, R = B k.

    Returns
    -------
    int64 Tensor, the shape of `positions`
        The tokens drawn. -1: skipped, or every logit was -inf; such a position keeps its token.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, dtype, device or range. On a CPU also if a position is not below
        L; on other devices such a position is skipped.

    Examples
    --------
    >>> import torch
    >>> tokens = torch.full((2, 4), 9)
    >>> logits = torch.zeros(2, 9).index_fill(1, torch.tensor([3]), 50.0)
    >>> first_hitting_step_(tokens, logits, torch.tensor([1, -1], dtype=torch.int32), seed=0)
    tensor([ 3, -1])
    >>> tokens
    tensor([[9, 3, 9, 9],
            [9, 9, 9, 9]])
    """
    _rows.check_logits("logits", logits)
    _rows.check_tensor("tokens", tokens, logits, torch.int64)
    _rows.check_tensor("positions", positions, logits, torch.int32)
    if tokens.dim() != 2:
        raise ValueError(f"`tokens` must be [B, L], got shape {tuple(tokens.shape)}")
    batch, length = tokens.shape
    if length > 1 and tokens.stride(1) != 1:
        raise ValueError(f"`tokens` must be dense along their last axis, got stride {tokens.stride(1)}")
    if positions.dim() not in (1, 2) or positions.shape[0] != batch:
        raise ValueError(f"`positions` must be [{batch}] or [{batch}, k], got shape {tuple(positions.shape)}")
    places = positions if positions.dim() == 2 else positions.unsqueeze(1)
    k, width = places.shape[1], logits.shape[-1]
    base, scale = _rows.guidance(uncond_logits, cfg_scale, batch * k, logits)
    if logits.dim() == 2:
        if gathered is False:
            raise ValueError("`logits` of all positions must be [B, L, V], got two axes")
        logits = logits.unsqueeze(1)
        base = None if base is None else base.unsqueeze(1)
        gathered = True
    if logits.dim() != 3 or logits.shape[0] != batch or logits.shape[1] not in (k, length):
        wanted = f"[{batch}, {k} or {length}, V]" + (f" or [{batch}, V]" if k == 1 else "")
        raise ValueError(f"`logits` must have shape {wanted}, got {tuple(logits.shape)}")
    if gathered is None:
        if k == length > 1:
            raise ValueError("`gathered` must say whether logits[:, j] is for positions[:, j] or position j")
        gathered = logits.shape[1] == k
    if logits.shape[1] != (k if gathered else length):
        wanted = f"{k if gathered else length} rows a sequence with `gathered` = {gathered}"
        raise ValueError(f"`logits` must have {wanted}, got {logits.shape[1]}")
    heat = _rows.temperatures("temperature", temperature, batch * k, logits)
    state = _rows.rng_of(seed, rng, offset, batch, logits, "sequences")
    names = _rows.ids("sequence_ids", sequence_ids, batch, logits, "sequences")
    if bias is not None:
        bias = _rows.vocabulary_mask("bias", bias, batch * k, logits, torch.float32)
    if suppressed is not None:
        suppressed = _rows.vocabulary_mask("suppressed", suppressed, batch * k, logits, torch.bool)
    banned = _rows.forbidden_ids(forbidden, width, logits)
    floor = None if threshold is None else _rows.thresholds(threshold, batch * k, logits)
    number = _rows.stream_number(stream, width)
    how = _rows.choice("method", method, _rows.METHODS)
    if logits.requires_grad:
        logits = logits.detach()
    if base is not None and base.requires_grad:
        base = base.detach()
    order = None
    if k == length > 1 and not gathered:
        # Such logits read as one row for each of `positions`: so put these into the order of the rows.
        order = places.clamp(min=0).long()
        places, heat, scale, bias, suppressed, floor = _by_position(
            places, heat, scale, bias, suppressed, floor
        )
    drawn: Tensor = _step_(
        tokens, logits, places, heat, state, names, base, scale, bias, suppressed, banned, floor, number, how
    )
    if order is not None:
        drawn = torch.where(positions < 0, -1, drawn.gather(1, order))
    return drawn if positions.dim() == 2 else drawn.squeeze(1)


def first_hitting_step(
    tokens: Tensor,
    logits: Tensor,
    positions: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    seed: Seeds = None,
    offset: int = 0,
    rng: Tensor | None = None,
    sequence_ids: Tensor | None = None,
    gathered: bool | None = None,
    uncond_logits: Tensor | None = None,
    cfg_scale: float | Tensor | None = None,
    bias: Tensor | None = None,
    suppressed: Tensor | None = None,
    forbidden: Tensor | Sequence[int] | int | None = None,
    threshold: float | Tensor | None = None,
    stream: str = "auto",
    method: str = "lazy",
) -> Tensor:
    """Return the tokens as `first_hitting_step_` leaves them, in a new tensor.

    Parameters and errors are those of `first_hitting_step_`.

    Returns
    -------
    int64 Tensor [B, L]

    Examples
    --------
    >>> import torch
    >>> logits = torch.zeros(1, 9).index_fill(1, torch.tensor([3]), 50.0)
    >>> first_hitting_step(torch.full((1, 4), 9), logits, torch.tensor([1], dtype=torch.int32), seed=0)
    tensor([[9, 3, 9, 9]])
    """
    if not isinstance(tokens, Tensor):
        raise TypeError(f"`tokens` must be a Tensor, got {type(tokens).__name__}")
    result = tokens.clone()
    first_hitting_step_(
        result, logits, positions, temperature, seed=seed, offset=offset, rng=rng,
        sequence_ids=sequence_ids, gathered=gathered, uncond_logits=uncond_logits, cfg_scale=cfg_scale,
        bias=bias, suppressed=suppressed, forbidden=forbidden, threshold=threshold, stream=stream,
        method=method,
    )  # fmt: skip
    return result


def _by_position(places: Tensor, *per_row: Tensor | None) -> list[Tensor]:
    """Return positions [B, L] with position p in column p or -1 there, and [R] tensors in that order."""
    batch, length = places.shape
    column = torch.where(places < 0, length, places).long()
    sorted_places = places.new_full((batch, length + 1), -1).scatter(1, column, places)[:, :length]
    source = torch.arange(length, device=places.device).expand(batch, length)
    source = column.new_zeros((batch, length + 1)).scatter(1, column, source)[:, :length]
    source = (source + length * torch.arange(batch, device=places.device)[:, None]).flatten()
    moved = [t if t is None or t.shape[0] == 1 else t.index_select(0, source) for t in per_row]
    return [sorted_places.contiguous(), *moved]  # type: ignore[list-item]


@torch.library.register_fake("fastdiff_ops::first_hitting_step_")
def _(
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
    return tokens.new_empty(positions.shape)


register_reference("first_hitting_step_", reference.first_hitting_step_)
