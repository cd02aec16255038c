"""The text format of the learning literature: an instance a line, ``x1 y1 x2 y2 ... output t1 t2 ... tN t1``.

Cities count from 1 in files and from 0 in Python. What follows ``output``, the tour, may be missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TextIO, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["TextInstance", "read_text", "write_text"]


class TextInstance(NamedTuple):
    """A line of such a file.

    Attributes
    ----------
    coords : ndarray, float64 [N, 2]
    tour : ndarray, int64 [N], or None
        Numbers of cities, from 0.
    """

    coords: NDArray[np.float64]
    tour: NDArray[np.int64] | None = None


def read_text(file: str | os.PathLike[str] | TextIO) -> Iterator[TextInstance]:
    """Read instances one by one; only one line of the file is in memory.

    Parameters
    ----------
    file : path or text stream

    Yields
    ------
    TextInstance

    Raises
    ------
    ValueError
        If a line is none of this format; the message names the line.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import io
    >>> next(read_text(io.StringIO("0 0 3 0 3 4 output 1 3 2 1"))).tour
    array([0, 2, 1])
    """
    with _opened(file, "r") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield _parse(line)
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from None


def write_text(
    file: str | os.PathLike[str] | TextIO,
    instances: Iterable[TextInstance | tuple[ArrayLike, ArrayLike | None]],
) -> None:
    """Write instances, each as a line; coordinates read back are the same float64 numbers.

    Parameters
    ----------
    file : path or text stream
    instances : iterable of (coords, tour)
        coords float [N, 2], tour int [N] from 0 or None.

    Raises
    ------
    ValueError
        If a tour is no permutation of the cities.
    """
    with _opened(file, "w") as out:
        for coords, tour in instances:
            xy = np.asarray(coords, dtype=np.float64)
            words = [repr(v) for v in xy.ravel().tolist()]
            if tour is not None:
                order = check_tour(tour, len(xy)) + 1
                words += ["output", *map(str, order.tolist()), str(order[0])]
            out.write(" ".join(words) + "\n")


def check_tour(tour: ArrayLike, n: int) -> NDArray[np.int64]:
    """Return a tour as int64 [n] if it visits each of the cities 0 to n - 1 once; ValueError otherwise."""
    order = np.asarray(tour)
    if order.shape != (n,) or order.dtype.kind not in "iu":
        raise ValueError(f"expected a tour of {n} integers, got shape {order.shape} of {order.dtype}")
    if not np.array_equal(np.sort(order), np.arange(n)):
        raise ValueError(f"the tour visits not each of {n} cities once")
    return order.astype(np.int64)


def _parse(line: str) -> TextInstance:
    places, output, visits = line.partition("output")
    numbers = np.array(places.split(), dtype=np.float64)
    if numbers.size == 0 or numbers.size % 2:
        raise ValueError(f"expected x y x y ..., got {numbers.size} numbers")
    if not np.isfinite(numbers).all():
        raise ValueError(f"coordinate {int(np.argmin(np.isfinite(numbers)))} is not finite")
    coords = numbers.reshape(-1, 2)
    if not output:
        return TextInstance(coords)
    order = np.array(visits.split(), dtype=np.int64)
    if order.size == len(coords) + 1 and order[0] == order[-1]:
        order = order[:-1]  # the way back is written out
    return TextInstance(coords, check_tour(order - 1, len(coords)))


@contextmanager
def _opened(file: str | os.PathLike[str] | TextIO, mode: str) -> Iterator[TextIO]:
    """A stream stays open: it is the caller's."""
    if isinstance(file, (str, os.PathLike)):
        with open(file, mode, encoding="utf-8") as opened:
            yield cast(TextIO, opened)
    else:
        yield file
