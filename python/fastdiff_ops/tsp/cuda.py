"""Tour search on CUDA: all trajectories of a batch of instances at once, in slices of about 20 ms.

A warp walks a trajectory, so what a GPU is good for is many of them: a batch of instances, or many
trajectories of one. A single trajectory is slower there than on a processor's core. The same code runs on
CPU tensors, where the operator walks the same trajectories one after another.
"""

from __future__ import annotations

import math
import time
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdiff_ops.ops.tour_search import SEGMENT, STATE_WORDS, pack_candidates, tsp_search_slice

SLICE: Final = 0.02
KNOTS: Final = 33  # of a geometric schedule, linear between: within 0.1 % of it
# Chosen at N = 500 and 10 to 40 kicks a city in each of 8 trajectories, where results differ little from 0.1
# to 0.5; a ladder of 4 and copies every 50 kicks a city were behind.
HOT: Final = 0.3  # mean edges of the first local optimum
LADDER: Final = 2.0  # the hottest trajectory of an instance over the coldest
ELITE: Final = 5  # kicks a city from one copy of good tours over bad ones to the next
_FIRST_SLICE: Final = 16  # kicks, by which the speed is measured
_MANY_CITIES: Final = 100_000
_LENGTH, _BEST, _FIRST, _ACCEPTED = range(4)


