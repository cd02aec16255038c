"""When masked positions are revealed, which of them are committed, and which are masked again.

In masked diffusion the time of a reveal depends neither on the position nor on its token, so all times and
the order can be drawn before the network is called (arXiv 2409.02908, section 4.1). Every number is a
function of (seed, draw, sequence id, position): a sequence alone, in a permuted batch or on another device is
the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from .._load import load_ops
from ..reference import hitting as reference
from . import _rows
from ._registration import register_reference
from .random import Seed

load_ops()

Seeds: TypeAlias = Seed | Sequence[int] | Tensor
Ids: TypeAlias = Tensor | Sequence[int] | None

_FLOATS = (torch.float32, torch.float64)


class Schedule(Protocol):
    """What a mask schedule must offer here: float64 tensors in, float64 tensors out."""

    def mask_prob(self, t: Tensor, /) -> Tensor:
        """Probability that a token is masked at time t, increasing in t."""

    def inverse(self, mask_prob: Tensor, /) -> Tensor:
        """Time at which tokens are masked with this probability."""


class HittingTimes(NamedTuple):
    """When the masked positions of each sequence are revealed, first reveal first."""

    order: Tensor
    """int32 [B, L]: the masked positions; -1 behind them."""
    times: Tensor
    """float64 [B, L]: the time of each reveal, not increasing; 0 behind them."""
    count: Tensor  # type: ignore[assignment]  # hides tuple.count
    """int32 [B]: how many positions are masked."""


def first_hitting_times(
    mask: Tensor,
    *,
    schedule: Schedule | None = None,
    seed: Seeds = None,
    offset: int = 0,
    sequence_ids: Ids = None,
    rng: Tensor | None = None,
    allow_duplicate_ids: bool = False,
) -> HittingTimes:
    """Draw order and times of all reveals of the first-hitting sampler (arXiv 2409.02908, section 4.1).

    Every masked position l has its own uniform U_l and is revealed at the time t with m(t) = m(1) U_l, m the
    schedule's mask probability. Sorted, that is exactly the law of the sampler's recursion
    m(t_next) = m(t) u^(1/n) with a uniform choice among the n positions that are left.

    Parameters
    ----------
    mask : bool Tensor [B, L]
        The positions to be revealed, L < 2^31.
    schedule : MaskSchedule, optional
        Its `inverse` and `mask_prob` map float64 tensors. Without it times are U itself, the log-linear
        schedule's.
    seed : int, torch.Generator, PhiloxState, None, or B ints
        One seed, or one for each sequence (then all ids are 0), see `make_rng`.
    offset : int
        Draw number, added to that of a PhiloxState.
    sequence_ids : int64 Tensor [B] or B ints in [0, 2^32), optional
        What the random numbers of a sequence belong to. Default 0..B-1.
    rng : int64 Tensor [2] or [B, 3], optional
        Instead of `seed` and `offset`, on the device already: (seed, offset) or (seed, offset, sequence id).
    allow_duplicate_ids : bool
        Let sequences share their random numbers.

    Returns
    -------
    HittingTimes
        `order` int32 [B, L], `times` float64 [B, L], `count` int32 [B].

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype, device or number does not fit, or two sequences of one seed have the same id. Ids
        on a device other than the CPU are not looked at, as that would wait for it; nor are they in a graph.

    Notes
    -----
    U has 53 significant bits at every scale and is never 0 nor 1. Equal keys, one pair in 2^64, are ordered
    by position.

    Examples
    --------
    >>> mask = torch.tensor([[True, True, False, True]])
    >>> hits = first_hitting_times(mask, seed=0)
    >>> hits.order, hits.count
    (tensor([[ 1,  0,  3, -1]], dtype=torch.int32), tensor([3], dtype=torch.int32))
    >>> alone = first_hitting_times(mask, seed=0, sequence_ids=[0])
    >>> bool((alone.times == hits.times).all())
    True
    """
    _check_matrix("mask", mask, mask, torch.bool)
    state, ids = _stream(mask, seed, offset, rng, sequence_ids, allow_duplicate_ids)
    order, u, count = torch.ops.fastdiff_ops.first_hitting_times.default(mask, state, ids)
    if schedule is not None:
        hit = order >= 0
        start = schedule.mask_prob(torch.ones((), dtype=torch.float64, device=u.device))
        u = torch.where(hit, schedule.inverse(torch.where(hit, u, 1.0) * start), 0.0)
    return HittingTimes(order, u, count)


def reveal_steps(
    mask: Tensor,
    mask_prob: Tensor,
    *,
    seed: Seeds = None,
    offset: int = 0,
    sequence_ids: Ids = None,
    rng: Tensor | None = None,
    allow_duplicate_ids: bool = False,
) -> Tensor:
    """Return the step of a time grid in which each masked position is revealed by ancestral sampling.

    Step i reveals what is still masked with probability 1 - m_(i+1) / m_i, independently. The step is that in
    which the hitting time of `first_hitting_times` (same seed, same ids) lies, m_i > m_0 U_l >= m_(i+1): the
    law is the same, and ancestral sampling tends to first-hitting sampling as the grid gets finer.

    Parameters
    ----------
    mask : bool Tensor [B, L]
    mask_prob : float64 Tensor [N + 1]
        m_0 >= .. >= m_N >= 0, the schedule's mask probability at the grid's decreasing times; 0 < m_0 <= 1.
    seed, offset, sequence_ids, rng, allow_duplicate_ids
        As in `first_hitting_times`.

    Returns
    -------
    int32 Tensor [B, L]
        0..N-1; N where the position stays masked at the end; -1 where it was not masked.

    Raises
    ------
    ValueError, TypeError
        As in `first_hitting_times`; on the CPU also for a grid that is out of order or range.

    Examples
    --------
    >>> mask = torch.ones(1, 6, dtype=torch.bool)
    >>> grid = torch.linspace(1, 0, 5, dtype=torch.float64)
    >>> steps = reveal_steps(mask, grid, seed=0)
    >>> steps
    tensor([[1, 0, 0, 2, 3, 3]], dtype=torch.int32)
    >>> order = first_hitting_times(mask, seed=0).order.long()
    >>> steps.gather(1, order)
    tensor([[0, 0, 1, 2, 3, 3]], dtype=torch.int32)
    """
    _check_matrix("mask", mask, mask, torch.bool)
    _check("mask_prob", mask_prob, mask, torch.float64)
    if mask_prob.dim() != 1 or mask_prob.shape[0] < 2:
        raise ValueError(f"`mask_prob` must be [N + 1] with N >= 1, got shape {tuple(mask_prob.shape)}")
    state, ids = _stream(mask, seed, offset, rng, sequence_ids, allow_duplicate_ids)
    steps: Tensor = torch.ops.fastdiff_ops.reveal_steps.default(mask, mask_prob.detach(), state, ids)
    return steps


def remask_(
    tokens: Tensor,
    prob: Tensor | float,
    mask_id: int,
    *,
    eligible: Tensor | None = None,
    seed: Seeds = None,
    offset: int = 0,
    sequence_ids: Ids = None,
    rng: Tensor | None = None,
    allow_duplicate_ids: bool = False,
) -> Tensor:
    """Mask each token again with a probability of its own, in place, as ReMDM does (arXiv 2503.00307).

    Parameters
    ----------
    tokens : int64 Tensor [B, L]
        Changed in place; any strides, but not expanded.
    prob : float, or float32 or float64 Tensor [B, L] or [B, 1]
        Never at 0 and below, always at 1 and above, to 2^-64 between.
    mask_id : int
        What is written. Tokens that hold it already stay, and are not reported.
    eligible : bool Tensor [B, L], optional
        Positions that may be masked. Default: all.
    seed, offset, sequence_ids, rng, allow_duplicate_ids
        As in `first_hitting_times`, but a stream of its own. A sampler that masks again in every step needs a
        fresh offset for each.

    Returns
    -------
    bool Tensor [B, L]
        What was masked.

    Raises
    ------
    ValueError, TypeError
        As in `first_hitting_times`; on the CPU also if a probability is NaN, elsewhere it counts as 0.

    See Also
    --------
    remask : returns new tokens instead.

    Examples
    --------
    >>> tokens = torch.arange(8).reshape(1, 8)
    >>> remask_(tokens, 0.5, mask_id=99, seed=3)
    tensor([[False, False,  True,  True, False,  True, False,  True]])
    >>> tokens
    tensor([[ 0,  1, 99, 99,  4, 99,  6, 99]])
    """
    _check_matrix("tokens", tokens, tokens, torch.int64)
    if isinstance(mask_id, bool) or not isinstance(mask_id, int | torch.SymInt):
        raise TypeError(f"`mask_id` must be an int, got {type(mask_id).__name__}")
    if any(n > 1 and s == 0 for n, s in zip(tokens.shape, tokens.stride(), strict=True)):
        raise ValueError("`tokens` must not be expanded: they are written")
    if isinstance(prob, Tensor):
        _check("prob", prob, tokens, *_FLOATS)
        if prob.dim() != 2 or prob.shape[0] != tokens.shape[0] or prob.shape[1] not in (1, tokens.shape[1]):
            wanted = f"[{tokens.shape[0]}, {tokens.shape[1]} or 1]"
            raise ValueError(f"`prob` must have shape {wanted}, got {tuple(prob.shape)}")
        prob = prob.detach()
    else:
        if isinstance(prob, bool) or not isinstance(prob, float | int):
            raise TypeError(f"`prob` must be a float or a Tensor, got {type(prob).__name__}")
        if not 0 <= prob <= 1:
            raise ValueError(f"`prob` must be in [0, 1], got {prob}")
        prob = torch.full((tokens.shape[0], 1), prob, dtype=torch.float64, device=tokens.device)
    if eligible is not None:
        _check_matrix("eligible", eligible, tokens, torch.bool)
    state, ids = _stream(tokens, seed, offset, rng, sequence_ids, allow_duplicate_ids)
    masked: Tensor = torch.ops.fastdiff_ops.remask_.default(tokens, prob, eligible, mask_id, state, ids)
    return masked


def remask(
    tokens: Tensor,
    prob: Tensor | float,
    mask_id: int,
    *,
    eligible: Tensor | None = None,
    seed: Seeds = None,
    offset: int = 0,
    sequence_ids: Ids = None,
    rng: Tensor | None = None,
    allow_duplicate_ids: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return new tokens and what was masked in them: `remask_` on a copy, with its arguments and errors.

    Examples
    --------
    >>> remask(torch.arange(8).reshape(1, 8), 0.5, mask_id=99, seed=3)[0]
    tensor([[ 0,  1, 99, 99,  4, 99,  6, 99]])
    """
    _check_matrix("tokens", tokens, tokens, torch.int64)
    copy = tokens.clone(memory_format=torch.contiguous_format)
    return copy, remask_(
        copy,
        prob,
        mask_id,
        eligible=eligible,
        seed=seed,
        offset=offset,
        sequence_ids=sequence_ids,
        rng=rng,
        allow_duplicate_ids=allow_duplicate_ids,
    )


