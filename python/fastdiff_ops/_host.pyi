from numpy import float32, float64, int32
from numpy.typing import NDArray

def compiler() -> str: ...
def cuda_archs() -> str: ...
def cuda_toolkit() -> str: ...
def simd_level() -> str: ...

class TourProblem:
    """An instance as the searches see it. Tours and ids are in the caller's numbering."""

    def __init__(
        self,
        *,
        coords: NDArray[float64] | None = None,
        matrix: NDArray[int32] | None = None,
        metric: str = "euclidean",
        open_path: bool = False,
        fixed: NDArray[int32] | None = None,
        heat_ids: NDArray[int32] | None = None,
        heat: NDArray[float32] | None = None,
        candidates: int | None = None,
        alpha: bool | None = None,
        seconds: float | None = None,
    ) -> None:
        """coords [n, 2] or matrix [n, n], symmetric; fixed [m, 2], where n is the depot of an open path;
        heat_ids and heat [n, k], -1 = empty. alpha None: whether it pays in so many `seconds` (None: no)."""

    @property
    def n(self) -> int: ...
    @property
    def unit(self) -> float:
        """What an edge of length 1 is in the caller's units."""

    @property
    def lower_bound(self) -> float:
        """0 without alpha-nearness; in units of an edge's length."""

    def candidate_ids(self) -> NDArray[int32]: ...
    def greedy(self) -> NDArray[int32]: ...
    def tour_length(self, order: NDArray[int32]) -> int: ...
    def recombine(self, tours: list[NDArray[int32]]) -> NDArray[int32]:
        """The shortest of the tours with the better parts of the others: never longer."""

    def optimise(self, order: NDArray[int32]) -> NDArray[int32]:
        """Descend to a local optimum."""

class IlsSearch:
    def __init__(
        self,
        problem: TourProblem,
        seed: int = 0,
        instance: int = 0,
        trajectory: int = 0,
        start: NDArray[int32] | None = None,
        time_limit: float | None = None,
        max_kicks: int | None = None,
        *,
        segment: int | None = None,
        hot: float | None = None,
        cold: float | None = None,
    ) -> None: ...
    def run(self, seconds: float) -> bool:
        """Go on for at most so long; True when the search's own budget is spent."""

    def best(self) -> NDArray[int32]: ...
    @property
    def best_length(self) -> int: ...
    @property
    def kicks(self) -> int: ...
    @property
    def accepted(self) -> int: ...
    @property
    def first_local_optimum(self) -> int:
        """0 as long as the first descent is under way."""

    @property
    def elapsed(self) -> float: ...

class MctsSearch:
    """Needs 5 cities. Weights are 100 (H + H^T) / 2 of the heat as it is given: not scaled by row."""

    def __init__(
        self,
        problem: TourProblem,
        seed: int = 0,
        instance: int = 0,
        trajectory: int = 0,
        start: NDArray[int32] | None = None,
        time_limit: float | None = None,
        max_actions: int | None = None,
        *,
        heat_ids: NDArray[int32] | None = None,
        heat: NDArray[float32] | None = None,
        alpha: float = 1.0,
        beta: float = 10.0,
        param_h: float = 10.0,
        max_candidates: int = 1000,
        candidates_from_heatmap: bool = True,
        max_depth: int = 10,
        exact_ucb: bool = False,
    ) -> None: ...
    def run(self, seconds: float) -> bool:
        """Go on for at most so long; True when the search's own budget is spent."""

    def best(self) -> NDArray[int32]: ...
    @property
    def best_length(self) -> int: ...
    @property
    def actions(self) -> int: ...
    @property
    def accepted(self) -> int: ...
    @property
    def restarts(self) -> int: ...
    @property
    def rows_without_heat(self) -> int: ...
    @property
    def first_local_optimum(self) -> int:
        """0 as long as the first descent is under way."""

    @property
    def elapsed(self) -> float: ...
