"""Digits from the embedded model, and how far a solver is from the exact trajectory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastdiff_ops.demo.weights import SCHEDULE, load_weights
from fastdiff_ops.schedules import timesteps
from fastdiff_ops.solvers import SolverTable, make_table, sample

__all__ = ["Digits", "ErrorCurve", "Prompt", "compare", "table_for_budget"]

PREDICTION_TYPE = "v"


def table_for_budget(solver: str, nfe: int, spacing: str = "logSNR") -> SolverTable:
    """The table of `solver` with the most steps that need at most `nfe` model evaluations.

    Raises
    ------
    ValueError
        If one step already needs more.
    """
    for steps in range(nfe, 0, -1):
        table = make_table(solver, SCHEDULE, timesteps(SCHEDULE, steps, spacing))
        if len(table) <= nfe:
            return table
    raise ValueError(f"`nfe` must allow one step of {solver!r}, got {nfe}")


@dataclass(frozen=True)
class Prompt:
    """What to draw.

    Attributes
    ----------
    labels : sequence of int
        Digits 0 to 9.
    seed : int
        Of the initial noise and of what stochastic solvers add; equal seeds start equally with any solver.
    guidance_scale : float
        Weight of classifier-free guidance; 1 is none, and saves half the work.
    """

    labels: Sequence[int]
    seed: int = 0
    guidance_scale: float = 1.0


class Digits:
    """The embedded model on a device, ready to be sampled.

    Parameters
    ----------
    device : torch.device
        Where to run.
    on_evaluation : callable, optional
        Called after every evaluation of the model, for progress bars.

    Examples
    --------
    >>> digits = Digits(torch.device("cpu"))
    >>> digits.draw(table_for_budget("dpmpp_2m", 12), Prompt(labels=[3, 5])).shape
    torch.Size([2, 1, 16, 16])
    """

    def __init__(self, device: torch.device, on_evaluation: Callable[[], object] | None = None) -> None:
        weights = load_weights(device=device)
        self.device = device
        self.metadata = weights.metadata
        self.on_evaluation = on_evaluation
        self._model = weights.model
        size = weights.model.config.image_size
        self.shape = (1, size, size)
        self.null = weights.model.config.n_classes

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Evaluate the model: the callable that `sample` gets."""
        out: Tensor = self._model(x, t, y)
        if self.on_evaluation is not None:
            self.on_evaluation()
        return out

    def draw(self, table: SolverTable, prompt: Prompt) -> Tensor:
        """Sample one digit a label.

        Parameters
        ----------
        table : SolverTable
            On the VP cosine schedule.
        prompt : Prompt
            What to draw.

        Returns
        -------
        Tensor
            Pictures in about [-1, 1], ``[len(prompt.labels), 1, 16, 16]``.

        Raises
        ------
        ValueError
            If the table is on another schedule, or a label is no digit.
        """
        if table.schedule != SCHEDULE:
            raise ValueError(
                f"`table` must be on the model's schedule {SCHEDULE}, got one on {table.schedule}"
            )
        wrong = [k for k in prompt.labels if not 0 <= k < self.null]
        if wrong:
            raise ValueError(f"`labels` must be digits 0 to {self.null - 1}, got {wrong[0]}")
        y = torch.tensor(list(prompt.labels), device=self.device)
        guided = prompt.guidance_scale != 1.0
        return sample(
            self,
            (len(y), *self.shape),
            table,
            prediction_type=PREDICTION_TYPE,
            model_kwargs={"y": y},
            guidance_scale=prompt.guidance_scale if guided else None,
            uncond_kwargs={"y": torch.full_like(y, self.null)} if guided else None,
            seed=prompt.seed,
            device=self.device,
        )


@dataclass(frozen=True)
class ErrorCurve:
    """Error of one solver against the number of evaluations.

    Attributes
    ----------
    solver : str
        Its name.
    nfe : tuple of int
        Model evaluations.
    error : tuple of float
        Root mean square difference of a pixel to the reference.
    """

    solver: str
    nfe: tuple[int, ...]
    error: tuple[float, ...]

    @property
    def order(self) -> float:
        """Observed order: minus the slope of log error over log NFE, fitted to the last three points."""
        slope, _ = np.polyfit(np.log(self.nfe[-3:]), np.log(self.error[-3:]), 1)
        return float(-slope)


def compare(
    digits: Digits, reference: Tensor, solvers: Sequence[str], nfe: Sequence[int], prompt: Prompt
) -> list[tuple[ErrorCurve, list[Tensor]]]:
    """Run solvers with several budgets of evaluations and measure them against a `reference`.

    Parameters
    ----------
    digits : Digits
        The model.
    reference : Tensor
        The same prompt, drawn by many steps of a good solver.
    solvers : sequence of str
        Deterministic solvers.
    nfe : sequence of int
        Budgets, see :func:`table_for_budget`.
    prompt : Prompt
        What to draw.

    Returns
    -------
    list of (ErrorCurve, list of Tensor)
        Per solver its errors, and the pictures for each budget.
    """
    result = []
    for solver in solvers:
        tables = [table_for_budget(solver, n) for n in nfe]
        images = [digits.draw(table, prompt) for table in tables]
        errors = [float((image - reference).square().mean().sqrt()) for image in images]
        result.append((ErrorCurve(solver, tuple(map(len, tables)), tuple(errors)), images))
    return result