def _check(name: str, value: object, like: Tensor, *dtypes: torch.dtype) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a Tensor, got {type(value).__name__}")
    if value.dtype not in dtypes:
        raise TypeError(f"`{name}` must be {' or '.join(map(str, dtypes))}, got {value.dtype}")
    if value.device != like.device:
        raise ValueError(
            f"`{name}` must be on the device of the sequences, {like.device}, got {value.device}"
        )


def _check_matrix(name: str, value: object, like: Tensor, *dtypes: torch.dtype) -> None:
    """Raise unless `value` is a tensor [B, L] on the device and of the shape of `like`."""
    _check(name, value, like, *dtypes)
    assert isinstance(value, Tensor)
    if value.dim() != 2:
        raise ValueError(f"`{name}` must be 2-D [B, L], got shape {tuple(value.shape)}")
    if value.shape != like.shape:
        raise ValueError(f"`{name}` must have shape {tuple(like.shape)}, got {tuple(value.shape)}")


def _stream(
    like: Tensor,
    seed: Seeds,
    offset: int,
    rng: Tensor | None,
    sequence_ids: Ids,
    allow_duplicate_ids: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the `rng` tensor of a call and the sequences' ids, checked as far as nothing waits for it."""
    batch = like.shape[0]
    if rng is not None:
        _check("rng", rng, like, torch.int64)
    state = _rows.rng_of(seed, rng, offset, batch, like, "sequences")
    if sequence_ids is None:
        return state, None
    if isinstance(sequence_ids, Tensor):
        _check("sequence_ids", sequence_ids, like, torch.int64)
        ids = sequence_ids
    else:
        if isinstance(sequence_ids, str | bytes) or not isinstance(sequence_ids, Sequence):
            wanted = "a Tensor or a sequence of ints"
            raise TypeError(f"`sequence_ids` must be {wanted}, got {type(sequence_ids).__name__}")
        for number in sequence_ids:
            if isinstance(number, bool) or not isinstance(number, int):
                raise TypeError(f"`sequence_ids` must hold ints, got {type(number).__name__}")
            if not 0 <= number < 1 << 32:
                raise ValueError(f"`sequence_ids` must be in [0, 2^32), got {number}")
        ids = torch.tensor(sequence_ids, dtype=torch.int64)
    if tuple(ids.shape) != (batch,):
        raise ValueError(f"`sequence_ids` must have shape [{batch}], got {tuple(ids.shape)}")
    known = ids.device.type == "cpu" and not torch.compiler.is_compiling()
    if known and not allow_duplicate_ids and state.dim() == 1 and len(set(ids.tolist())) < batch:
        text = "two sequences would get the same random numbers (allow_duplicate_ids=True lets them)"
        raise ValueError(f"`sequence_ids` must not repeat: {text}, got {ids.tolist()!r:.80}")
    return state, ids.to(like.device)


@torch.library.register_fake("fastdiff_ops::first_hitting_times")
def _(mask: Tensor, rng: Tensor, sequence_ids: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    order, u = mask.new_empty(mask.shape, dtype=torch.int32), mask.new_empty(mask.shape, dtype=torch.float64)
    return order, u, mask.new_empty(mask.shape[:1], dtype=torch.int32)


@torch.library.register_fake("fastdiff_ops::reveal_steps")
def _(mask: Tensor, mask_prob: Tensor, rng: Tensor, sequence_ids: Tensor | None) -> Tensor:
    return mask.new_empty(mask.shape, dtype=torch.int32)


@torch.library.register_fake("fastdiff_ops::remask_")
def _(
    tokens: Tensor,
    prob: Tensor,
    eligible: Tensor | None,
    mask_id: int,
    rng: Tensor,
    sequence_ids: Tensor | None,
) -> Tensor:
    return tokens.new_empty(tokens.shape, dtype=torch.bool)


for _name in ("first_hitting_times", "reveal_steps", "remask_"):
    register_reference(_name, getattr(reference, _name))
