"""What a tour must keep to: ends of an open path, edges that stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._input import read_integers

Cities = NDArray[np.int64]
Ends = tuple[int | None, int | None]


@dataclass(frozen=True)
class Route:
    """Constraints of a batch, as the searches see them.

    An open path is a closed tour with something in between its ends: the edge that joins them if both are
    given, else a depot, city N, at distance 0 from all others.

    Attributes
    ----------
    n : int
        Cities, the depot not included.
    open_path : bool
    ends : (int or None, int or None)
        First and last city of an open path; None leaves it free.
    fixed : int64 ndarray [1 or B, M, 2]
        Edges that every tour must have.
    """

    n: int
    open_path: bool
    ends: Ends
    fixed: NDArray[np.int64]

    @classmethod
    def read(cls, n: int, batch: int, open_path: bool, ends: Any, fixed_edges: Any) -> Route:
        """Check what the caller gave.

        Raises
        ------
        ValueError, TypeError
            Naming `open_path`, `ends` or `fixed_edges`.
        """
        if not isinstance(open_path, bool):
            raise TypeError(f"`open_path` must be a bool, got {type(open_path).__name__}")
        route = cls(n, open_path, _read_ends(ends, n, open_path), _read_fixed(fixed_edges, n, batch))
        for b in range(len(route.fixed)):
            route._check_paths(b)
        return route

    @property
    def depot(self) -> bool:
        """Whether the searches see a depot."""
        return self.open_path and None in self.ends

    def pairs(self, b: int) -> NDArray[np.int32]:
        """Return the fixed edges of an instance, int32 [M, 2], those that stand for ends included."""
        fixed = self.fixed[min(b, len(self.fixed) - 1)]
        start, end = self.ends
        extra: list[tuple[int, int]] = []
        if start is not None and end is not None:
            extra = [(end, start)] if self.n > 2 else []
        else:
            extra = [(self.n, city) for city in self.ends if city is not None]
        return np.concatenate([fixed, np.array(extra, np.int64).reshape(-1, 2)]).astype(np.int32)

    def arrange(self, order: Cities) -> Cities:
        """Return a tour as callers see it: where it begins and in which direction it goes.

        Of an open path with a depot, `order` is the path; otherwise it is a closed tour, begun anywhere.
        """
        start, end = self.ends
        if self.n == 1:
            return order
        if self.depot:
            if start is None and end is None:
                return order[::-1].copy() if order[0] > order[-1] else order
            turned = order[0] != start if start is not None else order[-1] != end
            return order[::-1].copy() if turned else order
        first = 0 if start is None else start
        order = np.roll(order, -int(np.flatnonzero(order == first)[0]))
        backwards = order[1] > order[-1] if end is None else order[-1] != end
        if backwards and self.n > 2:
            order[1:] = order[:0:-1].copy()
        return order

    def violation(self, tour: Cities, b: int) -> str | None:
        """Return what is wrong with a tour of instance `b` that visits every city once, if anything."""
        start, end = self.ends
        if self.open_path:
            reached = [(tour[0], tour[-1]), (tour[-1], tour[0])]
            if not any(start in (None, s) and end in (None, e) for s, e in reached):
                return f"goes from {tour[0]} to {tour[-1]}, but `ends` is {self.ends}"
        place = np.empty(self.n, np.int64)
        place[tour] = np.arange(self.n)
        for u, v in self.fixed[min(b, len(self.fixed) - 1)]:
            steps = abs(int(place[u] - place[v]))
            if steps != 1 and (self.open_path or steps != self.n - 1):
                return f"lacks the fixed edge ({u}, {v})"
        return None

    def honour(self, order: Cities, b: int) -> Cities:
        """Return a tour that keeps to everything, and otherwise visits cities as `order` does."""
        pairs = self.pairs(b)
        if not len(pairs):
            return self.arrange(order)
        links = _links(pairs)
        seen = np.zeros(self.n + 1, bool)
        tour: list[int] = []
        for city in (*([self.n] if self.depot else []), *order.tolist()):
            if not seen[city]:
                path = _path_through(city, links)
                seen[path] = True
                tour += path
        if self.depot:
            cut = tour.index(self.n)
            tour = tour[cut + 1 :] + tour[:cut]
        return self.arrange(np.array(tour, np.int64))

    def _check_paths(self, b: int) -> None:
        """Raise unless the fixed edges are pieces of one tour."""
        pairs = self.pairs(b)
        total = self.n + self.depot
        degree = np.bincount(pairs.ravel(), minlength=total)
        crowded = np.flatnonzero(degree > 2)
        if len(crowded):
            also = ", its end of the path included" if int(crowded[0]) in self.ends else ""
            raise ValueError(f"`fixed_edges` must give a city at most two edges{also}: {crowded[0]} has more")
        links = _links(pairs)
        seen: set[int] = set()
        for city in links:
            if city in seen:
                continue
            path = _path_through(city, links)
            seen.update(path)
            if len(links[path[0]]) == 2 and len(path) < total:
                raise ValueError(f"`fixed_edges` must be pieces of one tour, but close a cycle at {path[0]}")


def _links(pairs: NDArray[np.int32]) -> dict[int, list[int]]:
    links: dict[int, list[int]] = {}
    for u, v in pairs.tolist():
        links.setdefault(u, []).append(v)
        links.setdefault(v, []).append(u)
    return links


def _path_through(city: int, links: dict[int, list[int]]) -> list[int]:
    """Return all cities that fixed edges join with one, from end to end; of a cycle, from anywhere."""
    path = [city]
    for _ in range(2):  # to one end, then from there to the other
        before = -1
        start = path[-1]
        path = [start]
        while True:
            onward = [c for c in links.get(path[-1], []) if c != before]
            if not onward or onward[0] == start:
                break
            before = path[-1]
            path.append(onward[0])
    return path


def _read_ends(ends: Any, n: int, open_path: bool) -> Ends:
    if ends is None:
        return None, None
    if not open_path:
        raise ValueError("`ends` needs `open_path=True`")
    if isinstance(ends, str) or not isinstance(ends, Sequence) or len(ends) != 2:
        raise TypeError(f"`ends` must be a pair (first, last) of cities or None, got {ends!r:.80}")
    cities: list[int | None] = []
    for city in ends:
        if city is not None and (isinstance(city, bool) or not isinstance(city, (int, np.integer))):
            raise TypeError(f"`ends` must hold ints or None, got {city!r:.80}")
        if city is not None and not 0 <= city < n:
            raise ValueError(f"`ends` must be in [0, {n}), got {city}")
        cities.append(None if city is None else int(city))
    if n > 1 and cities[0] is not None and cities[0] == cities[1]:
        raise ValueError(f"`ends` must differ, got {cities[0]} twice")
    return cities[0], cities[1]


def _read_fixed(fixed_edges: Any, n: int, batch: int) -> NDArray[np.int64]:
    if fixed_edges is None:
        return np.empty((1, 0, 2), np.int64)
    edges = read_integers("fixed_edges", fixed_edges).cpu()
    if edges.numel() == 0:
        return np.empty((1, 0, 2), np.int64)
    if edges.dim() not in (2, 3) or edges.shape[-1] != 2:
        raise ValueError(f"`fixed_edges` must have shape [M, 2] or [B, M, 2], got {tuple(edges.shape)}")
    if edges.dim() == 3 and edges.shape[0] != batch:
        raise ValueError(f"`fixed_edges` must be [M, 2] or [{batch}, M, 2], got {tuple(edges.shape)}")
    array: NDArray[np.int64] = edges.reshape(-1, *edges.shape[-2:]).numpy()
    for city in (int(array.min()), int(array.max())):
        if not 0 <= city < n:
            raise ValueError(f"`fixed_edges` must be in [0, {n}), got {city}")
    if (array[..., 0] == array[..., 1]).any():
        loop = array[array[..., 0] == array[..., 1]][0].tolist()
        raise ValueError(f"`fixed_edges` must join different cities, got {loop}")
    array = np.sort(array, axis=-1)
    for edges_of_one in array:
        if len(np.unique(edges_of_one, axis=0)) < len(edges_of_one):
            raise ValueError("`fixed_edges` must hold every edge once")
    return array
