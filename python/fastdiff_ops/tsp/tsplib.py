"""Instances and tours in TSPLIB's format.

Instances are read and written by the library tsplib95, of which only the parsed fields are taken: its weight
function is a Python call per edge. It has to be installed
(extra ``tsplib``). Tours are read and written without it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .metrics import EXPLICIT, METRICS
from .optima import OPTIMA
from .text_format import check_tour
from .tours import tour_length

__all__ = ["TSPInstance", "parse_tsplib", "read_tour", "read_tsplib", "write_tour", "write_tsplib"]

_KINDS = {  # of TSPLIB's problems, those that are no symmetric TSP
    "ATSP": "asymmetric travelling salesman problem",
    "SOP": "sequential ordering problem",
    "HCP": "Hamiltonian cycle problem",
    "CVRP": "capacitated vehicle routing problem",
}
_FORMATS = (
    "FULL_MATRIX",
    *(f"{half}_{line}" for half in ("UPPER", "LOWER", "UPPER_DIAG", "LOWER_DIAG") for line in ("ROW", "COL")),
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TSPInstance:
    """A symmetric travelling salesman problem.

    Attributes
    ----------
    name : str
    coords : ndarray, float64 [N, 2], or None
        As in the file; for GEO latitude and longitude as degrees.minutes.
    dist : ndarray, int64 or float64 [N, N], or None
        Lengths of all edges, of instances that list them. Either this or `coords` is there.
    metric : str
        What `solve` calls it: "euc_2d", "ceil_2d", "man_2d", "max_2d", "att", "geo", the real-valued
        "euclidean", or "explicit" with `dist`.
    fixed_edges : ndarray, int64 [M, 2]
        Edges that every tour must use, cities from 0.
    display : ndarray, float64 [N, 2], or None
        Where to draw the cities of an instance without `coords`.
    comment : str
    """

    name: str
    coords: Floats | None = None
    dist: NDArray[Any] | None = None
    metric: str = "euc_2d"
    fixed_edges: Ints = field(default_factory=lambda: np.empty((0, 2), np.int64))
    display: Floats | None = None
    comment: str = ""

    def __post_init__(self) -> None:
        known = (EXPLICIT,) if self.coords is None else METRICS
        if (self.coords is None) == (self.dist is None):
            raise ValueError("expected either `coords` or `dist`")
        if self.metric not in known:
            raise ValueError(f"`metric` must be one of {', '.join(known)}, got {self.metric!r}")

    @property
    def dimension(self) -> int:
        """Number of cities."""
        cities = self.coords if self.coords is not None else self.dist
        assert cities is not None
        return len(cities)

    @property
    def optimum(self) -> int | None:
        """The proven optimal length of the TSPLIB instance of this name, None if it is none of them."""
        return OPTIMA.get(self.name)

    def tour_length(self, tour: ArrayLike) -> float:
        """Length of a closed tour int [N], summed in float64."""
        cities = self.coords if self.coords is not None else self.dist
        return float(tour_length(cities, check_tour(tour, self.dimension), metric=self.metric))


def read_tsplib(path: str | os.PathLike[str]) -> TSPInstance:
    """Read an instance.

    Parameters
    ----------
    path : path
        A file of TYPE TSP with EDGE_WEIGHT_TYPE EUC_2D, CEIL_2D, MAN_2D, MAX_2D, ATT, GEO, or EXPLICIT in any
        of TSPLIB's matrix formats.

    Returns
    -------
    TSPInstance

    Raises
    ------
    NotImplementedError
        For ATSP, SOP, HCP and CVRP files and for other types of edge weights.
    ValueError
        If the file is no such file, or contradicts itself.
    OSError
        If it cannot be read.
    ImportError
        If tsplib95 is not installed.
    """
    instance = parse_tsplib(Path(path).read_text(encoding="utf-8", errors="replace"))
    stem = Path(path).stem  # linhp318.tsp says of itself that it is lin318, which has another optimum
    return replace(instance, name=stem) if stem in OPTIMA else instance


def parse_tsplib(text: str) -> TSPInstance:
    """The instance that a text in TSPLIB's format describes; see `read_tsplib`."""
    text = text.replace("\r", "")
    head = dict(re.findall(r"^(TYPE|EDGE_WEIGHT_TYPE|EDGE_WEIGHT_FORMAT)\s*:\s*(\S+)", text, re.M))
    kind, weights, layout = (
        head.get(key, "nothing") for key in ("TYPE", "EDGE_WEIGHT_TYPE", "EDGE_WEIGHT_FORMAT")
    )
    metric = weights.lower()
    if kind in _KINDS:
        raise NotImplementedError(f"TYPE {kind}: {_KINDS[kind]}s cannot be solved here, only TSP")
    if kind != "TSP":
        hint = ", a tour, not an instance" if kind == "TOUR" else ""
        raise ValueError(f"expected TYPE : TSP, got {kind}{hint}")
    if metric not in (*METRICS[1:], EXPLICIT):
        known = ", ".join([*METRICS[1:], EXPLICIT]).upper()
        raise NotImplementedError(f"EDGE_WEIGHT_TYPE must be one of {known}, got {weights}")
    if metric == EXPLICIT and layout not in _FORMATS:
        raise ValueError(f"EDGE_WEIGHT_FORMAT must be one of {', '.join(_FORMATS)}, got {layout}")
    # tsplib95 would look for keywords in comments, too, and for a line end after EOF
    comments = re.findall(r"^COMMENT\s*:[ \t]*(.*?)\s*$", text, re.M)
    text = re.sub(r"^COMMENT\s*:.*$", "", text, flags=re.M).rstrip() + "\n"
    library = _tsplib95()
    try:
        problem = library.parse(text)
    except library.exceptions.ParsingError as error:
        raise ValueError(f"not in TSPLIB's format: {' '.join(str(error).split())[:300]}") from None
    n = problem.dimension or len(problem.node_coords)
    if n < 1:
        raise ValueError(f"DIMENSION must be at least 1, got {n}")
    common: dict[str, Any] = {"name": (problem.name or "unnamed").removesuffix(".tsp"), "metric": metric}
    common["comment"] = " ".join(comments)
    if metric == EXPLICIT:
        common["dist"] = _matrix(layout, problem.edge_weights, n)
        if problem.display_data:
            common["display"] = _points("DISPLAY_DATA_SECTION", problem.display_data, n)
    else:
        common["coords"] = _points("NODE_COORD_SECTION", problem.node_coords, n)
    return TSPInstance(**common, fixed_edges=_edges(problem.fixed_edges, n))