class DeviceSearch:
    """Iterated local searches of P trajectories on each of B instances.

    Parameters
    ----------
    coords : float64 Tensor [B, N, 2]
        N >= 8, finite. Where it is, the search runs.
    candidates : int Tensor [B, N, K]
        Neighbours in ascending distance, -1 = none; at most 8 are used.
    starts : int Tensor [B, N]
        Tours to start from.
    trajectories : int
        P. Their temperatures are a ladder, and every 5 N kicks the worst quarter goes on from the tours of
        the best quarter.
    seed : int
        Instance b, trajectory p reads a stream of its own.
    first_instance : int
        Number of instance 0, so that a part of a batch finds what it would find in the whole.
    max_kicks : int, optional
        Of each trajectory. The result then depends on the seed only, not on how time was cut.
    time_limit : float, optional
        Seconds; one of the two limits must be given. Temperatures follow the kicks if they are limited.
    segment : int
        The most cities of each of a kick's three segments.
    hot, cold : float, optional
        Temperatures at the start and at the end, in mean edges of the first local optimum. Default: 0.3,
        and a tenth of `hot`.

    Attributes
    ----------
    kicks : int
        Of each trajectory so far.
    lengths : float64 ndarray [B]
        Of the best tour of each instance, to about 1e-7 of it.
    first_local_optimum : float64 ndarray [B]
        Length after the first descent.
    accepted : int64 ndarray [B]
        Kicks that changed the tour for good, over all trajectories.

    Raises
    ------
    ValueError
        If a limit is missing, or shapes do not fit.
    RuntimeError
        While a CUDA graph is captured: the search reads the clock. `ops.tsp_search_slice` can be captured.

    Examples
    --------
    >>> angle = torch.arange(60, dtype=torch.float64) * 2.4
    >>> circle = torch.stack([angle.cos(), angle.sin()], -1)[None]
    >>> near = torch.cdist(circle, circle).topk(9, largest=False).indices[..., 1:]
    >>> search = DeviceSearch(circle, near, torch.arange(60)[None], trajectories=4, seed=0, max_kicks=300)
    >>> while not search.run(0.02):
    ...     pass
    >>> round(float(search.lengths[0]), 3)
    6.28
    """

    def __init__(
        self,
        coords: Tensor,
        candidates: Tensor,
        starts: Tensor,
        *,
        trajectories: int,
        seed: int,
        first_instance: int = 0,
        max_kicks: int | None = None,
        time_limit: float | None = None,
        segment: int = SEGMENT,
        hot: float | None = None,
        cold: float | None = None,
    ) -> None:
        if max_kicks is None and time_limit is None:
            raise ValueError("give `max_kicks`, `time_limit` or both")
        refuse_capture(coords.device)
        self._began = time.monotonic()
        batch, n, _ = coords.shape
        self._max_kicks = math.inf if max_kicks is None else max_kicks
        self._time_limit = math.inf if time_limit is None else time_limit
        self._hot = HOT if hot is None else hot
        self._cold = self._hot / 10 if cold is None else cold
        self._segment = max(1, min(segment, n // 6))
        self._points, unit = integer_points(coords)
        self._unit = unit.cpu().numpy()
        device = self._points.device
        self._candidates = pack_candidates(candidates.to(device))
        self._tours = starts.to(device, torch.int32)[:, None].repeat(1, trajectories, 1)
        self._best = self._tours.clone()
        self._state = torch.zeros(batch, trajectories, STATE_WORDS, dtype=torch.int64, device=device)
        signed = (seed + 2**63) % 2**64 - 2**63
        self._rng = torch.tensor([signed, first_instance], device=device)
        self._kick_rate = 0.0
        self.kicks = 0
        self.lengths: NDArray[np.float64]
        self.first_local_optimum: NDArray[np.float64]
        self.accepted: NDArray[np.int64]
        self._slice(0)  # the first descent

    @property
    def n(self) -> int:
        return self._points.shape[1]

    @property
    def trajectories(self) -> int:
        return self._tours.shape[1]

    @property
    def elapsed(self) -> float:
        """Seconds since the search was made."""
        return time.monotonic() - self._began

    def run(self, seconds: float) -> bool:
        """Walk for about so long; return whether a limit is reached. Waits for the device."""
        refuse_capture(self._points.device)
        until = time.monotonic() + min(seconds, self._time_limit - self.elapsed)
        while (left := until - time.monotonic()) > 0 and self.kicks < self._max_kicks:
            wanted = self._kick_rate * min(left, SLICE) if self._kick_rate else _FIRST_SLICE
            period = ELITE * self.n
            copy_at = (self.kicks // period + 1) * period
            count = int(min(max(1, wanted), self._max_kicks - self.kicks, copy_at - self.kicks))
            began = time.monotonic()
            self._slice(count)
            # doubtful at first, and smoothed: one slow slice says little
            rate = count / max(time.monotonic() - began, 1e-9)
            self._kick_rate = min(rate, 4 * self._kick_rate) if self._kick_rate else rate
            if self.kicks == copy_at:
                copy_elites(self._tours, self._state)
        return self.kicks >= self._max_kicks or self.elapsed >= self._time_limit

    def temperatures(self, first: int, last: int) -> tuple[Tensor, tuple[int, int]]:
        """Return the temperatures of kicks first .. last - 1, float64 [P, M], and the span they lie on."""
        if self._max_kicks < math.inf:
            span, ends = (0, int(self._max_kicks)), (0.0, 1.0)
        else:
            span, now = (first, last), self.elapsed
            after = now + (last - first) / self._kick_rate if self._kick_rate else now
            ends = (now / self._time_limit, min(1.0, after / self._time_limit))
        mean = self._hot * (self._cold / self._hot) ** np.linspace(*ends, KNOTS)
        steps = np.arange(self.trajectories) / max(1, self.trajectories - 1)
        ladder = LADDER ** (steps - 0.5) if self.trajectories > 1 else np.ones(1)
        return torch.from_numpy(ladder[:, None] * mean), span

    def _slice(self, count: int) -> None:
        device = self._points.device
        temperature, span = self.temperatures(self.kicks, self.kicks + count)
        kicks = torch.tensor([self.kicks, self.kicks + count, *span], device=device)
        state = (self._tours, self._best, self._state)
        instance = (self._points, self._candidates)
        tsp_search_slice(*state, *instance, kicks, temperature.to(device), self._rng, self._segment)
        # what is worth knowing between slices, fetched at once: this waits for the slice
        words = self._state.cpu().numpy()
        if (words[..., _LENGTH] < 0).any():
            raise ValueError("`starts` must hold permutations, and `coords` finite numbers")
        self.kicks += count
        self.lengths = self._in_units(words[..., [_LENGTH, _BEST]].min((1, 2)))
        self.first_local_optimum = self._in_units(words[:, 0, _FIRST])
        self.accepted = words[..., _ACCEPTED].sum(1)

    def best(self, instance: int) -> Tensor:
        """Return the best tour of an instance, int64 [N], on the device."""
        # of many cities best tours are kept now and then only: the current one may be better
        winner = self._state[instance][..., [_LENGTH, _BEST]].T.flatten().argmin()
        return torch.cat([self._tours[instance], self._best[instance]])[winner].long()

    def _in_units(self, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray((lengths + 0.5 * self.n) * self._unit)  # lengths of edges are rounded down


def refuse_capture(device: torch.device) -> None:
    """Raise while a CUDA graph is captured.

    Raises
    ------
    RuntimeError
    """
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "the tour search reads the clock and cannot be captured in a CUDA graph; "
            "`ops.tsp_search_slice` can"
        )


def integer_points(coords: Tensor) -> tuple[Tensor, Tensor]:
    """Return points float32 [B, N, 2] whose distances are taken as integers, and the unit of those, [B]."""
    corner = coords.amin(1, keepdim=True)
    side = (coords - corner).amax((1, 2))
    side = torch.where(side > 0, side, 1.0).double()
    scale = 2.0**26 if coords.shape[1] > _MANY_CITIES else 2.0**24
    return ((coords - corner).double() / side[:, None, None] * scale).float().contiguous(), side / scale


def copy_elites(tours: Tensor, state: Tensor) -> None:
    """Let the worst quarter of each instance's trajectories go on from the tours of the best quarter.

    In place, without synchronisation; of equal lengths the first counts as better.
    """
    quarter = tours.shape[1] // 4
    if quarter == 0:
        return
    lengths = state[..., _LENGTH]
    rank = lengths.argsort(dim=1, stable=True)
    good, bad = rank[:, :quarter], rank[:, -quarter:]
    rows = torch.arange(len(tours), device=tours.device)[:, None]
    tours[rows, bad] = tours[rows, good]
    lengths[rows, bad] = lengths[rows, good]
