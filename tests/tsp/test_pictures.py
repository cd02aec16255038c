"""Pictures show what they should: lines through all cities, dots of few, curves of every solver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="draws pictures")

from fastdiff_ops.tsp import generate, pictures


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Figures as they are when they would be written."""
    found: list[Any] = []
    monkeypatch.setattr(pictures, "_save", lambda figure, path: found.append(figure))
    return found


def test_a_tour_is_closed(figures: list[Any]) -> None:
    points = generate(30)[0]
    order = np.random.default_rng(0).permutation(30)
    pictures.draw_tour("x.png", points, order, title="thirty")
    pictures.draw_tour("x.png", points, order, closed=False)
    for figure, expected in zip(figures, (np.append(order, order[0]), order), strict=True):
        (axes,) = figure.axes
        for line in axes.lines:  # the way, and the dots
            np.testing.assert_array_equal(line.get_xydata(), points[expected])
        assert len(axes.lines) == 2
        assert axes.get_aspect() == 1
    assert figures[0].axes[0].get_title() == "thirty"


def test_many_cities_have_no_dots(figures: list[Any]) -> None:
    for n, lines in ((5000, 2), (5001, 1)):
        pictures.draw_tour("x.png", generate(n)[0], np.arange(n))
        assert len(figures[-1].axes[0].lines) == lines


def test_curves(figures: list[Any]) -> None:
    curves = {"a": [(0.1, 1.0), (1.0, 0.0)], "b": [(0.2, 2.0)], "c": []}
    pictures.draw_curves("x.png", curves, ylabel="gap, %", log=True, floor=0.01, steps=False)
    (axes,) = figures[0].axes
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(0.1, 1.0), (1.0, 0.01)])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_ylabel()) == ("log", "log", "gap, %")


def test_files_are_written(tmp_path: Path) -> None:
    pictures.draw_tour(tmp_path / "x.png", generate(10)[0], np.arange(10))
    pictures.draw_curves(tmp_path / "y.svg", {"a": [(0.1, 1.0)]}, ylabel="length")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "y.svg").read_bytes()
