"""The smallest collision-free numbering of a dense simplex level, found on the host."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_BISECTIONS = 40


class Numbering(NamedTuple):
    """Vertices as classes of Z^n / (a I + k 1 1^T) Z^n, of which there are `vertices`."""

    a: int
    k: int
    vertices: int


@functools.lru_cache(maxsize=4096)
def smallest_numbering(n: int, scale: float, spread: float) -> Numbering:
    """Return the smallest (a, k) by which all vertices of simplices that meet the cube have own numbers.

    Parameters
    ----------
    n : int
    scale : float
        Of the level: the cube's side in lattice units.
    spread : float
        Largest difference of a coordinate's shift and the last one's. Kernels take differences of vertex
        coordinates to lie in [-a, a), which needs a > scale + 1 + spread.
    """
    root = math.sqrt(n + 1)
    skew, unskew = (root - 1) / n, (1 - 1 / root) / n
    margin = 0.01 + scale * 2.0**-18  # float32 coordinates are rounded
    # Vertices lie within 1 + unskew (n - 2) of the cube: that many suffice with k rounded up.
    enough = max(scale + 2 + 2 * unskew * (n - 2), scale + 1 + spread)
    found = []
    for a in range(math.floor(scale + 1 + spread + margin) + 1, math.floor(enough + margin) + 2):
        # No more vertices than numbers: sqrt(n + 1) scale^n of them fill the cube itself.
        least = math.ceil((root * scale * (scale / a) ** (n - 1) - a) / n)
        for k in range(max(0, least), math.ceil(a * skew) + 1):
            found.append(Numbering(a, k, a ** (n - 1) * (a + n * k)))
    found.sort(key=lambda numbering: (numbering.vertices, numbering.a))
    return next(numbering for numbering in found if _is_unique(numbering, n, scale + margin, skew))


def _is_unique(numbering: Numbering, n: int, scale: float, skew: float) -> bool:
    """Tell whether no two vertices that the cube can reach differ by a period.

    Coordinates of reached vertices differ from each other by less than 2 scale + 2, periods by multiples of
    a > scale + 1. So the periods B m that matter have coordinates m of two neighbouring values, and by
    symmetry their order is of no account.
    """
    rows = [[j + 1] * q + [j] * (n - q) for j in range(-3, 4) for q in range(n) if (j, q) != (0, 0)]
    m = np.array(rows, dtype=np.float64)
    periods = numbering.a * m + numbering.k * m.sum(1, keepdims=True)
    return not _meet(periods, scale, skew).any()


def _meet(d: npt.NDArray[np.float64], scale: float, skew: float) -> npt.NDArray[np.bool_]:
    """Tell which differences d [M, n] two reached vertices can have.

    A vertex is reached from a point y = S z if V = y + t - t_0 (1, .., 1) with t, t_0 in [0, 1]. So
    d_i = z_i + c + t_i with c = skew sum(z) - t_0, |z_i| <= scale, |t_i| <= 1, |t_0| <= 1: given c, the sum
    of z is any number between two bounds that fall in c, and must be (c + t_0) / skew.
    """

    def lacking(c: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        smallest = np.maximum(d - c[:, None] - 1, -scale).sum(1)
        return np.asarray(skew * smallest > c + 1)

    low, high = (d - 1 - scale).max(1), (d + 1 + scale).min(1)
    possible = (low <= high) & ~lacking(high)
    least, enough = low.copy(), high.copy()
    for _ in range(_BISECTIONS):
        middle = (least + enough) / 2
        too_small = lacking(middle)
        least, enough = np.where(too_small, middle, least), np.where(too_small, enough, middle)
    c = np.where(lacking(low), enough, low)
    largest = np.minimum(d - c[:, None] + 1, scale).sum(1)
    return np.asarray(possible & (c - 1 <= skew * largest + 1e-9))
