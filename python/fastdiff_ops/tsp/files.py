"""Files of instances and of heatmaps, whatever their format."""

from __future__ import annotations

import io
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import EXPLICIT
from .text_format import read_text
from .tsplib import TSPInstance, parse_tsplib, read_tsplib

__all__ = ["Problem", "load_heatmap", "read_problems", "save_heatmap"]


@dataclass(frozen=True)
class Problem:
    """An instance of a file.

    Attributes
    ----------
    instance : TSPInstance
    tour : ndarray, int64 [N], or None
        The one that the file gives, not proven to be the shortest.
    """

    instance: TSPInstance
    tour: NDArray[np.int64] | None = None

    def arguments(self) -> dict[str, Any]:
        """What `solve` is to be called with."""
        found = self.instance
        where = {"dist": found.dist} if found.metric == EXPLICIT else {"metric": found.metric}
        fixed = found.fixed_edges if len(found.fixed_edges) else None
        return {"coords": found.coords, "fixed_edges": fixed, **where}

    @property
    def points(self) -> NDArray[np.float64] | None:
        """Where to draw the cities, x and y; None if the file does not say."""
        found = self.instance
        places = found.coords if found.coords is not None else found.display
        return places[:, ::-1] if places is not None and found.metric == "geo" else places


def read_problems(file: str | os.PathLike[str]) -> list[Problem]:
    """Read all instances of a file.

    Parameters
    ----------
    file : path, or "-" for the standard input
        TSPLIB's format, or the text format of the learning literature, whose metric is "euclidean".

    Raises
    ------
    ValueError, NotImplementedError, OSError, ImportError
        See `read_tsplib` and `read_text`; ValueError also if there is nothing in it.
    """
    if str(file) == "-":
        return _parse(sys.stdin.read(), "stdin")
    path = Path(file)
    with path.open(encoding="utf-8", errors="replace") as stream:
        start = stream.read(4096).lstrip()
    if _is_tsplib(start):
        return [Problem(read_tsplib(path))]
    with path.open(encoding="utf-8", errors="replace") as stream:
        return _texts(stream, path.stem)


def load_heatmap(path: str | os.PathLike[str]) -> tuple[Any, Any]:
    """Read a heatmap; nothing is unpickled.

    Parameters
    ----------
    path : path
        ``.npy``: dense, [N, N] or [B, N, N]. ``.npz``: ``ids`` and ``weights`` of neighbours, which
        `save_heatmap` writes; ``indptr``, ``indices`` and ``data`` of CSR, as scipy's `save_npz` writes them;
        ``weights`` with ``edge_index``; or one dense array. Else text: N rows of N numbers, or N before them.

    Returns
    -------
    heatmap, edge_index
        As `solve` takes them; `edge_index` is None where it does not belong to the format.

    Raises
    ------
    ValueError
        If the file holds none of these.
    OSError
        If it cannot be read.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False), None
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            names = set(file.files)
            for keys in (("ids", "weights"), ("indptr", "indices", "data")):
                if names.issuperset(keys):
                    return tuple(file[key] for key in keys), None
            if names >= {"edge_index", "weights"}:
                return file["weights"], file["edge_index"]
            if len(names) == 1:
                return file[names.pop()], None
        formats = "ids and weights; indptr, indices and data; edge_index and weights; or one array"
        raise ValueError(f"{path}: expected {formats}, got {', '.join(sorted(names))}")
    numbers = np.array(path.read_text(encoding="utf-8").split(), dtype=np.float32)
    if numbers.size and numbers.size == numbers[0] ** 2 + 1:
        numbers = numbers[1:]
    n = math.isqrt(numbers.size)
    if n * n != numbers.size or n == 0:
        raise ValueError(f"{path}: expected N rows of N numbers, got {numbers.size} numbers")
    return numbers.reshape(n, n), None


def save_heatmap(path: str | os.PathLike[str], ids: Any, weights: Any) -> None:
    """Write neighbours [N, K] or [B, N, K] and their weights, for `load_heatmap`."""
    np.savez_compressed(path, ids=np.asarray(ids), weights=np.asarray(weights))


def _is_tsplib(start: str) -> bool:
    return start[:1].isalpha() and not start.startswith(("nan", "inf"))


def _parse(text: str, name: str) -> list[Problem]:
    return [Problem(parse_tsplib(text))] if _is_tsplib(text.lstrip()) else _texts(io.StringIO(text), name)


def _texts(stream: Any, name: str) -> list[Problem]:
    found = list(read_text(stream))
    if not found:
        raise ValueError("no instance in it")
    names = [name] if len(found) == 1 else [f"{name}-{k}" for k in range(1, len(found) + 1)]
    return [
        Problem(TSPInstance(name, line.coords, metric="euclidean"), line.tour)
        for name, line in zip(names, found, strict=True)
    ]
