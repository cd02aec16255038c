"""Tells callers how a search is going: the callback, the progress bar."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
from tqdm import tqdm

from .result import SearchStats

Callback = Callable[[SearchStats], Any]


class Report:
    """A callback and a progress bar in one; `enough(stats)` tells both and returns whether to stop."""

    def __init__(
        self, callback: Callback | None, progress: bool, seconds: float, iterations: float, searches: int
    ) -> None:
        self._callback = callback
        self._bar: tqdm[Any] | None = None
        self._seconds = iterations == np.inf
        if progress and self._seconds:
            endless = seconds == np.inf
            form = "{desc}: {n:.1f} s{postfix}" if endless else "{l_bar}{bar}| {n:.1f}/{total:.1f} s{postfix}"
            self._bar = tqdm(total=None if endless else seconds, bar_format=form, desc="tour")
        elif progress:
            self._bar = tqdm(total=int(iterations) * searches, desc="tour", unit="it", unit_scale=True)

    def __enter__(self) -> Report:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def wanted(self) -> bool:
        return self._callback is not None or self._bar is not None

    def enough(self, stats: SearchStats) -> bool:
        self.show(stats)
        return self._callback is not None and bool(self._callback(stats))

    def show(self, stats: SearchStats) -> None:
        """Move the bar."""
        if self._bar is None:
            return
        now = stats.seconds if self._seconds else float(stats.iterations.sum())
        self._bar.n = now if self._bar.total is None else min(now, self._bar.total)
        there = np.isfinite(stats.lengths)
        if not there.any():
            return
        length, gaps = stats.lengths[there].mean(), stats.gap[there]
        text = f"length {length:.6g}"
        if len(there) > 1:
            text = f"mean {text} of {there.sum()}/{len(there)}"
        if not np.isnan(gaps).all():
            text += f", gap {np.nanmean(gaps):.3%}"
        self._bar.set_postfix_str(text)
