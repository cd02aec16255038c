"""The published search in plain Python: what the compiled one must do, decision by decision."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator

import numpy as np

TAG = 14


def philox(c0: int, c1: int, c2: int, c3: int, seed: int) -> list[int]:
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [c0, c1, c2, c3]


class Model:
    """`distance` int [N, N]; `heat` [N, N], symmetric; `candidates` a list of cities for each city; `near`
    gives the nearest of some cities."""

    def __init__(self, distance, heat, candidates, near, *, seed, row=0, alpha, beta, param_h, max_depth):
        self.d, self.C, self.near = distance, candidates, near
        self.seed, self.row, self.events = seed, row, itertools.count()
        self.alpha, self.beta, self.param_h, self.max_depth = alpha, beta, param_h, max_depth
        self.n = len(distance)
        self.W = 100.0 * np.asarray(heat, dtype=np.float64)
        self.Q = np.zeros((self.n, self.n), dtype=np.int64)
        self.M = self.actions = self.accepted = self.restarts = 0
        self.best, self.best_length = [], math.inf

    def words(self) -> Iterator[int]:
        event = next(self.events)
        for block in itertools.count():
            yield from philox(TAG << 28 | block, self.row & 0xFFFFFFFF, self.row >> 32, event, self.seed)

    def length(self, tour):
        return int(sum(self.d[a, b] for a, b in zip(tour, tour[1:] + tour[:1], strict=True)))

    def draw(self, cities, weights, word):
        sums = list(itertools.accumulate(weights))
        return cities[bisect.bisect_right(sums, (word + 0.5) / 2**32 * sums[-1])]

    def add_try(self, a, b):
        self.Q[a, b] += 1
        self.Q[b, a] += 1

    def apply(self, edges, gain):
        reward = self.beta * math.expm1(gain / self.length(self.tour))
        for a, b in edges:
            self.W[a, b] += reward
            self.W[b, a] += reward

    def random_state(self):
        words = self.words()
        tour, left = [0], set(range(1, self.n))
        while left:
            here, word = tour[-1], next(words)
            cities = [c for c in self.C[here] if c in left]
            if cities:
                top = max(self.W[here, c] for c in cities)
                city = self.draw(cities, [math.exp(self.W[here, c] - top) for c in cities], word)
            else:
                city = self.near(here, left)
            tour.append(city)
            left.remove(city)
        self.tour = tour

    def descent(self):
        improved = True
        while improved:
            improved = False
            for a in range(self.n):
                for c in self.C[a]:
                    t, n = self.tour, self.n
                    b, d = t[(t.index(a) + 1) % n], t[(t.index(c) + 1) % n]
                    if c == b or d == a:
                        continue
                    self.M += 1
                    self.add_try(a, c)
                    self.add_try(b, d)
                    gain = int(self.d[a, b] + self.d[c, d] - self.d[a, c] - self.d[b, d])
                    if gain > 0:
                        self.apply([(a, c), (b, d)], gain)
                        t = t[t.index(b) :] + t[: t.index(b)]  # b .. c, d .. a
                        k = t.index(c) + 1
                        self.tour = t[:k][::-1] + t[k:]
                        improved = True
                        break
            self.remember()

    def remember(self):
        if self.length(self.tour) <= self.best_length:
            self.best, self.best_length = list(self.tour), self.length(self.tour)

    def action(self) -> bool:
        words = self.words()
        first = ((next(words) << 32 | next(words)) * self.n) >> 64
        k = (self.tour.index(first) + 1) % self.n
        path = self.tour[k:] + self.tour[:k]  # from the open end round to `first`
        gain, added, improved = int(self.d[first, path[0]]), [], False
        while len(added) < self.max_depth and not improved:
            end = path[0]
            mean = (self.W[end].sum() - self.W[end, end]) / (self.n - 1)
            potential = {
                c: (self.W[end, c] / mean if mean > 0 else 1)
                + self.alpha * math.sqrt(math.log(self.M + 1) / (self.Q[end, c] + 1))
                for c in self.C[end]
                if c not in (first, path[1])
            }
            admitted = [c for c, z in potential.items() if z >= 1]
            if not admitted:
                break
            to = self.draw(admitted, [potential[c] for c in admitted], next(words))
            self.add_try(end, to)
            k = path.index(to)
            gain += int(self.d[path[k - 1], to] - self.d[end, to])
            path = path[:k][::-1] + path[k:]
            added.append((end, to))
            improved = gain - int(self.d[path[0], first]) > 0
        self.M += 1
        self.actions += 1
        if improved:
            self.apply([*added, (path[0], first)], gain - int(self.d[path[0], first]))
            self.tour = path
            self.accepted += 1
            self.remember()
        return improved

    def run(self) -> Iterator[None]:
        """Yield after every action."""
        while True:
            self.random_state()
            self.descent()
            tries = 0
            while tries < max(1, int(self.param_h * self.n)):
                tries = 0 if self.action() else tries + 1
                self.restarts += tries == max(1, int(self.param_h * self.n))
                yield
