"""Settings of the published heat-guided search, and those that its tuning found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from fastdiff_ops.schedules._checks import check_count, check_positive

TunedFor: TypeAlias = Literal["knn", "zero", "att-gcn", "dimes", "utsp", "softdist", "difusco"]

# Seconds per city that the settings were tuned for, and alpha, beta, param_h, max_candidates (None: all),
# candidates_from_heatmap, max_depth: arXiv 2411.09238, appendix.
_Row: TypeAlias = "tuple[float, float, float, int | None, int, int]"
_TUNED: Final[dict[str, dict[int, dict[float, _Row]]]] = {
    "knn": {
        500: {
            0.1: (0, 10, 5, 5, 1, 200),
            0.05: (2, 10, 2, 5, 1, 200),
            0.01: (0, 10, 2, 5, 1, 200),
            0.005: (0, 10, 2, 5, 1, 200),
        },
        1000: {
            0.1: (1, 10, 5, 5, 1, 200),
            0.05: (0, 10, 2, 5, 1, 200),
            0.01: (0, 10, 2, 5, 1, 200),
            0.005: (1, 10, 2, 5, 1, 50),
        },
        10000: {0.01: (0, 10, 10, 20, 1, 200), 0.005: (1, 100, 5, 20, 1, 100)},
    },
    "zero": {
        500: {0.1: (2, 10, 2, 5, 0, 100)},
        1000: {0.1: (1, 100, 5, 5, 0, 100)},
        10000: {0.01: (0, 100, 2, 20, 0, 10)},
    },
    "att-gcn": {
        500: {0.1: (0, 150, 5, 5, 0, 100)},
        1000: {0.1: (0, 150, 5, 5, 0, 200)},
        10000: {0.01: (1, 150, 2, 5, 1, 50)},
    },
    "dimes": {
        500: {0.1: (0, 100, 5, 5, 0, 200)},
        1000: {0.1: (0, 150, 2, 5, 0, 200)},
        10000: {0.01: (1, 100, 2, 20, 0, 10)},
    },
    "utsp": {500: {0.1: (0, 100, 5, 5, 0, 50)}, 1000: {0.1: (1, 100, 5, 5, 0, 50)}},
    "softdist": {
        500: {0.1: (1, 100, 2, None, 1, 200)},
        1000: {0.1: (0, 150, 2, 20, 1, 200)},
        10000: {0.01: (0, 10, 10, 20, 0, 200)},
    },
    "difusco": {
        500: {0.1: (1, 150, 2, 5, 0, 50)},
        1000: {0.1: (0, 150, 2, 5, 1, 100)},
        10000: {0.01: (0, 100, 5, 20, 0, 50)},
    },
}
# Largest instance that the settings of a size are used for.
_UP_TO: Final = {500: 749, 1000: 2999}


@dataclass(frozen=True)
class MCTSConfig:
    """Settings of `method="mcts"`; the defaults are those of the original work (arXiv 2012.10658).

    Attributes
    ----------
    alpha : float
        Weight of exploration: an edge's potential is W / mean W + alpha sqrt(ln(M + 1) / (Q + 1)), after M
        simulated actions, Q of which tried the edge.
    beta : float
        Weight of a reward: an improvement by D of a tour of length L adds beta (exp(D / L) - 1) to the weight
        of its new edges.
    param_h : float
        A state is left for a new random one after `param_h` N actions without an improvement.
    max_candidates : int, optional
        Neighbours of a city that actions consider. None: no limit.
    candidates_from_heatmap : bool
        Whether these are the hottest (of at least 1e-4) or the nearest.
    max_depth : int
        Longest chain of steps in an action.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of range.

    Examples
    --------
    >>> tuned = MCTSConfig.tuned(500, time_per_city=0.1)
    >>> tuned.alpha, tuned.param_h, tuned.max_candidates, tuned.max_depth
    (0.0, 5.0, 5, 200)
    """

    alpha: float = 1.0
    beta: float = 10.0
    param_h: float = 10.0
    max_candidates: int | None = 1000
    candidates_from_heatmap: bool = True
    max_depth: int = 10

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            if value != 0:
                check_positive(**{name: value})
        check_positive(param_h=self.param_h)
        if self.max_candidates is not None:
            check_count("max_candidates", self.max_candidates, 1)
        if not isinstance(self.candidates_from_heatmap, bool):
            raise TypeError(
                f"`candidates_from_heatmap` must be a bool, got {self.candidates_from_heatmap!r:.80}"
            )
        check_count("max_depth", self.max_depth, 1)

    @classmethod
    def default(cls) -> MCTSConfig:
        """Return the settings of the original work."""
        return cls()

    @classmethod
    def tuned(cls, n: int, *, time_per_city: float | None = None, heatmap: TunedFor = "knn") -> MCTSConfig:
        """Return the settings that tuning found, for the nearest of the sizes and budgets it was done for.

        Parameters
        ----------
        n : int
            Cities: below 750 the settings of 500 are used, below 3000 those of 1000, else those of 10000.
            Chains are at most n / 2 - 1 long.
        time_per_city : float, optional
            Seconds of search divided by n; the published budgets are 0.005 to 0.1. Default: the longest.
        heatmap : str
            Where the heat is from: "knn", "zero", "att-gcn", "dimes", "utsp", "softdist", "difusco".

        Raises
        ------
        ValueError
            If an argument is out of range.
        """
        check_count("n", n, 5)
        if heatmap not in _TUNED:
            raise ValueError(f"`heatmap` must be one of {', '.join(get_args(TunedFor))}, got {heatmap!r}")
        if time_per_city is not None:
            check_positive(time_per_city=time_per_city)
        sizes = _TUNED[heatmap]
        size = next((s for s in sizes if n <= _UP_TO.get(s, n)), max(sizes))
        budgets = sizes[size]
        wanted = max(budgets) if time_per_city is None else time_per_city
        budget = min(budgets, key=lambda t: abs(math.log(t / wanted)))
        alpha, beta, param_h, candidates, from_heatmap, depth = budgets[budget]
        return cls(
            float(alpha),
            float(beta),
            float(param_h),
            candidates,
            bool(from_heatmap),
            max(1, min(depth, n // 2 - 1)),
        )

    def host_options(self, n: int) -> dict[str, Any]:
        """Return the keyword arguments of `MctsSearch` for n cities."""
        candidates = n if self.max_candidates is None else self.max_candidates
        return {**self.__dict__, "max_candidates": candidates}
