"""The first-hitting sampler: masked diffusion without a time grid, one network call per revealed token."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import torch
from torch import Tensor

from ._follow import Ragged, follow
from ._loop import CommonOptions, Model, Run, SampleStats, start
from .agenda import Phase, make_agenda, tell
from .blocks import block_counts, block_index
from .high_order import Variant, check_second_order, split_group, trapezoidal_weight
from .plan import Plan, check_plan, group_sizes, split_steps
from .schedule import MaskSchedule, check_schedule

if TYPE_CHECKING:
    from typing_extensions import Unpack


@overload
def first_hitting_sample(
    model: Model,
    tokens: Tensor,
    *,
    mask_id: int,
    schedule: MaskSchedule | None = ...,
    tokens_per_step: int | None = ...,
    num_steps: int | None = ...,
    plan: Plan = ...,
    block_length: int | None = ...,
    order: int = ...,
    variant: Variant = ...,
    theta: float = ...,
    corrector_steps: int = ...,
    corrector_frac: float = ...,
    ragged: Ragged = ...,
    return_stats: Literal[False] = ...,
    **options: Unpack[CommonOptions],
) -> Tensor: ...
@overload
def first_hitting_sample(
    model: Model,
    tokens: Tensor,
    *,
    mask_id: int,
    schedule: MaskSchedule | None = ...,
    tokens_per_step: int | None = ...,
    num_steps: int | None = ...,
    plan: Plan = ...,
    block_length: int | None = ...,
    order: int = ...,
    variant: Variant = ...,
    theta: float = ...,
    corrector_steps: int = ...,
    corrector_frac: float = ...,
    ragged: Ragged = ...,
    return_stats: Literal[True],
    **options: Unpack[CommonOptions],
) -> tuple[Tensor, SampleStats]: ...
@torch.no_grad()
def first_hitting_sample(
    model: Model,
    tokens: Tensor,
    *,
    mask_id: int,
    schedule: MaskSchedule | None = None,
    tokens_per_step: int | None = None,
    num_steps: int | None = None,
    plan: Plan = "uniform",
    block_length: int | None = None,
    order: int = 1,
    variant: Variant = "theta_trapezoidal",
    theta: float = 0.5,
    corrector_steps: int = 0,
    corrector_frac: float = 0.1,
    ragged: Ragged = "left",
    return_stats: bool = False,
    **options: Unpack[CommonOptions],
) -> Tensor | tuple[Tensor, SampleStats]:
    """Fill in the masked tokens in random order, exactly as continuous-time masked diffusion does.

    Parameters
    ----------
    model : callable
        ``model(tokens) -> logits [B, L, V]``, or what `as_model` made of a network.
    tokens : int64 Tensor [B, L]
        `mask_id` where tokens are to be generated; everything else is context and stays: a prompt, a suffix,
        the surroundings of holes. Sequences may have different numbers of masks.
    mask_id : int
        The mask. It may lie inside of the vocabulary or behind it.
    schedule : MaskSchedule, optional
        Needed only by a model that is told the time; results do not depend on it otherwise.
    tokens_per_step, num_steps : int, optional
        Reveal that many tokens with each network call, or all tokens in that many calls; tokens of one call
        are drawn independently of each other, which is an approximation. Default: one token a call, exact.
    plan : "uniform", "cosine", or list of ints
        How `num_steps` are used, see `group_sizes`; or the sizes themselves.
    block_length : int, optional
        Generate in blocks of that many positions, left to right; `num_steps` are shared between the blocks
        of a sequence, a list of sizes is used for each block.
    order : 1 or 2
        2 extrapolates between evaluations, which helps where tokens depend on each other weakly, and may hurt
        where they do so strongly: not a universal gain. Only for groups of more than one token.
    variant : "theta_trapezoidal" or "extrapolation"
        Of order 2: two calls per group, the second in its middle (at `theta`); or one call, extrapolated from
        the group before.
    theta : float in (0, 1)
        Where a trapezoidal group is divided.
    corrector_steps : int
        Times that, after a block (or the sequence), the fraction `corrector_frac` of its tokens is masked
        again and drawn anew, one group a call. One token a call: it leaves the model's law as it is.
    corrector_frac : float in (0, 1]
    ragged : "left" or "pad"
        Whether sequences that are complete leave the batch, or stay so that shapes never change. The result
        is the same.
    return_stats : bool
        Also return `SampleStats`.
    **options
        See `CommonOptions`: temperature, top_k, top_p, min_p, cfg_scale, unconditional, bias, suppressed,
        forbidden, seed, sequence_ids, attention_mask, frozen, eos_id, pad_id, callback, progress.

    Returns
    -------
    int64 Tensor [B, L]
    SampleStats
        Only with `return_stats`.

    Raises
    ------
    ValueError, TypeError
        A bad argument; the message names it.
    RuntimeError
        On a CPU: a position for which no token can be drawn.

    Notes
    -----
    Zheng et al., "Masked Diffusion Models are Secretly Time-Agnostic Masked Models and Exploit Inaccurate
    Categorical Sampling", arXiv 2409.02908, section 4.1. With n masks left, the next is revealed at the time
    t with m(t) = m(t_n) u^(1/n), at a position chosen uniformly. Here every position has its own uniform U,
    with m(t) = m(1) U: sorted, the same law, but known before the first call.

    A result depends on the seed, the sequence's id and its tokens only: not on the batch, nor on the order in
    it. A `PhiloxState` given as seed is moved on by 1 + corrector_steps.

    Examples
    --------
    >>> import torch
    >>> def model(tokens):  # favours what its left neighbour says, plus one
    ...     return 9.0 * torch.nn.functional.one_hot((tokens.roll(1, 1) + 1) % 5, 5)
    >>> tokens = torch.tensor([[0, 5, 5, 5, 4], [2, 5, 4, 5, 5]])
    >>> first_hitting_sample(model, tokens, mask_id=5, seed=1, block_length=1)
    tensor([[0, 1, 2, 3, 4],
            [2, 3, 4, 0, 1]])
    """
    check_plan(num_steps, tokens_per_step, plan)
    check_second_order(order, variant, theta, options.get("temperature", 1.0))
    _check_corrector(corrector_steps, corrector_frac)
    check_schedule(schedule)
    if ragged not in ("left", "pad"):
        raise ValueError(f"`ragged` must be 'left' or 'pad', got {ragged!r}")
    run = start(model, tokens, mask_id, **options)
    blocks = block_index(run.todo, block_length)
    counts = block_counts(blocks) if block_length is not None else [[n] for n in run.counts]
    by_hits = order == 2 and variant == "extrapolation"
    halves = theta if order == 2 and not by_hits else None
    plans = [_plans(row, num_steps, tokens_per_step, plan) for row in counts]
    hits, prob = _hits(run, run.todo, 0, blocks if block_length is not None else None)
    first = np.zeros(len(counts), dtype=np.int64)
    phases = []
    for j in range(max(1, *map(len, counts))):
        here = np.array([row[j] if j < len(row) else 0 for row in counts])
        sizes, weights = _table([row[j] if j < len(row) else [] for row in plans], halves)
        block = blocks == j
        phases.append(Phase(hits, prob, first, sizes, weights="hits" if by_hits else weights))
        for c in range(1, corrector_steps + 1):
            phases.append(_corrector(run, block, here, c, corrector_frac, num_steps, tokens_per_step))
        phases[-1].block = block
        first = first + here
    agenda = make_agenda(phases)
    top = 1.0 if schedule is None else float(schedule.mask_prob(1.0))
    agenda.times = agenda.times * top
    tell(agenda, schedule, run.model.time)
    result, stats = follow(run, agenda, ragged, options.get("progress", False), 1 + corrector_steps)
    return (result, stats) if return_stats else result


def _hits(run: Run, todo: Tensor, draw: int, blocks: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Positions in the order of their hits, block by block, and the uniforms U of the hits."""
    order, u, _ = torch.ops.fastdiff_ops.first_hitting_times.default(todo, run.at_draw(draw), None)
    if blocks is None:
        return order, u
    block = blocks.gather(1, order.clamp(min=0).long()).masked_fill(order < 0, blocks.shape[1])
    permutation = block.argsort(dim=1, stable=True)
    return order.gather(1, permutation), u.gather(1, permutation)


