"""Steps that look at what was drawn: candidates are drawn with their scores, and some of them written."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdiff_ops import ops

from ._follow import _COMPACT_BELOW
from ._loop import Run, SampleStats
from .drawing import Evaluation


class Candidates(NamedTuple):
    """Positions of each sequence that may be drawn, in columns; smaller positions first.

    order : int64 Tensor [A, m]
        Distinct positions; behind the candidates, others.
    valid : bool Tensor [A, m]
        Which are candidates.
    """

    order: Tensor
    valid: Tensor

    @property
    def positions(self) -> Tensor:
        """int32 [A, m], -1 where there is no candidate."""
        return self.order.masked_fill(~self.valid, -1).int()


def gather(candidate: Tensor, m: int) -> Candidates:
    """Return the candidates (bool [A, L]) as columns; m is at least the largest number of them."""
    order = candidate.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :m]
    return Candidates(order, candidate.gather(1, order))


def draw_scored(
    run: Run, evaluation: Evaluation, candidates: Candidates, draw: int, score_temperature: float
) -> ops.SampledTokens:
    """Draw a token for each candidate, [A, m]; nothing is written."""
    positions = candidates.positions
    m = positions.shape[1]
    drawn = ops.sample_with_scores(
        evaluation.logits,
        score_temperature=score_temperature,
        rng=run.at_draw(draw).repeat_interleave(m, 0),
        row_ids=run.row_ids(positions),
        **run.draw.arguments(evaluation, positions),
    )
    return ops.SampledTokens(*(value.view(-1, m) for value in drawn))


def write(run: Run, candidates: Candidates, chosen: Tensor, tokens: Tensor) -> None:
    """Write the chosen candidates' tokens, [A, m] each; -1 is no token."""
    kept = run.tokens.gather(1, candidates.order)
    run.tokens.scatter_(1, candidates.order, torch.where(chosen & (tokens >= 0), tokens, kept))


def spread(candidates: Candidates, chosen: Tensor, like: Tensor) -> Tensor:
    """Return the chosen candidates (bool [A, m]) as positions, bool [A, L]."""
    return torch.zeros_like(like, dtype=torch.bool).scatter(1, candidates.order, chosen)


class Record:
    """What a run's statistics are made of, kept on the device until the end."""

    def __init__(self, run: Run) -> None:
        self.trace = torch.full_like(run.tokens, -1, dtype=torch.int32)
        self.reveals: list[Tensor] = []

    def step(self, run: Run, candidates: Candidates, revealed: Tensor) -> None:
        """Step `run.step` revealed these candidates, bool [A, m]."""
        mine = spread(candidates, revealed, run.tokens)
        number = torch.zeros(len(self.trace), dtype=torch.int64, device=self.trace.device)
        if run.index is None:
            self.trace.masked_fill_(mine, run.step)
            number += mine.sum(1)
        else:
            self.trace[run.index] = self.trace[run.index].masked_fill(mine, run.step)
            number[run.index] = mine.sum(1)
        self.reveals.append(number)

    def stats(self, run: Run, failed: Tensor) -> SampleStats:
        """Statistics of the finished run, without times."""
        nothing = torch.zeros((0, len(self.trace)))
        reveals = torch.stack(self.reveals).cpu() if self.reveals else nothing.long()
        return SampleStats(run.nfe, reveals, nothing.double(), self.trace, failed)


def keep_active(run: Run, active: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """Let sequences that have nothing left leave the batch, once they are enough.

    `active` [A] says on the host which go on. Returns their places among those in work; None if all stay.
    """
    if active.mean() >= _COMPACT_BELOW:
        return None
    places = np.flatnonzero(active)
    run.keep(torch.from_numpy(places).to(run.tokens.device))
    return places
