"""What a scheduler remembers of a request: its table, history and anchor, and where it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastdiff_ops._coefficients import ROW_A, STATE, position
from fastdiff_ops.ops.linear_step import ANCHOR_MODES, CLIP_MODES
from fastdiff_ops.solvers.memory import dense, empty_like, empty_ring
from fastdiff_ops.solvers.packing import coef_dtype
from fastdiff_ops.solvers.table import SolverTable


@dataclass
class Request:
    """A run through a table from evaluation `first` of the whole run on.

    Attributes
    ----------
    table : SolverTable
        Of what is left of the run, bound to the prediction type.
    first : int
        Evaluation of the whole run with which `table` begins.
    next : int
        Evaluation of the whole run that comes next.
    """

    table: SolverTable
    first: int
    clip: str | None
    clip_limits: tuple[float, float, float]  # quantile, floor, cap
    coef: Tensor
    steps: tuple[Tensor, ...]
    rng: Tensor | None = None
    next: int = 0
    anchor: Tensor | None = None
    ring: Tensor | None = None
    stored: list[Tensor] = field(default_factory=list)  # by age; of the functional form

    @classmethod
    def start(
        cls,
        table: SolverTable,
        first: int,
        clip: str | None,
        clip_value: float,
        clip_limits: tuple[float, float, float],
        device: torch.device,
    ) -> Request:
        """Begin a run on a device."""
        coef = table.coefficients(clip=clip, clip_value=clip_value)
        steps = torch.arange(len(table), device=device).unbind()
        coef = coef.to(device, coef_dtype(device))
        return cls(table, first, clip, clip_limits, coef, steps, next=first)

    def step(self, output: Tensor, x: Tensor, noise: Tensor | None) -> Tensor:
        """Make the next update: one operator call, nothing waits."""
        e = self.next - self.first
        packed, mode = self.table.packed, self.table.anchor[e]
        assert packed is not None
        x, output = dense(x), dense(output)
        if self.ring is None and self.table.n_hist:
            self.ring = empty_ring(x, self.table.n_hist, x.dtype)
        if mode == "row" and self.anchor is None:
            self.anchor = empty_like(x)
        elif mode == "keep" and self.anchor is None:
            # the caller's state, unless a later step writes there
            self.anchor = x.clone() if "row" in self.table.anchor[e:] else x
        x_out = empty_like(x)
        anchor = self.anchor if mode == "row" or packed.uses_anchor[e] else None
        torch.ops.fastdiff_ops.solver_step_.default(
            x,
            [output],
            x_out,
            anchor,
            self.ring,
            None,
            self.coef,
            self.steps[e],
            None,
            None,
            None,
            self.clip_scale(x, output, self.coef, self.steps[e]),
            noise,
            None if noise is not None else self.rng,
            self.table.n_store,
            CLIP_MODES[self.clip or "none"],
            ANCHOR_MODES[mode],
        )
        if mode == "same":
            self.anchor = None
        self.next += 1
        return x_out

    def again(self) -> Request:
        """The same run from its beginning."""
        return Request(
            self.table, self.first, self.clip, self.clip_limits, self.coef, self.steps, next=self.first
        )

    def step_functional(
        self, output: Tensor, x: Tensor, noise: Tensor | None, rows: Tensor | None = None
    ) -> Tensor:
        """The same without mutation: for torch.compile, for gradients, and for a row of the table per sample.

        Parameters
        ----------
        rows : int64 Tensor [B], optional
            Evaluation of each sample.

        Raises
        ------
        ValueError
            `rows` with a solver that has stages.
        """
        e, step = self.next - self.first, self.steps[0]
        packed = self.table.packed
        assert packed is not None
        n_hist, n_store = self.table.n_hist, self.table.n_store
        if rows is None:
            coef, mode, uses_anchor = self.coef[e : e + 1], self.table.anchor[e], packed.uses_anchor[e]
        else:
            coef, mode = self._rows_of_samples(rows), self.table.anchor[-1]
            uses_anchor = mode == "row"
            self.anchor = x if uses_anchor and self.anchor is None else self.anchor
        while len(self.stored) < n_hist:
            self.stored.append(torch.zeros_like(x))
        # of step 0, age j lies in slot n_hist - 1 - j
        history = torch.stack(self.stored[:n_hist][::-1]) if n_hist else None
        anchor = self.anchor if uses_anchor else None
        x_next, corrected, *stored = torch.ops.fastdiff_ops.solver_step.default(
            x,
            [output],
            anchor,
            history,
            coef,
            step,
            None,
            None,
            None,
            self.clip_scale(x, output, coef, step),
            noise,
            None if noise is not None or self.rng is None else self._rng_at(e),
            n_store,
            CLIP_MODES[self.clip or "none"],
            ANCHOR_MODES[mode],
        )
        self.stored = [*stored[:n_store][::-1], *self.stored][:n_hist]
        if mode == "keep":
            self.anchor = x if self.anchor is None else self.anchor
        else:
            self.anchor = corrected if mode == "row" else None
        self.next += 1
        result: Tensor = x_next
        return result

    def _rows_of_samples(self, rows: Tensor) -> Tensor:
        """Coefficients [1, B, 64] where every sample is at an evaluation of its own."""
        modes = set(self.table.anchor[1:])
        if len(modes) > 1 or "keep" in modes:
            raise ValueError(
                f"`timestep` must be one for all samples with {self.table.name!r}, a solver with stages"
            )
        coef = self.coef.clone()
        if modes == {"row"}:  # what the first step keeps, it writes here
            coef[0, :, position(ROW_A, STATE)] = 1.0
        return coef[rows, 0][None]

    def clip_scale(self, x: Tensor, output: Tensor, coef: Tensor, step: Tensor) -> Tensor | None:
        """Scale of dynamic thresholding."""
        if self.clip != "dynamic":
            return None
        quantile = torch.ops.fastdiff_ops.abs_quantile.default
        scale: Tensor = quantile(x, [output], coef, step, None, *self.clip_limits)
        return scale

    def _rng_at(self, e: int) -> Tensor:
        """The draws of evaluation e, for a call at step 0."""
        assert self.rng is not None
        moved: Sequence[int] = [0, e, 0][: self.rng.shape[-1]]
        return self.rng + torch.tensor(moved, device=self.rng.device)