def write_tsplib(path: str | os.PathLike[str], instance: TSPInstance) -> None:
    """Write an instance; what is read back is the same.

    Parameters
    ----------
    path : path
    instance : TSPInstance
        Its metric must be one of TSPLIB's: there is none for the real-valued "euclidean". Explicit lengths
        become a FULL_MATRIX.

    Raises
    ------
    ValueError
        If the metric is "euclidean".
    ImportError
        If tsplib95 is not installed.
    """
    if instance.metric == "euclidean":
        raise ValueError("TSPLIB has no real-valued metric: scale the coordinates and use EUC_2D")
    fields: dict[str, Any] = {"name": instance.name, "type": "TSP"}
    if instance.comment:
        fields["comment"] = instance.comment
    fields |= {"dimension": instance.dimension, "edge_weight_type": instance.metric.upper()}
    if instance.dist is not None:
        fields |= {"edge_weight_format": "FULL_MATRIX", "edge_weights": instance.dist.tolist()}
        if instance.display is not None:
            fields |= {"display_data_type": "TWOD_DISPLAY", "display_data": _numbered(instance.display)}
    else:
        fields["node_coords"] = _numbered(instance.coords)
    if len(instance.fixed_edges):
        fields["fixed_edges"] = (instance.fixed_edges + 1).tolist()
    problem = _tsplib95().models.StandardProblem(**fields)
    Path(path).write_text(problem.render() + "\n", encoding="utf-8")


