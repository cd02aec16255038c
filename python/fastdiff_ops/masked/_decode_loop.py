"""The loop of decoding by scores: evaluate, draw every candidate, commit some of them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdiff_ops import ops

from ._loop import Run, SampleStats
from ._scored import Candidates, Record, draw_scored, gather, keep_active, spread, write
from .plan import group_sizes, split_steps

# Noise that orders positions is that of rows no token is drawn from: positions are below 2^31.
_ORDER_ROWS = 1 << 31


class Settings(NamedTuple):
    """What `decode` was asked for, checked."""

    strategy: str
    limit: float  # of an adaptive strategy
    alg_temp: float
    score_temperature: float
    low_confidence: tuple[int, ...]


class Plan(NamedTuple):
    """How many tokens each sequence commits in each of its steps, and how many are left in the block then."""

    sizes: NDArray[np.int64]  # int64 [S, B]
    left: NDArray[np.int64]  # int64 [S, B], before the step


def make_plan(counts: list[list[int]], num_steps: int | None) -> Plan:
    """Every sequence has a plan of its own, so that none depends on the batch."""
    rows = []
    for row in counts:
        filled = [n for n in row if n]
        shares: Iterable[int | None] = [None] * len(filled)
        if num_steps is not None and filled:
            shares = split_steps(num_steps, len(filled))
        steps = []
        for n, share in zip(filled, shares, strict=True):
            for size in group_sizes(n, num_steps=share):
                steps.append((size, n))
                n -= size
        rows.append(steps)
    longest = max(map(len, rows))
    table = np.array([row + [(0, 0)] * (longest - len(row)) for row in rows], dtype=np.int64)
    table = table.reshape(len(rows), longest, 2)
    return Plan(table[:, :, 0].T, table[:, :, 1].T)


def decode_loop(
    run: Run, settings: Settings, blocks: Tensor, plan: Plan | None, progress: bool
) -> tuple[Tensor, SampleStats]:
    """Evaluate, draw the candidates of each sequence's current block, commit some; until none are left."""
    device = run.tokens.device
    record = Record(run)
    low = torch.tensor(settings.low_confidence, dtype=torch.int64, device=device)
    sizes = None if plan is None else torch.from_numpy(plan.sizes).to(device)
    left = None if plan is None else plan.left
    failed = torch.zeros_like(run.todo)  # no token could be drawn there: not tried again
    ended = False
    run.expect(max(run.counts) if plan is None else len(plan.sizes), progress)
    try:
        for step in count():
            candidate, current = _candidates(run, blocks, failed)
            # the plan knows how many there are; otherwise the device has to be asked
            if left is None or run.eos_id is not None:
                here = candidate.sum(1).cpu().numpy()
            else:
                here = left[step] if step < len(left) else np.zeros(1)
            if not here.any():
                break
            places = keep_active(run, here > 0)
            if places is not None:
                index = torch.from_numpy(places).to(device)
                candidate, current, blocks = candidate[index], current[index], blocks[index]
                failed = failed[index]
                sizes = None if sizes is None else sizes[:, index]
                left = None if left is None else left[:, places]
            columns = gather(candidate, int(here.max()))
            evaluation = run.evaluate(columns.positions)
            drawn = draw_scored(run, evaluation, columns, step, settings.score_temperature)
            k = None if sizes is None else sizes[step]
            chosen = _choose(run, settings, drawn, columns, low, k, step)
            write(run, columns, chosen, drawn.tokens)
            record.step(run, columns, chosen & (drawn.tokens >= 0))
            failed = failed | spread(columns, chosen & (drawn.tokens < 0), failed)
            ended = run.done()
            if ended:
                break
            if run.eos_id is not None:
                _, now = _candidates(run, blocks, failed)
                run.stop_at_eos((blocks == current[:, None]) & (now != current)[:, None])
        tokens, n_failed = run.finish(max(run.step, 1), ended)
    finally:
        run.close()
    return tokens, record.stats(run, n_failed)


def _candidates(run: Run, blocks: Tensor, failed: Tensor) -> tuple[Tensor, Tensor]:
    """Masks of the first block of each sequence that has some, bool [A, L], and that block [A]."""
    todo = run.todo & (run.tokens == run.mask_id) & ~failed
    current = blocks.masked_fill(~todo, blocks.shape[1]).amin(1)
    return todo & (blocks == current[:, None]), current


def _choose(
    run: Run,
    settings: Settings,
    drawn: ops.SampledTokens,
    columns: Candidates,
    low: Tensor,
    k: Tensor | None,
    step: int,
) -> Tensor:
    """Which candidates the strategy commits, bool [A, m]."""
    strategy, limit = settings.strategy, settings.limit
    last = torch.isin(drawn.tokens, low) if len(low) else torch.zeros_like(columns.valid)
    residual = drawn.residual.masked_fill(last, torch.inf)
    if strategy == "threshold":
        return ops.select_transfer(None, columns.valid, residual=residual, threshold=limit)
    if strategy == "factor":
        return ops.select_transfer(None, columns.valid, residual=residual, factor=limit)
    if strategy == "entropy_bound":
        score = (-drawn.entropy).masked_fill(last, -torch.inf)
        return ops.select_transfer(score, columns.valid, entropy=drawn.entropy, entropy_bound=limit)
    if strategy == "confidence" and not settings.alg_temp:
        return ops.select_transfer(None, columns.valid, residual=residual, count=k)
    score = {"confidence": drawn.logprob.exp(), "margin": drawn.margin, "entropy": -drawn.entropy}[strategy]
    score = score.masked_fill(last, -torch.inf)
    if settings.alg_temp:
        score = _perturbed(run, score, columns, settings.alg_temp, step)
    return ops.select_transfer(score, columns.valid, count=k)


def _perturbed(run: Run, score: Tensor, columns: Candidates, temperature: float, step: int) -> Tensor:
    """Scores plus Gumbel noise: the k largest are k draws without replacement from their softmax.

    Each is a row with a vocabulary of one token.
    """
    m = score.shape[1]
    _, perturbed = ops.gumbel_argmax(
        score.reshape(-1, 1),
        temperature,
        rng=run.at_draw(step).repeat_interleave(m, 0),
        row_ids=run.row_ids(columns.positions) + _ORDER_ROWS,
        return_score=True,
    )
    return perturbed.view(-1, m)
