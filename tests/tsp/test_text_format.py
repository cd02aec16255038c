"""The text format of the learning literature: numbers survive, files stream, bad lines are named."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from fastdiff_ops.tsp.generate import KINDS, generate
from fastdiff_ops.tsp.text_format import TextInstance, read_text, write_text


def test_a_line_as_others_write_it() -> None:
    (found,) = read_text(io.StringIO("0.5 0.25 1e-3 0 1 1 output 1 3 2 1 \n"))
    np.testing.assert_array_equal(found.coords, [[0.5, 0.25], [1e-3, 0], [1, 1]])
    np.testing.assert_array_equal(found.tour, [0, 2, 1])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    written = [
        TextInstance(random.normal(size=(n, 2)) * 10.0**n, random.permutation(n)) for n in (1, 2, 7, 30)
    ]
    written.append(TextInstance(np.array([[0.1, 1 / 3]]), None))
    write_text(tmp_path / "x.txt", written)
    read = list(read_text(tmp_path / "x.txt"))
    assert len(read) == len(written)
    for a, b in zip(read, written, strict=True):
        np.testing.assert_array_equal(a.coords, b.coords)
        assert (a.tour is None) == (b.tour is None)
        if b.tour is not None:
            np.testing.assert_array_equal(a.tour, b.tour)


def test_instances_come_one_by_one() -> None:
    def lines() -> object:
        yield "0 0 1 1 output 1 2 1\n"
        raise AssertionError("read too far")

    stream = lines()
    assert next(read_text(stream)).coords.shape == (2, 2)  # type: ignore[arg-type]


def test_streams_stay_open() -> None:
    out = io.StringIO()
    write_text(out, [([[0.0, 1.0]], [0])])
    assert out.getvalue() == "0.0 1.0 output 1 1\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0 1 output 1 2 1", "line 3: expected x y x y ..., got 3 numbers"),
        ("output 1", "got 0 numbers"),
        ("0 0 one 1", "one"),
        ("0 0 nan 1", "coordinate 2 is not finite"),
        ("0 0 1 1 output 1 1 1", "each of 2 cities once"),
        ("0 0 1 1 output 0 1 0", "each of 2 cities once"),
        ("0 0 1 1 output 1 2 2", "tour of 2 integers"),
        ("0 0 1 1 output 1 2.5 1", "2.5"),
    ],
)
def test_bad_lines_are_named(line: str, message: str) -> None:
    stream = read_text(io.StringIO(f"0 0 1 1 output 2 1 2\n\n{line}\n"))
    next(stream)
    with pytest.raises(ValueError, match=f"line 3.*{message.removeprefix('line 3: ')}"):
        next(stream)


def test_generated_instances_are_those_of_the_seed() -> None:
    expected = np.random.default_rng([1234, 200]).random((16, 200, 2))
    np.testing.assert_array_equal(generate(200, 16), expected)
    np.testing.assert_array_equal(generate(200, 3), expected[:3])
    assert not np.array_equal(generate(200, seed=1), expected[:1])


def test_clusters_are_clusters() -> None:
    """Nearest neighbours are nearer than those of uniform points in an area of this size."""

    def mean_nearest(points: np.ndarray) -> float:
        d = np.linalg.norm(points[:, None] - points[None], axis=-1)
        np.fill_diagonal(d, np.inf)
        return float(d.min(axis=1).mean() / np.ptp(points, axis=0).mean())

    by_kind = {kind: mean_nearest(generate(400, kind=kind)[0]) for kind in KINDS}
    assert by_kind["clustered"] < 0.6 * by_kind["uniform"]
    np.testing.assert_array_equal(generate(50, 3, kind="clustered")[:2], generate(50, 2, kind="clustered"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "`n`"),
        ({"n": 5, "count": 0}, "`count`"),
        ({"n": 5, "seed": -1}, "`seed`"),
        ({"n": 5, "kind": "x"}, "'x'"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(**arguments)
