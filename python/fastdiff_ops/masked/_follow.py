"""The loop of every sampler with an agenda: evaluate the network, make one fused draw, repeat."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ._loop import Run, SampleStats
from .agenda import Agenda
from .drawing import Draw
from .high_order import extrapolate

Ragged = Literal["left", "pad"]
_COMPACT_BELOW = 0.75  # share of the batch with work left, below which the others leave it


def follow(
    run: Run, agenda: Agenda, ragged: Ragged, progress: bool, draws: int
) -> tuple[Tensor, SampleStats]:
    """Carry out the agenda; the tokens [B, L] and what was done.

    With `ragged` "left", sequences that are complete leave the batch; with "pad" they stay, and shapes do.
    Results are the same.
    """
    whole, total = agenda, len(agenda.widths)
    last = agenda.last_steps()
    sizes = agenda.sizes.copy()
    places = np.arange(len(last))  # of the sequences in work
    previous: Tensor | None = None
    ended = False
    run.expect(total, progress)
    try:
        steps = agenda.positions.split(agenda.widths, dim=1)
        weights = None if agenda.weights is None else agenda.weights.split(agenda.widths, dim=1)
        for s in range(total):
            active = last[places] >= s
            if not active.any():
                break
            if ragged == "left" and active.mean() < _COMPACT_BELOW:
                keep = torch.from_numpy(np.flatnonzero(active)).to(run.tokens.device)
                places = places[active]
                run.keep(keep)
                agenda = agenda.take(keep)
                previous = None if previous is None else previous[keep]
                steps = agenda.positions.split(agenda.widths, dim=1)
                weights = None if agenda.weights is None else agenda.weights.split(agenda.widths, dim=1)
            if s in agenda.hide:
                run.tokens.masked_fill_(agenda.hide[s], run.mask_id)
            now, k = steps[s], agenda.widths[s]
            ahead = steps[s + 1] if s + 1 < total and agenda.extrapolated[s + 1] else None
            rows = now if ahead is None else torch.cat([now, ahead], dim=1)
            condition = None if agenda.condition is None else agenda.condition[s]
            evaluation = run.evaluate(rows if rows.shape[1] else None, condition)
            if agenda.extrapolated[s] and weights is not None and previous is not None:
                mine = evaluation.part(0, k)
                logits = extrapolate(run.draw.log_probabilities(mine, now), previous, weights[s])
                plain = Draw(torch.ones_like(run.draw.temperature[:1]))
                plain.step_(
                    run.tokens, mine._replace(logits=logits, uncond=None, gathered=True), now, run.rng
                )
            elif k:
                draw = run.draw
                if s in agenda.greedy:
                    draw = replace(draw, temperature=torch.zeros_like(draw.temperature[:1]), greedy=True)
                draw.step_(run.tokens, evaluation.part(0, k), now, run.at_draw(agenda.draws[s]))
            previous = None
            if ahead is not None:
                previous = run.draw.log_probabilities(evaluation.part(k, rows.shape[1]), ahead)
            ended = run.done()
            if ended:
                sizes[s + 1 :] = 0
                break
            complete = run.stop_at_eos(agenda.blocks[s]) if s in agenda.blocks else None
            if complete is not None:
                gone = places[complete.cpu().numpy()]
                sizes[s + 1 :, gone] = 0
                last[gone] = np.minimum(last[gone], s)
                later = agenda.positions[:, sum(agenda.widths[: s + 1]) :]
                later.masked_fill_(complete[:, None], -1)
        tokens, failed = run.finish(draws, ended)
    finally:
        run.close()
    done = run.step
    idle = torch.from_numpy(sizes[:done] == 0).to(tokens.device)
    stats = SampleStats(
        nfe=run.nfe,
        reveals=torch.from_numpy(sizes[:done]),
        times=whole.times[:done].masked_fill(idle, math.nan),
        trace=_trace(whole, sizes, tokens),
        failed_rows=failed,
    )
    return tokens, stats


def _trace(agenda: Agenda, sizes: np.ndarray, tokens: Tensor) -> Tensor:
    """Step in which each position was last revealed."""
    steps = np.repeat(np.arange(len(sizes)), agenda.widths)
    column = np.concatenate([[0], *(np.arange(w) for w in agenda.widths)])[1:]
    made = column[:, None] < sizes[steps]
    value = torch.from_numpy(np.where(made, steps[:, None], -1).T.astype(np.int32)).to(tokens.device)
    trace = torch.full(tokens.shape, -1, dtype=torch.int32, device=tokens.device)
    where = agenda.positions.clamp(min=0).long()
    value = value.masked_fill(agenda.positions < 0, -1)
    return trace.scatter_reduce(1, where, value, "amax")
