"""Random instances from a seed, the same on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["KINDS", "generate"]

KINDS = ("uniform", "clustered")


def generate(n: int, count: int = 1, *, kind: str = "uniform", seed: int = 1234) -> NDArray[np.float64]:
    """Random instances.

    Parameters
    ----------
    n : int
        Cities of each.
    count : int
        Instances. More of them begin with the same ones.
    kind : str
        "uniform" in the unit square, or "clustered": normal around max(1, n / 100) centres with a standard
        deviation of 1 / sqrt(n), as in the DIMACS challenge, not cut at the square.
    seed : int
        The numbers are those of ``numpy.random.default_rng([seed, n])``; the benchmarks use 1234.

    Returns
    -------
    ndarray, float64 [count, n, 2]

    Raises
    ------
    ValueError
        If `n` or `count` is less than 1, `seed` negative or `kind` unknown.

    Examples
    --------
    >>> generate(500, 16).shape
    (16, 500, 2)
    """
    for name, value, least in (("n", n, 1), ("count", count, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}, got {value}")
    random = np.random.default_rng([seed, n])
    if kind == "uniform":
        return random.random((count, n, 2))
    if kind == "clustered":
        return np.stack([_clustered(n, random) for _ in range(count)])
    raise ValueError(f"unknown kind {kind!r}; known are {', '.join(KINDS)}")


def _clustered(n: int, random: np.random.Generator) -> NDArray[np.float64]:
    centres = random.random((max(1, n // 100), 2))
    at = centres[random.integers(len(centres), size=n)]
    return np.asarray(at + random.normal(scale=n**-0.5, size=(n, 2)))
