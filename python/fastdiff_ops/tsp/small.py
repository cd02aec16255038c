"""Shortest tours of a few cities, exactly: dynamic programming over subsets."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .instance import Instances
from .route import Route

MOST_CITIES = 12
_TABLE = 1 << 18  # entries of the tables worked on together, which fit a cache


def exact_tours(instances: Instances, route: Route) -> Tensor:
    """Return the shortest tours, int64 [B, N], that keep to the route. The work grows as N^2 2^N."""
    size = instances.n + route.depot
    chunk = max(1, _TABLE // (size << size))
    tours = np.empty((instances.batch, instances.n), np.int64)
    for first in range(0, instances.batch, chunk):
        last = min(first + chunk, instances.batch)
        lengths = instances.all_lengths(first, last).numpy()
        if route.depot:
            lengths = np.pad(lengths, ((0, 0), (0, 1), (0, 1)))
        reward = 1 + 4 * size * lengths.max(axis=(1, 2), initial=0)
        for b in range(first, last):
            for u, v in route.pairs(b):
                lengths[b - first, [u, v], [v, u]] -= reward[b - first]
        for b, order in zip(range(first, last), held_karp(lengths), strict=True):
            tours[b] = route.arrange(order[:-1] if route.depot else order)
    return torch.from_numpy(tours)


def held_karp(lengths: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return shortest closed tours, int64 [B, n], each ending with city n - 1.

    Parameters
    ----------
    lengths : float64 ndarray [B, n, n]
        Symmetric; may be negative.

    Notes
    -----
    Held & Karp, "A dynamic programming approach to sequencing problems" (1962): the shortest path from city
    n - 1 through a set of cities to one of them.

    Examples
    --------
    >>> corners = np.array([0, 1j, 1, 1 + 1j])
    >>> held_karp(np.abs(corners[:, None] - corners)[None])
    array([[2, 0, 1, 3]])
    """
    batch, n, _ = lengths.shape
    if n == 1:
        return np.zeros((batch, 1), np.int64)
    m = n - 1
    inner, home = lengths[:, :m, :m], lengths[:, m, :m]
    cost = np.full((batch, m, 1 << m), np.inf)  # of the last city, of the cities visited
    cities, subsets, rows = np.arange(m), np.arange(1 << m), np.arange(batch)
    cost[:, cities, 1 << cities] = home
    sizes = ((subsets[:, None] >> cities) & 1).sum(axis=1)
    for size in range(1, m):
        for city in cities:
            visited = subsets[(sizes == size) & ((subsets >> city) & 1 == 0)]
            paths = cost[:, :, visited] + inner[:, :, city, None]
            cost[:, city, visited | 1 << city] = paths.min(axis=1)
    tours = np.full((batch, n), m, np.int64)
    left = np.full(batch, (1 << m) - 1)
    onward = home
    for place in range(m - 1, -1, -1):
        city = (cost[rows, :, left] + onward).argmin(axis=1)
        tours[:, place] = city
        left &= ~(1 << city)
        onward = inner[rows, :, city]
    return tours
