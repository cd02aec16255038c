"""What a search returns and what it tells on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

History = list[tuple[float, float]]


@dataclass
class SearchStats:
    """How a search went; in callbacks, how it is going.

    What belongs to an instance is an array [B]: for a single instance [1].

    Attributes
    ----------
    seconds : float
        Wall time since the call began.
    lengths : float64 ndarray [B]
        Shortest tours so far, in the caller's units; inf before the first. While the search runs they are
        what it sees, within about 1e-6 of the lengths summed in float64.
    iterations : int64 ndarray [B]
        Kicks (`ils`) or simulated actions (`mcts`), over all trajectories.
    accepted : int64 ndarray [B]
        Of those, how many changed the tour for good.
    restarts : int64 ndarray [B]
        New random states (`mcts`).
    first_local_optimum : float64 ndarray [B]
        Length after the first descent; NaN if there was none.
    lower_bound : float64 ndarray [B]
        What `bound` said; else the engine's estimate by 1-trees on the candidate graph, which is near the
        Held-Karp bound but not proven to lie below the optimum. The length itself for up to twelve cities,
        which are solved exactly. NaN if there is none.
    rows_without_heat : int64 ndarray [B]
        Cities about which the heatmap says nothing; they fall back to their nearest neighbours.
    stopped_by : str
        "time", "iterations", "gap", "stall", "callback", "interrupt", "exact" (few cities), "construction"
        (`method="greedy"`); "" while running. Of several, what ended the last search.
    runs : int
        Searches in a row, each continuing the one before (`init=` a result).
    history : list of (seconds, length), or B of them for a batch
        Every improvement seen between slices of about 20 ms; empty unless `return_history`.
    """

    seconds: float
    lengths: NDArray[np.float64]
    iterations: NDArray[np.int64]
    accepted: NDArray[np.int64]
    restarts: NDArray[np.int64]
    first_local_optimum: NDArray[np.float64]
    lower_bound: NDArray[np.float64]
    rows_without_heat: NDArray[np.int64]
    stopped_by: str = ""
    runs: int = 1
    history: History | list[History] = field(default_factory=list)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the search."""
        return self.stopped_by == "interrupt"

    @property
    def gap(self) -> NDArray[np.float64]:
        """Length over `lower_bound`, less one: float64 [B], NaN where there is no bound above zero."""
        bound = np.where(self.lower_bound > 0, self.lower_bound, np.nan)
        return np.asarray(self.lengths / bound - 1)

    @classmethod
    def empty(cls, batch: int) -> SearchStats:
        """Return the stats of a search that has not begun."""
        return cls(
            seconds=0.0,
            lengths=np.full(batch, np.inf),
            iterations=np.zeros(batch, np.int64),
            accepted=np.zeros(batch, np.int64),
            restarts=np.zeros(batch, np.int64),
            first_local_optimum=np.full(batch, np.nan),
            lower_bound=np.full(batch, np.nan),
            rows_without_heat=np.zeros(batch, np.int64),
        )


class TSPResult(NamedTuple):
    """Tours, their lengths, and how they were found.

    Attributes
    ----------
    tours : int64 Tensor [N] or [B, N], on the device of the input
        Cities in the order of the visit. A closed tour begins with city 0, in the direction in which the
        second city has the smaller number than the last. An open path begins with the city `ends` says.
    lengths : float64 Tensor [] or [B], on the device of the input
        Summed in float64 from the input, in its units.
    stats : SearchStats
    """

    tours: Tensor
    lengths: Tensor
    stats: SearchStats
