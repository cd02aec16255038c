"""TSPLIB's files: edges worked out by hand, proven optima, matrix formats, round trips, bad files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tsplib95", reason="TSPLIB files are read by tsplib95")

from fastdiff_ops.tsp.generate import generate
from fastdiff_ops.tsp.optima import OPTIMA
from fastdiff_ops.tsp.tsplib import (
    TSPInstance,
    parse_tsplib,
    read_tour,
    read_tsplib,
    write_tour,
    write_tsplib,
)

# Latitudes and longitudes of Odysseus' ports, a 16-city instance whose optimum is 6859.
ULYSSES16 = """38.24 20.42 39.57 26.15 40.56 25.32 36.26 23.12 33.48 10.54 37.56 12.19 38.42 13.11 37.52 20.44
41.23 9.10 41.17 13.05 36.08 -5.21 38.47 15.13 38.15 15.35 37.51 15.17 35.49 14.32 39.36 19.56"""


def text(points: str, metric: str = "EUC_2D", n: int | None = None, extra: str = "") -> str:
    rows = points.split(",")
    places = "\n".join(f"{i} {row.strip()}" for i, row in enumerate(rows, 1))
    return (
        f"NAME : t\nTYPE : TSP\nCOMMENT : EOF comes later\nDIMENSION : {n or len(rows)}\n"
        f"EDGE_WEIGHT_TYPE : {metric}\nNODE_COORD_SECTION\n{places}\n{extra}EOF"
    )


def explicit(layout: str, numbers: str, n: int = 4) -> str:
    head = f"NAME: m\nTYPE: TSP\nDIMENSION: {n}\nEDGE_WEIGHT_TYPE: EXPLICIT\n"
    return f"{head}EDGE_WEIGHT_FORMAT: {layout}\nEDGE_WEIGHT_SECTION\n{numbers}\nEOF\n"


def held_karp(dist: np.ndarray) -> float:
    """Length of a shortest tour: best[set, last] over paths from city 0 through the others."""
    n = len(dist) - 1
    best = np.full((1 << n, n), np.inf)
    best[1 << np.arange(n), np.arange(n)] = dist[0, 1:]
    for members in range(1, 1 << n):
        for last in range(n):
            if members >> last & 1 and members != 1 << last:
                best[members, last] = (best[members ^ 1 << last] + dist[1:, last + 1]).min()
    return float((best[-1] + dist[1:, 0]).min())


@pytest.mark.parametrize(
    ("metric", "length"),
    [
        # between (0, 0) and (2.5, 6): 6.5; and back
        ("EUC_2D", 7),
        ("CEIL_2D", 7),
        ("MAN_2D", 9),
        ("MAX_2D", 6),
        ("ATT", 3),  # sqrt(42.25 / 10) = 2.06
    ],
)
def test_length_of_an_edge(metric: str, length: int) -> None:
    instance = parse_tsplib(text("0 0, 2.5 6", metric))
    assert instance.metric == metric.lower()
    assert instance.tour_length([0, 1]) == 2 * length


def test_rounding_is_to_the_nearest_or_upwards() -> None:
    lengths = {m: parse_tsplib(text("0 0, 3 1", m)).tour_length([0, 1]) / 2 for m in ("EUC_2D", "CEIL_2D")}
    assert lengths == {"EUC_2D": 3, "CEIL_2D": 4}  # sqrt(10)


def test_whole_distances_are_not_rounded_upwards() -> None:
    m, k = np.meshgrid(np.arange(2, 60), np.arange(1, 60))
    pairs = [
        (a * a - b * b, 2 * a * b, a * a + b * b) for a, b in zip(m.ravel(), k.ravel(), strict=True) if a > b
    ]
    for x, y, length in pairs:
        instance = TSPInstance("pythagoras", np.array([[0.0, 0.0], [x, y]]), metric="ceil_2d")
        assert instance.tour_length([0, 1]) == 2 * length


def test_geo_takes_whole_degrees_by_truncation() -> None:
    """The proven optimum decides: rounding the degrees, as the old documentation says, gives 6809."""
    points = np.array(ULYSSES16.split(), float).reshape(-1, 2)
    dist = np.zeros((16, 16))
    for a in range(16):
        for b in range(a):
            there_and_back = TSPInstance("", points[[a, b]], metric="geo").tour_length([0, 1])
            dist[a, b] = dist[b, a] = there_and_back / 2
    assert held_karp(dist) == OPTIMA["ulysses16"] == 6859


def test_every_matrix_format_describes_the_same_lengths() -> None:
    upper = [[1, 2, 3], [4, 5], [6]]  # d(0, 1) = 1, d(0, 2) = 2, ...
    dist = np.array([[0, 1, 2, 3], [1, 0, 4, 5], [2, 4, 0, 6], [3, 5, 6, 0]])
    lower = [[1], [2, 4], [3, 5, 6]]

    def words(rows: list[list[int]]) -> str:
        return " ".join(str(v) for row in rows for v in row)

    with_zero_first = words([[0, *row] for row in [*upper, []]])
    with_zero_last = words([[*row, 0] for row in [[], *lower]])
    for layout, numbers in {
        "FULL_MATRIX": words(dist.tolist()),
        "UPPER_ROW": words(upper),
        "LOWER_COL": words(upper),
        "LOWER_ROW": words(lower),
        "UPPER_COL": words(lower),
        "UPPER_DIAG_ROW": with_zero_first,
        "LOWER_DIAG_COL": with_zero_first,
        "LOWER_DIAG_ROW": with_zero_last,
        "UPPER_DIAG_COL": with_zero_last,
    }.items():
        found = parse_tsplib(explicit(layout, numbers.replace(" ", "\n", 2)))  # lines may end anywhere
        assert found.coords is None
        assert found.dist is not None and found.dist.dtype == np.int64
        np.testing.assert_array_equal(found.dist, dist, err_msg=layout)
        assert found.tour_length([0, 1, 2, 3]) == 1 + 4 + 6 + 3


@pytest.mark.parametrize("metric", ["euc_2d", "geo", "att"])
def test_what_is_written_is_read(tmp_path: Path, metric: str) -> None:
    coords = generate(30)[0] * 80
    fixed = np.array([[0, 29], [4, 3]])
    written = TSPInstance("thirty", coords, metric=metric, fixed_edges=fixed, comment="NAME : not this")
    write_tsplib(tmp_path / "x.tsp", written)
    read = read_tsplib(tmp_path / "x.tsp")
    assert (read.name, read.metric, read.comment) == ("thirty", metric, "NAME : not this")
    np.testing.assert_array_equal(read.coords, coords)
    np.testing.assert_array_equal(read.fixed_edges, fixed)


def test_explicit_lengths_and_where_to_draw_are_written(tmp_path: Path) -> None:
    display = generate(5)[0]
    dist = np.arange(25).reshape(5, 5)
    written = TSPInstance("five", dist=dist + dist.T, metric="explicit", display=display)
    write_tsplib(tmp_path / "x.tsp", written)
    read = read_tsplib(tmp_path / "x.tsp")
    np.testing.assert_array_equal(read.dist, written.dist)
    np.testing.assert_array_equal(read.display, display)


def test_cities_may_come_in_any_order() -> None:
    shuffled = text("0 0, 1 0, 2 0").replace("1 0 0\n2 1 0", "2 1 0\n1 0 0")
    np.testing.assert_array_equal(parse_tsplib(shuffled).coords, [[0, 0], [1, 0], [2, 0]])


def test_fixed_edges() -> None:
    found = parse_tsplib(text("0 0, 1 0, 2 0", extra="FIXED_EDGES_SECTION\n1 3\n-1\n"))
    np.testing.assert_array_equal(found.fixed_edges, [[0, 2]])
    with pytest.raises(ValueError, match="FIXED_EDGES_SECTION: expected cities 1 to 3"):
        parse_tsplib(text("0 0, 1 0, 2 0", extra="FIXED_EDGES_SECTION\n1 4\n-1\n"))


def test_the_file_decides_over_the_name_in_it(tmp_path: Path) -> None:
    file = tmp_path / "linhp318.tsp"
    file.write_text(text("0 0, 1 0").replace("NAME : t", "NAME : lin318"))
    assert read_tsplib(file).optimum == 41345 + 3869  # the path, and the fixed edge
    file.rename(tmp_path / "mine.tsp")
    assert read_tsplib(tmp_path / "mine.tsp").optimum == 42029


def test_table_of_optima() -> None:
    assert len(OPTIMA) == 111
    assert (OPTIMA["berlin52"], OPTIMA["pla85900"], OPTIMA["vm1748"]) == (7542, 142382641, 336556)


@pytest.mark.parametrize("kind", ["ATSP", "SOP", "HCP", "CVRP"])
def test_other_problems_are_refused_by_name(kind: str) -> None:
    with pytest.raises(NotImplementedError, match=kind):
        parse_tsplib(text("0 0, 1 1").replace("TYPE : TSP", f"TYPE : {kind}"))


@pytest.mark.parametrize(
    ("broken", "error", "message"),
    [
        (text("0 0, 1 1", "XRAY1"), NotImplementedError, "must be one of EUC_2D, .* got XRAY1"),
        (text("0 0, 1 1", "EUC_3D"), NotImplementedError, "EUC_3D"),
        (text("0 0, 1 1").replace("TYPE : TSP", "TYPE : TOUR"), ValueError, "a tour, not an instance"),
        (text("0 0, 1 1").replace("TYPE : TSP\n", ""), ValueError, "TYPE : TSP, got nothing"),
        ("0.5 0.5 0.1 0.1 output 1 2 1", ValueError, "TYPE : TSP"),
        (text("0 0, 1 1", n=3), ValueError, "expected cities 1 to 3, each once, got 2"),
        (text("0 0, 1 1").replace("2 1 1", "1 1 1"), ValueError, "expected cities 1 to 2"),
        (text("0 0, 1 1 1"), ValueError, "two coordinates"),
        (text("0 0, 1 nan"), ValueError, "city 2 are not finite"),
        (text("0 0, 1 one"), ValueError, "NODE_COORD_SECTION"),
        (explicit("UPPER_ROW", "1 2 3 4 5"), ValueError, "UPPER_ROW of 4 cities has 6 numbers, got 5"),
        (explicit("FULL_MATRIX", "0 1 2 0", 2), ValueError, "not symmetric, by up to 1"),
        (explicit("DIAGONAL", "1 2 3"), ValueError, "EDGE_WEIGHT_FORMAT must be one of FULL_MATRIX"),
        (text("0 0, 1 1").replace("EDGE_WEIGHT_TYPE : EUC_2D\n", ""), NotImplementedError, "got nothing"),
    ],
)
def test_bad_files(broken: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_tsplib(broken)


def test_bad_instances(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="either"):
        TSPInstance("none")
    with pytest.raises(ValueError, match="EUC_2D"):
        TSPInstance("upper", np.zeros((3, 2)), metric="EUC_2D")
    with pytest.raises(ValueError, match="real-valued"):
        write_tsplib(tmp_path / "x.tsp", TSPInstance("real", np.zeros((3, 2)), metric="euclidean"))


def test_tours(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(50)
    write_tour(tmp_path / "x.tour", order, name="fifty", length=12.5)
    text = (tmp_path / "x.tour").read_text()
    assert text.startswith("NAME : fifty\nCOMMENT : Length 12.5\nTYPE : TOUR\nDIMENSION : 50\nTOUR_SECTION\n")
    assert text.endswith("\n-1\nEOF\n")
    np.testing.assert_array_equal(read_tour(tmp_path / "x.tour"), order)


@pytest.mark.parametrize("ending", ["-1\nEOF\n", "-1\n-1\nEOF", "EOF", ""])
def test_tours_of_others(tmp_path: Path, ending: str) -> None:
    (tmp_path / "x.tour").write_text(f"NAME: x\nTYPE: TOUR\nDIMENSION: 3\nTOUR_SECTION\n 2 1\n3\n{ending}")
    np.testing.assert_array_equal(read_tour(tmp_path / "x.tour"), [1, 0, 2])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("NAME: x\n", "no TOUR_SECTION"),
        ("DIMENSION: 3\nTOUR_SECTION\n1 2\n-1\n", "tour of 3 integers"),
        ("TOUR_SECTION\n1 2 2\n-1\n", "each of 3 cities once"),
        ("TOUR_SECTION\n1 two\n-1\n", "got 'two'"),
    ],
)
def test_bad_tours(tmp_path: Path, broken: str, message: str) -> None:
    (tmp_path / "x.tour").write_text(broken)
    with pytest.raises(ValueError, match=message):
        read_tour(tmp_path / "x.tour")


def test_only_tours_are_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="once"):
        write_tour(tmp_path / "x.tour", [0, 1, 1])
