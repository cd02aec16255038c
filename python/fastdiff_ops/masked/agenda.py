"""The agenda of a run: which positions are revealed by which evaluation.

When a token is revealed depends neither on tokens nor on the network (arXiv 2409.02908), so a whole run is
known before its first evaluation. First-hitting, parallel, semi-autoregressive, ancestral and second-order
sampling, and correctors, are different agendas of one loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .schedule import Conditioning, MaskSchedule

IntArray = npt.NDArray[np.int64]


@dataclass
class Phase:
    """Steps that take positions from one order.

    Attributes
    ----------
    order : int32 Tensor [B, L]
        Positions in the order in which they are revealed.
    mask_prob : float64 Tensor [B, L]
        Mask probability at which each of them is.
    starts : int64 [B]
        Where in `order` the phase begins.
    sizes : int64 [S, B]
        How many positions each step reveals.
    draw : int
        Which draw of these positions it is.
    hide : bool Tensor [B, L], optional
        What is masked again before the phase.
    block : bool Tensor [B, L], optional
        After the phase this block is complete.
    weights : float64 [S, B], "hits", or None
        Extrapolation from the previous evaluation (`high_order`): a weight per step and sequence, or by the
        hits' own mask probabilities.
    grid : float64 [S], optional
        Mask probabilities at which the network is evaluated; default that of each step's first hit.
    greedy_last : bool
        The last step takes the most probable tokens.
    """

    order: Tensor
    mask_prob: Tensor
    starts: IntArray
    sizes: IntArray
    draw: int = 0
    hide: Tensor | None = None
    block: Tensor | None = None
    weights: npt.NDArray[np.float64] | str | None = None
    grid: npt.NDArray[np.float64] | None = None
    greedy_last: bool = False


@dataclass
class Agenda:
    """A run, step by step; A sequences, S steps, C positions in all steps together.

    Attributes
    ----------
    positions : int32 Tensor [A, C]
        -1 where a sequence has nothing to reveal.
    widths : list of int [S]
        Columns of each step.
    sizes : int64 [S, B]
        Positions revealed by each step, on the host.
    times : float64 Tensor [S, A]
        Mask probability at which the network is evaluated.
    draws : list of int [S]
    extrapolated : list of bool [S]
    weights : float64 Tensor [A, C], optional
    condition : float32 Tensor [S, A], optional
        What the network is told.
    hide, blocks : dict of step to bool Tensor [A, L]
        What to mask before a step; which block is complete after it.
    greedy : set of steps
    keep_empty : bool
        Steps that reveal nothing are made nevertheless.
    """

    positions: Tensor
    widths: list[int]
    sizes: IntArray
    times: Tensor
    draws: list[int]
    extrapolated: list[bool]
    weights: Tensor | None = None
    condition: Tensor | None = None
    hide: dict[int, Tensor] = field(default_factory=dict)
    blocks: dict[int, Tensor] = field(default_factory=dict)
    greedy: set[int] = field(default_factory=set)
    keep_empty: bool = False

    def take(self, places: Tensor) -> Agenda:
        """The agenda of some of the sequences."""
        return replace(
            self,
            positions=self.positions[places],
            times=self.times[:, places],
            weights=None if self.weights is None else self.weights[places],
            condition=None if self.condition is None else self.condition[:, places],
            hide={s: mask[places] for s, mask in self.hide.items()},
            blocks={s: mask[places] for s, mask in self.blocks.items()},
        )

    def last_steps(self) -> IntArray:
        """The last step that each sequence takes part in, -1 if there is none."""
        if self.keep_empty:
            return np.full(self.sizes.shape[1], len(self.sizes) - 1)
        steps = np.arange(len(self.sizes))[:, None]
        last: IntArray = np.where(self.sizes > 0, steps, -1).max(axis=0, initial=-1)
        return last


def make_agenda(phases: Sequence[Phase], keep_empty: bool = False) -> Agenda:
    """Put phases one after the other; steps that reveal nothing are left out unless they are kept."""
    parts = [_tables(phase, keep_empty) for phase in phases]
    agenda = Agenda(
        positions=torch.cat([part.positions for part in parts], dim=1),
        widths=[w for part in parts for w in part.widths],
        sizes=np.concatenate([part.sizes for part in parts]),
        times=torch.cat([part.times for part in parts]),
        draws=[d for part in parts for d in part.draws],
        extrapolated=[e for part in parts for e in part.extrapolated],
        keep_empty=keep_empty,
    )
    if any(agenda.extrapolated):
        zeros = [torch.zeros_like(part.positions, dtype=torch.float64) for part in parts]
        agenda.weights = torch.cat(
            [z if part.weights is None else part.weights for part, z in zip(parts, zeros, strict=True)], 1
        )
    s = 0
    for phase, part in zip(phases, parts, strict=True):
        steps = len(part.widths)
        if steps and phase.hide is not None:
            agenda.hide[s] = phase.hide
        s += steps
        if steps and phase.block is not None:  # a block without steps must not hide the one before it
            agenda.blocks[s - 1] = phase.block
        if steps and phase.greedy_last:
            agenda.greedy.add(s - 1)
    return agenda


def tell(agenda: Agenda, schedule: MaskSchedule | None, kind: Conditioning) -> None:
    """Work out what a network that wants to know the time is told, and turn `times` into times."""
    if kind != "none":
        if schedule is None:
            raise ValueError(f"`schedule` is needed: the model takes {kind!r}")
        agenda.condition = schedule.conditioning(agenda.times, kind).to(torch.float32)
    if schedule is not None:
        agenda.times = schedule.inverse(agenda.times)


def _tables(phase: Phase, keep_empty: bool) -> Agenda:
    sizes = phase.sizes
    starts = phase.starts + np.cumsum(sizes, axis=0) - sizes
    widths = sizes.max(axis=1, initial=0)
    extrapolated = _extrapolated(phase, starts, widths)
    kept = np.full(len(widths), True) if keep_empty else widths > 0
    if phase.weights is not None and phase.grid is not None:
        kept[:-1] |= extrapolated[1:]  # what is extrapolated from must have been evaluated
    sizes, starts, widths, extrapolated = sizes[kept], starts[kept], widths[kept], extrapolated[kept]
    columns = [
        np.where(np.arange(w)[:, None] < size, start + np.arange(w)[:, None], -1)
        for w, size, start in zip(widths, sizes, starts, strict=True)
    ]
    device, batch = phase.order.device, phase.order.shape[0]
    table = np.concatenate([np.empty((0, batch), dtype=np.int64), *columns]).T
    hits = torch.from_numpy(table.copy()).to(device)
    where = hits.clamp(min=0)
    positions = phase.order.gather(1, where).masked_fill(hits < 0, -1)
    at_hits = phase.mask_prob.gather(1, where)
    if phase.grid is None:
        last = np.minimum(starts, phase.order.shape[1] - 1)  # of sequences with nothing left: any number
        first = torch.from_numpy(last.T.copy()).to(device)
        times = phase.mask_prob.gather(1, first).T
    else:
        grid = torch.from_numpy(phase.grid[kept]).to(device)
        times = grid[:, None].expand(-1, batch)
    weights: Tensor | None = None
    if isinstance(phase.weights, str):
        weights = _hit_weights(at_hits, times, widths)
    elif phase.weights is not None:
        per_step = np.repeat(phase.weights[kept], widths, axis=0).T
        weights = torch.from_numpy(per_step.copy()).to(device)
    return Agenda(
        positions=positions,
        widths=widths.tolist(),
        sizes=sizes,
        times=times,
        draws=[phase.draw] * len(widths),
        extrapolated=extrapolated.tolist(),
        weights=weights,
    )


def _extrapolated(phase: Phase, starts: IntArray, widths: IntArray) -> npt.NDArray[np.bool_]:
    """Which steps use the previous evaluation."""
    if phase.weights is None:
        return np.full(len(widths), False)
    if isinstance(phase.weights, str):
        return np.arange(len(widths)) > 0
    used: npt.NDArray[np.bool_] = ((phase.weights != 0) & (phase.sizes > 0)).max(axis=1, initial=False)
    return used


def _hit_weights(at_hits: Tensor, times: Tensor, widths: IntArray) -> Tensor:
    """(m_a - m_i) / (m_previous - m_a), at most 1, for hit i of a step evaluated at m_a."""
    per_column = torch.from_numpy(np.repeat(np.arange(len(widths)), widths)).to(times.device)
    before = times[(per_column - 1).clamp(min=0)].T
    now = times[per_column].T
    return ((now - at_hits) / (before - now)).clamp(max=1.0)