def _plans(
    counts: list[int], num_steps: int | None, tokens_per_step: int | None, plan: Plan
) -> list[list[int]]:
    """Group sizes of each block of one sequence."""
    filled = [n for n in counts if n]
    if not filled:
        return [[] for _ in counts]
    if num_steps is None:
        return [group_sizes(n, tokens_per_step=tokens_per_step, plan=plan) for n in counts]
    shares = iter(split_steps(num_steps, len(filled)) if len(filled) > 1 else [num_steps])
    return [group_sizes(n, num_steps=next(shares), plan=plan) if n else [] for n in counts]


def _table(plans: list[list[int]], theta: float | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Sizes [S, B] of the sequences' plans; with theta every group is divided, and has a weight."""
    steps = max(map(len, plans))
    sizes = np.array([plan + [0] * (steps - len(plan)) for plan in plans], dtype=np.int64).T
    sizes = sizes.reshape(steps, len(plans))
    if theta is None:
        return sizes, None
    halves = np.zeros((2 * steps, len(plans)), dtype=np.int64)
    weights = np.zeros(halves.shape)
    for (s, b), m in np.ndenumerate(sizes):
        one, two = split_group(int(m), theta)
        halves[2 * s : 2 * s + 2, b] = one, two
        if two:
            weights[2 * s + 1, b] = trapezoidal_weight(one, two) - 1.0
    return halves, weights


def _corrector(
    run: Run,
    block: Tensor,
    counts: np.ndarray,
    draw: int,
    frac: float,
    num_steps: int | None,
    tokens_per_step: int | None,
) -> Phase:
    """Mask a random part of a block again and redraw it: the end of another first-hitting run."""
    order, prob = _hits(run, block, draw)
    redrawn = np.ceil(frac * counts).astype(np.int64)
    if num_steps is None:
        group = [tokens_per_step or 1] * len(counts)
    else:
        group = [math.ceil(n / num_steps) for n in counts]
    plans = [group_sizes(int(m), tokens_per_step=max(g, 1)) for m, g in zip(redrawn, group, strict=True)]
    place = torch.arange(order.shape[1], device=order.device)
    tail = torch.from_numpy(counts - redrawn).to(order.device)[:, None]
    rows = order.clamp(min=0).long()
    hide = torch.zeros_like(block).scatter_reduce(1, rows, (order >= 0) & (place >= tail), "amax")
    return Phase(order, prob, counts - redrawn, _table(plans, None)[0], draw=draw, hide=hide)


def _check_corrector(steps: int, frac: float) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"`corrector_steps` must be an int, got {steps!r:.80}")
    if steps < 0:
        raise ValueError(f"`corrector_steps` must be at least 0, got {steps}")
    if isinstance(frac, bool) or not isinstance(frac, (int, float)):
        raise TypeError(f"`corrector_frac` must be a number, got {frac!r:.80}")
    if not 0.0 < frac <= 1.0:
        raise ValueError(f"`corrector_frac` must be in (0, 1], got {frac!r}")
