"""Pictures of tours, and of what searches reach in which time; matplotlib is imported when one is drawn."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastdiff_ops._environment import require_matplotlib

__all__ = ["draw_curves", "draw_tour"]

_MOST_DOTS = 5000
_INK, _TOUR = "#222222", "#0072B2"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")  # Okabe and Ito's
_MARKERS = "osD^vPX"


def draw_tour(
    path: str | os.PathLike[str], points: ArrayLike, tour: ArrayLike, *, title: str = "", closed: bool = True
) -> None:
    """Draw a tour as a line, and its cities as dots if they are at most 5000.

    Parameters
    ----------
    path : path
        The picture to write, of any type that matplotlib knows.
    points : array_like, float [N, 2]
        x and y of the cities.
    tour : array_like, int [N]
        Cities from 0.
    title : str
        Stands above.
    closed : bool
        Whether the last city is joined to the first.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    plt = require_matplotlib()
    order = np.asarray(tour)
    line = np.asarray(points, dtype=np.float64)[np.append(order, order[:1]) if closed else order]
    n = len(order)
    figure, ax = plt.subplots(figsize=(7, 7.4), layout="constrained")
    ax.plot(*line.T, color=_TOUR, linewidth=min(1.2, 40 * n**-0.5), solid_joinstyle="round", antialiased=True)
    if n <= _MOST_DOTS:
        ax.plot(*line.T, ".", color=_INK, markersize=min(7.0, 90 * n**-0.5))
    ax.set_aspect("equal")
    ax.axis("off")
    ax.set_title(title, fontsize=11)
    _save(figure, path)


def draw_curves(
    path: str | os.PathLike[str],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    ylabel: str,
    xlabel: str = "seconds",
    title: str = "",
    log: bool = False,
    floor: float | None = None,
    steps: bool = True,
) -> None:
    """Draw what was reached against the time that it took, on a logarithmic time axis.

    Parameters
    ----------
    path : path
        The picture to write.
    curves : mapping of str to sequence of (seconds, value)
        By name.
    ylabel, xlabel, title : str
    log : bool
        Whether the values have a logarithmic axis, too.
    floor : float, optional
        Values below are drawn there: a gap of zero has no logarithm.
    steps : bool
        Whether a value holds until the next one, as the best length of one search does, or the points
        are runs of their own, joined by straight lines.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    plt = require_matplotlib()
    figure, ax = plt.subplots(figsize=(7.4, 4.8), layout="constrained")
    for k, (name, points) in enumerate(curves.items()):
        if len(points) == 0:
            continue
        seconds, values = np.array(points, dtype=np.float64).T
        if floor is not None:
            values = np.maximum(values, floor)
        style: dict[str, Any] = {"color": _COLOURS[k % len(_COLOURS)], "label": name, "linewidth": 1.6}
        if steps:
            ax.step(seconds, values, where="post", marker=".", **style)
        else:
            ax.plot(seconds, values, marker=_MARKERS[k % len(_MARKERS)], markersize=5.5, **style)
    ax.set_xscale("log")
    if log:
        ax.set_yscale("log")
    if floor is not None:
        ax.annotate(f"{floor:g} or less", (0.005, floor), xycoords=("axes fraction", "data"), fontsize=8)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.set_title(title, fontsize=11)
    ax.grid(color="#dddddd", linewidth=0.6, which="both" if log else "major")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        ax.legend(frameon=False, fontsize=9)
    _save(figure, path)


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    figure.savefig(path, dpi=130)
    require_matplotlib().close(figure)
