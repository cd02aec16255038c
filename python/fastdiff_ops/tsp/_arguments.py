"""Checks of `solve`'s arguments."""

from __future__ import annotations

import math
import warnings
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastdiff_ops.ops.random import PhiloxState, Seed, resolve_seed
from fastdiff_ops.schedules._checks import check_count

from ._drive import Limits
from ._input import read_numbers
from .config import ILSConfig
from .heatmaps import MAX_WIDTH, Heatmap, HeatmapReader
from .instance import Instances
from .mcts import MCTSConfig, TunedFor
from .result import TSPResult
from .route import Route
from .tours import read_starts

Method = Literal["ils", "mcts", "greedy"]
Config = ILSConfig | MCTSConfig
MAX_CANDIDATES: Final = 16
_SECONDS_PER_CITY: Final = 1e-3
_LONGEST_DEFAULT: Final = 10.0


def check_choices(
    method: Any, config: Any, trajectories: Any, threads: Any, candidates: Any, callback: Any
) -> None:
    """Raise for arguments of `solve` that stand for themselves."""
    if method not in get_args(Method):
        raise ValueError(f"`method` must be one of {', '.join(get_args(Method))}, got {method!r}")
    wanted = {"ils": ILSConfig, "mcts": MCTSConfig}.get(method)
    if config is not None and (wanted is None or not isinstance(config, wanted)):
        takes = f"a {wanted.__name__}" if wanted else "None"
        raise TypeError(f"`config` of method {method!r} must be {takes}, got {type(config).__name__}")
    check_count("trajectories", trajectories, 1)
    for name, value in (("threads", threads), ("candidates", candidates)):
        if value is not None:
            check_count(name, value, 1)
    if candidates is not None and candidates > MAX_CANDIDATES:
        raise ValueError(f"`candidates` must be at most {MAX_CANDIDATES}, got {candidates}")
    if callback is not None and not callable(callback):
        raise TypeError(f"`callback` must be callable, got {type(callback).__name__}")


def read_bound(bound: Any, batch: int) -> NDArray[np.float64]:
    """Return a bound for each instance, float64 [B], NaN where there is none."""
    if bound is None:
        return np.full(batch, np.nan)
    given = [bound] if isinstance(bound, (int, float)) else bound
    values = read_numbers("bound", given).cpu().double().flatten()
    if len(values) not in (1, batch):
        raise ValueError(f"`bound` must be a number, or one for each of {batch} instances, got {len(values)}")
    if not bool((values >= 0).all() and values.isfinite().all()):
        raise ValueError(f"`bound` must be finite and at least 0, got {values.tolist()!r:.80}")
    return np.array(values.expand(batch).numpy())


def read_limits(
    began: float,
    instances: Instances,
    method: Method,
    time_limit: Any,
    max_iterations: Any,
    known: NDArray[np.float64],
    stop_gap: Any,
    stall: Any,
) -> Limits:
    """Return what ends the search."""
    if max_iterations is not None:
        check_count("max_iterations", max_iterations, 0)
    for name, value in (("time_limit", time_limit), ("stop_seconds_without_improvement", stall)):
        if value is not None and not _number(name, value) > 0:
            raise ValueError(f"`{name}` must be positive, got {value!r}")
    gap = math.nan
    if stop_gap is not None:
        gap = _number("stop_gap", stop_gap)
        if not 0 <= gap < math.inf:
            raise ValueError(f"`stop_gap` must be finite and at least 0, got {stop_gap!r}")
        if np.isnan(known).any() and (method != "ils" or instances.device.type == "cuda"):
            where = "on CUDA" if method == "ils" else f"with method {method!r}"
            raise ValueError(
                f"`stop_gap` needs `bound` {where}: there is no estimate to measure gaps against"
            )
    cities = instances.n * instances.batch
    seconds = math.inf
    if time_limit is not None:
        seconds = float(time_limit)
    elif max_iterations is None and method != "greedy":
        seconds = min(_LONGEST_DEFAULT, _SECONDS_PER_CITY * cities)
    # what is left for fetching tours and adding up their lengths
    reserve = min(0.05 * seconds, 1e-3 + 1e-7 * cities)
    deadline = began + seconds - (reserve if seconds < math.inf else 0.0)
    iterations = math.inf if max_iterations is None else max_iterations
    patience = math.inf if stall is None else float(stall)
    return Limits(deadline, iterations, known * (1 + gap), patience, gap)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"`{name}` must be a number, got {type(value).__name__}")
    return float(value)


def read_init(init: Any, instances: Instances, route: Route) -> tuple[Tensor | None, int]:
    """Return tours to start from, int64 [B, N], if any, and how many runs have led to them."""
    if init is None:
        return None, 0
    if isinstance(init, TSPResult):
        return read_starts("init", init.tours, instances, route), init.stats.runs
    return read_starts("init", init, instances, route), 0


def read_heat(
    heatmap: Any,
    instances: Instances,
    config: Config,
    edge_index: Any,
    logits: bool,
) -> Heatmap | None:
    """Return the heatmap that the search gets, if any."""
    if not isinstance(logits, bool):
        raise TypeError(f"`logits` must be a bool, got {type(logits).__name__}")
    if isinstance(heatmap, Tensor) and instances.device.type == "cuda" and heatmap.device.type == "cpu":
        warnings.warn("`heatmap` is on the CPU, the instances are not: it is moved", stacklevel=3)
    width = MAX_WIDTH
    if isinstance(config, MCTSConfig):
        width = max(width, min(config.max_candidates or instances.n, instances.n - 1))
    elif heatmap is None and edge_index is None and not logits:
        return None
    return HeatmapReader(instances, edge_index, logits, width).read(heatmap)


def default_config(method: Method, heatmap: Any, n: int, seconds: float) -> Config:
    """Return the settings of a search of so many seconds."""
    if method != "mcts":
        return ILSConfig()
    kinds: dict[str, TunedFor] = {"zero": "zero", "softdist": "softdist"}
    kind = kinds.get(heatmap, "knn") if isinstance(heatmap, str) else "knn"
    per_city = seconds / n if seconds < math.inf else None
    return MCTSConfig.tuned(max(n, 5), time_per_city=per_city, heatmap=kind)


def stream_key(seed: Seed, earlier: int) -> int:
    """Return the key of the random stream: for each run that continues another one a key of its own."""
    state = resolve_seed(seed)
    place = state.offset + earlier
    key = PhiloxState(state.seed)
    while place:
        key, place = key.fork(place & 0xFFFFFFF), place >> 28
    if isinstance(seed, PhiloxState):
        seed.advance(1)
    return key.seed
