"""The nodes of a sampling run: a noise schedule read off at the chosen times, in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from fastdiff_ops.schedules import NoiseSchedule


@dataclass(frozen=True)
class Node:
    """One time of the grid: x = alpha x0 + sigma eps, lam = ln(alpha / sigma); c_in is the input's scale."""

    t: float
    model_time: float
    c_in: float
    alpha: float
    sigma: float
    lam: float


class Grid:
    """Decreasing times and what the schedule says there.

    Parameters
    ----------
    schedule : NoiseSchedule
    ts : array_like of float, [N + 1]
        Times from noise to data, both ends included; the half-logSNR must increase strictly.

    Raises
    ------
    ValueError
        Fewer than two times, NaN, times outside the schedule, or a half-logSNR that does not increase.
    """

    def __init__(self, schedule: NoiseSchedule, ts: Sequence[float] | npt.NDArray[np.float64]) -> None:
        times = np.asarray(ts, dtype=np.float64)
        if times.ndim != 1 or len(times) < 2:
            raise ValueError(f"`ts` must hold at least 2 times in one dimension, got shape {times.shape}")
        if np.isnan(times).any():
            raise ValueError(f"`ts` must not contain NaN, got {times.tolist()}")
        if outside := [t for t in times if not schedule.t0 <= t <= schedule.T and t != schedule.t_data]:
            raise ValueError(
                f"`ts` must lie in [{schedule.t0:g}, {schedule.T:g}] of {schedule}, or end at "
                f"{schedule.t_data:g} (no noise), got {outside[0]:g}"
            )
        self.schedule = schedule
        self.nodes = tuple(self.node(t) for t in times)
        for i, (s, t) in enumerate(self.steps()):
            if not t.lam > s.lam:
                raise ValueError(
                    "`ts` must go from noise to data (half-logSNR strictly increasing), but it is "
                    f"{s.lam:g} at ts[{i}] = {s.t:g} and {t.lam:g} at ts[{i + 1}] = {t.t:g}"
                )

    def node(self, t: float) -> Node:
        """The node at time `t`."""
        schedule = self.schedule
        alpha, sigma, lam = float(schedule.alpha(t)), float(schedule.sigma(t)), float(schedule.lam(t))
        return Node(float(t), float(schedule.model_time(t)), float(schedule.c_in(t)), alpha, sigma, lam)

    def node_at(self, lam: float) -> Node:
        """The node at half-logSNR `lam`."""
        return self.node(float(self.schedule.inv_lam(lam)))

    def steps(self) -> Iterator[tuple[Node, Node]]:
        """(s, t) for every step, s the noisier end."""
        return zip(self.nodes[:-1], self.nodes[1:], strict=True)

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.nodes) - 1
