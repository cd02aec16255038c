"""Settings of the search by iterated local search."""

from __future__ import annotations

from dataclasses import dataclass

from fastdiff_ops.schedules._checks import check_count, check_positive


@dataclass(frozen=True)
class ILSConfig:
    """Settings of `method="ils"`; the defaults are what measurements chose.

    Attributes
    ----------
    segment : int, optional
        The most cities of each of a kick's three segments. Default: chosen from the budget per city.
    hot, cold : float, optional
        Temperatures at the start and at the end of the run, in mean edge lengths of the first local optimum:
        by about so much a tour may become longer by one kick. Default: chosen from the budget per city.
    alpha : bool, optional
        Whether candidates come from alpha-nearness (Helsgaun, "An effective implementation of the
        Lin-Kernighan traveling salesman heuristic", 2000) as well. Default: where the budget pays for it.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of range.
    """

    segment: int | None = None
    hot: float | None = None
    cold: float | None = None
    alpha: bool | None = None

    def __post_init__(self) -> None:
        if self.segment is not None:
            check_count("segment", self.segment, 1)
        for name in ("hot", "cold"):
            if getattr(self, name) is not None:
                check_positive(**{name: getattr(self, name)})
