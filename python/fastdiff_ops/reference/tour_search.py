"""The tour search of many trajectories in plain Python: every rule once, nothing shared, nothing fast."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .exact import fma
from .random import philox4x32

TAG_TOUR = 14
WIDTH, BREADTH = 8, 5  # candidates of a city; of them tried at t5
RING, LOG = 128, 64  # places of the queue; reversals that a kick may be undone by
FARTHEST = 2.0**26
LENGTH, BEST, FIRST, ACCEPTED, RESTORED = range(5)  # the words of a state

_WORD = 0xFFFFFFFF
_LOG_UNIT = (
    8.734846860e-02,
    -1.430752277e-01,
    1.491797268e-01,
    -1.657050848e-01,
    1.996207237e-01,
    -2.500175536e-01,
    3.333395123e-01,
    -4.999999106e-01,
)


def tsp_search_slice(
    tours: Tensor,
    best: Tensor,
    state: Tensor,
    points: Tensor,
    candidates: Tensor,
    kicks: Tensor,
    temperature: Tensor,
    rng: Tensor,
    segment: int,
) -> None:
    """Let every trajectory walk kicks `kicks[0]` .. `kicks[1]` - 1; see `ops.tsp_search_slice`."""
    batch, trajectories, n = tours.shape
    first, last, begin, end = kicks.tolist()
    seed, number = rng.tolist()
    narrow = candidates.dtype == torch.int16
    ids = candidates.long() & 0xFFFF if narrow else candidates.long()
    knots = temperature.tolist()
    for b in range(batch):
        lists = [_until_empty(row, n) for row in ids[b].tolist()]
        allowed = bool((points[b].abs() <= FARTHEST).all())
        lengths = _lengths(points[b]) if allowed else []
        for p in range(trajectories):
            order, saved = tours[b, p].tolist(), best[b, p].tolist()
            read = [order] if first == 0 else [order, saved]
            if not allowed or any(sorted(tour) != list(range(n)) for tour in read):
                state[b, p, LENGTH] = -1
                continue
            walk = _Walk(order, lengths, lists)
            words = state[b, p].tolist()
            if first == 0:
                words = [walk.start()] * 3 + [0, 0]
                saved = list(walk.order)
            draws = _draws(seed, (number + b) << 32 | p, range(first, last), n, segment)
            for k, draw in zip(range(first, last), draws, strict=True):
                heat = _temperature(knots[p], k, begin, end)
                walk.kick(draw, heat, words, saved)
                if words[LENGTH] < words[BEST] and (k + 1) % (1 + n // 1024) == 0:
                    words[BEST], saved = words[LENGTH], list(walk.order)
            for tensor, values in ((tours, walk.order), (best, saved), (state, words)):
                tensor[b, p] = torch.tensor(values, dtype=tensor.dtype, device=tensor.device)


def _until_empty(row: list[int], n: int) -> list[int | None]:
    return [c if 0 <= c < n else None for c in row]


def _lengths(points: Tensor) -> list[list[int]]:
    """Return all integer lengths, [N][N]. NumPy's square root is rounded correctly, PyTorch's need not be."""
    xy = points.cpu().numpy()
    difference = xy[:, None] - xy[None]
    squares = difference * difference
    lengths: list[list[int]] = np.sqrt(squares[..., 0] + squares[..., 1]).astype(np.int32).tolist()
    return lengths


def _draws(seed: int, row: int, kicks: range, n: int, segment: int) -> Iterator[tuple[int, list[int], float]]:
    """Yield place, ends of the three segments and standard exponential of each kick."""
    k = torch.tensor(kicks, dtype=torch.int64)
    index = (TAG_TOUR << 28) | (k >> 32 << 16)
    counter = torch.broadcast_tensors(index, torch.tensor(row & _WORD), torch.tensor(row >> 32), k & _WORD)
    w0, w1, w2, w3 = philox4x32(counter, (torch.tensor(seed & _WORD), torch.tensor(seed >> 32 & _WORD)))
    place = w0 * n >> 32
    ends = torch.stack([w1 & 0xFFFF, w1 >> 16, w3 >> 16]).mul(segment).bitwise_right_shift(16) + 1
    exponential = -_log_unit(w2)
    columns = (place.tolist(), ends.cumsum(0).T.tolist(), exponential.double().tolist())
    return zip(*columns, strict=True)


def _log_unit(words: Tensor) -> Tensor:
    """Return ln of words as uniforms in (0, 1], in the float32 arithmetic of common/philox.h."""

    def number(value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float32)

    u = fma(words.float(), number(2.0**-32), number(2.0**-33))
    bits = u.view(torch.int32)
    e = (bits - 0x3F3504F3) >> 23
    f = (bits - (e << 23)).view(torch.float32) - 1
    q = number(_LOG_UNIT[0]).expand_as(f)
    for coefficient in _LOG_UNIT[1:]:
        q = fma(q, f, number(coefficient))
    return fma(e.float(), number(6.931471825e-01), fma(f * f, q, f))


def _temperature(knots: list[float], kick: int, begin: int, end: int) -> float:
    """Interpolate the knots, which lie evenly from `begin` to `end`."""
    pieces = len(knots) - 1
    if kick <= begin or end <= begin:
        return knots[0]
    if kick >= end:
        return knots[-1]
    x = (kick - begin) / (end - begin) * pieces
    piece = min(int(x), pieces - 1)
    return knots[piece] + (x - piece) * (knots[piece + 1] - knots[piece])


class _Walk:
    """A tour, the cities that wait, and the reversals since the kick."""

    def __init__(self, order: list[int], lengths: list[list[int]], lists: list[list[int | None]]) -> None:
        self.n = len(order)
        self.lengths, self.lists = lengths, lists
        self._set(order)
        self.ring: deque[int] = deque()
        self.waiting = [False] * self.n
        self.cursor = -1  # -1: by the ring; else by number, from the cursor's block of 32 on
        self.flips: list[tuple[int, int]] = []

    def _set(self, order: list[int]) -> None:
        self.order = list(order)
        self.place = [0] * self.n
        for i, c in enumerate(order):
            self.place[c] = i

    def start(self) -> int:
        """Descend from the tour as given; return its length then."""
        edges = zip(self.order, self.order[1:] + self.order[:1], strict=True)
        length = sum(self.lengths[a][b] for a, b in edges)
        self.waiting = [True] * self.n
        self.cursor = 0
        return length - self.descend()

    def kick(
        self, draw: tuple[int, list[int], float], heat: float, words: list[int], saved: list[int]
    ) -> None:
        """Exchange three neighbouring segments, descend, and keep that or go back."""
        place, (one, two, three), exponential = draw
        steps = (0, 1, one, one + 1, two, two + 1, three, three + 1)
        cities = [self.order[(place + s) % self.n] for s in steps]
        before, x0, x1, y0, y1, z0, z1, behind = cities
        self.flips = []
        for path in ((before, x0, z1), (before, z1, z0), (z1, y1, y0), (y1, x1, x0)):
            self.flip(*path)
        self.push(cities)
        d = self.lengths
        removed = d[before][x0] + d[x1][y0] + d[y1][z0] + d[z1][behind]
        added = d[before][z0] + d[z1][y0] + d[y1][x0] + d[x1][behind]
        gain = removed - added + self.descend()
        if gain >= 0 or gain >= -(heat * (words[FIRST] / self.n) * exponential):
            words[LENGTH] -= gain
            words[ACCEPTED] += 1
        elif len(self.flips) <= LOG:
            for start, length in reversed(self.flips):
                self.reverse(start, length)
        else:
            self._set(saved)
            words[LENGTH] = words[BEST]
            words[RESTORED] += 1

    # -- the queue --

    def push(self, cities: list[int]) -> None:
        fresh = [c for c in dict.fromkeys(cities) if not self.waiting[c]]
        for c in fresh:
            self.waiting[c] = True
        if self.cursor < 0 and len(self.ring) + len(fresh) > RING:
            self.cursor = 0
            self.ring.clear()
        if self.cursor < 0:
            self.ring.extend(fresh)

    def next(self) -> int | None:
        if self.cursor < 0:
            c = self.ring.popleft() if self.ring else None
        else:
            numbers = [*range(32 * self.cursor, self.n), *range(32 * self.cursor)]
            c = next((c for c in numbers if self.waiting[c]), None)
            self.cursor = -1 if c is None else c // 32
        if c is not None:
            self.waiting[c] = False
        return c

    # -- moves --

    def descend(self) -> int:
        gained = 0
        while (t1 := self.next()) is not None:
            found = [move for lane in range(32) if (move := self.move_of(t1, lane))]
            if not found:
                continue
            gain, paths, ends = max(found, key=lambda move: move[0])  # the first of equal ones
            for path in paths:
                self.flip(*path)
            self.push(ends)
            gained += gain
        return gained

    def move_of(self, t1: int, lane: int) -> tuple[int, list[tuple[int, int, int]], list[int]] | None:
        """Return gain, paths to turn round and end points of a lane's best move."""
        sign = 1 if lane < 16 else -1
        origin = self.place[t1] + sign
        n, d = self.n, self.lengths

        def at(rank: int) -> int:
            return self.order[(origin + sign * rank) % n]

        t2 = at(0)
        t3 = self.lists[t2][lane >> 1 & 7]
        if t3 is None or (g1 := d[t1][t2] - d[t2][t3]) <= 0:
            return None
        rank3 = sign * (self.place[t3] - origin) % n
        closable = lane % 2 == 0
        if closable and rank3 < 2:
            return None
        t4 = at(rank3 - 1 if closable else rank3 + 1)
        g2 = g1 + d[t3][t4]
        found = []
        if closable:
            found.append((g2 - d[t4][t1], [(t1, t2, t4)], [t1, t2, t3, t4]))
        for t5 in self.lists[t4][:BREADTH]:
            if t5 is None or (g3 := g2 - d[t4][t5]) <= 0:
                break
            rank5 = sign * (self.place[t5] - origin) % n
            inside = rank5 < rank3
            if closable:
                if rank5 in (n - 1, rank3, rank3 - 1, rank3 - 2):
                    continue
                t6 = at(rank5 + 1 if inside else rank5 - 1)
                gain, paths = g3 + d[t5][t6] - d[t6][t1], [(t1, t2, t4), (t1, t4, t6)]
                found.append((gain, paths, [t1, t2, t3, t4, t5, t6]))
            elif inside:
                t6 = at(rank5 + 1)
                pieces = ((n - rank3 - 1, (t4, t1)), (rank5 + 1, (t2, t5)), (rank3 - rank5, (t6, t3)))
                paths = _exchange(pieces)
                found.append((g3 + d[t5][t6] - d[t6][t1], paths, [t1, t2, t3, t4, t5, t6]))
                if rank5 > 0:
                    t6 = at(rank5 - 1)
                    paths = [(t1, t2, t6), (t2, t5, t3)]
                    found.append((g3 + d[t5][t6] - d[t6][t1], paths, [t1, t2, t3, t4, t5, t6]))
        move = max(found, key=lambda move: move[0], default=None)
        return move if move and move[0] > 0 else None

    # -- reversals --

    def flip(self, before: int, first: int, last: int) -> None:
        """Turn round the path first .. last behind `before`, or the rest if that is shorter."""
        forward = self.order[(self.place[before] + 1) % self.n] == first
        start, stop = (first, last) if forward else (last, first)
        length = (self.place[stop] - self.place[start]) % self.n + 1
        place = self.place[start]
        if 2 * length > self.n:
            place, length = (place + length) % self.n, self.n - length
        if length >= 2:
            self.flips.append((place, length))
            self.reverse(place, length)

    def reverse(self, start: int, length: int) -> None:
        places = [(start + i) % self.n for i in range(length)]
        for place, c in zip(places, [self.order[i] for i in reversed(places)], strict=True):
            self.order[place], self.place[c] = c, place


def _exchange(pieces: tuple[tuple[int, tuple[int, int]], ...]) -> list[tuple[int, int, int]]:
    """Return the paths to turn round so that all but the longest of three pieces change places."""
    longest = max(range(3), key=lambda i: pieces[i][0])  # the first of equal ones
    before = pieces[longest][1][1]
    (x0, x1), (y0, y1) = pieces[(longest + 1) % 3][1], pieces[(longest + 2) % 3][1]
    return [(before, x0, y1), (before, y1, y0), (y1, x1, x0)]