def read_tour(path: str | os.PathLike[str]) -> Ints:
    """Read a ``.tour`` file.

    Parameters
    ----------
    path : path

    Returns
    -------
    ndarray, int64 [N]
        Cities from 0.

    Raises
    ------
    ValueError
        If the file holds no tour, or one that does not visit every city once.
    OSError
        If it cannot be read.
    """
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^\s*TOUR_SECTION\s*:?\s+(.*)", text, re.M | re.S)
    if found is None:
        raise ValueError("no TOUR_SECTION")
    order: list[int] = []
    for word in found[1].split():
        if not re.fullmatch(r"-1|EOF|\d+", word):
            raise ValueError(f"expected the number of a city, got {word!r}")
        if not word.isdecimal():
            break
        order.append(int(word))
    said = re.search(r"^\s*DIMENSION\s*:\s*(\d+)", text, re.M)
    return check_tour(np.array(order, np.int64) - 1, int(said[1]) if said else len(order))


def write_tour(
    path: str | os.PathLike[str], tour: ArrayLike, *, name: str = "tour", length: float | None = None
) -> None:
    """Write a ``.tour`` file.

    Parameters
    ----------
    path : path
    tour : array_like, int [N]
        Cities from 0.
    name : str
        NAME in the file.
    length : float, optional
        Goes into its comment.

    Raises
    ------
    ValueError
        If the tour does not visit every city once.
    """
    order = np.asarray(tour)
    cities = check_tour(order, order.size) + 1
    comment = [] if length is None else [f"COMMENT : Length {length:.12g}"]
    head = [f"NAME : {name}", *comment, "TYPE : TOUR", f"DIMENSION : {cities.size}", "TOUR_SECTION"]
    Path(path).write_text(
        "\n".join([*head, *map(str, cities.tolist()), "-1", "EOF"]) + "\n", encoding="utf-8"
    )


def _tsplib95() -> Any:
    try:
        import tsplib95
    except ImportError as error:
        raise ImportError("TSPLIB files need tsplib95: pip install 'fastdiff-ops[tsplib]'") from error
    return tsplib95


def _points(section: str, places: dict[int, list[float]], n: int) -> Floats:
    """Coordinates in the order of the cities' numbers."""
    if sorted(places) != list(range(1, n + 1)):
        raise ValueError(f"{section}: expected cities 1 to {n}, each once, got {len(places)} different ones")
    points = [places[city] for city in range(1, n + 1)]
    if any(len(point) != 2 for point in points):
        raise ValueError(f"{section}: expected two coordinates of each city")
    array = np.array(points, dtype=np.float64)
    if not np.isfinite(array).all():
        city = int(np.argmin(np.isfinite(array).all(axis=1))) + 1
        raise ValueError(f"{section}: the coordinates of city {city} are not finite")
    return array


def _matrix(layout: str, rows: list[list[float]], n: int) -> NDArray[Any]:
    """All lengths from the part of them that the file lists, wherever its lines end."""
    values = np.array([value for row in rows for value in row])
    if layout == "FULL_MATRIX":
        expected = n * n
    else:
        diagonal = "DIAG" in layout
        expected = n * (n + 1) // 2 if diagonal else n * (n - 1) // 2
    if values.size != expected:
        raise ValueError(
            f"EDGE_WEIGHT_SECTION: {layout} of {n} cities has {expected} numbers, got {values.size}"
        )
    if layout == "FULL_MATRIX":
        dist = values.reshape(n, n)
        if not np.array_equal(dist, dist.T):
            raise ValueError(f"EDGE_WEIGHT_SECTION: not symmetric, by up to {abs(dist - dist.T).max():g}")
        return dist
    # columns of the lower half are rows of the upper one
    upper = layout.startswith("UPPER") == layout.endswith("ROW")
    cells = (np.triu_indices if upper else np.tril_indices)(n, (1 if upper else -1) * (not diagonal))
    dist = np.zeros((n, n), dtype=values.dtype)
    dist[cells] = values
    dist.T[cells] = values
    return dist


def _edges(pairs: list[list[int]], n: int) -> Ints:
    edges = np.array(pairs, dtype=np.int64).reshape(-1, 2) - 1
    if edges.size and (edges.min() < 0 or edges.max() >= n):
        raise ValueError(f"FIXED_EDGES_SECTION: expected cities 1 to {n}")
    return edges


def _numbered(points: Floats | None) -> dict[int, list[float]]:
    assert points is not None
    return dict(enumerate(points.tolist(), 1))
