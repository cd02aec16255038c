"""The numbering of dense simplex levels: no two reached vertices share a number, and few numbers are idle."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from fastdiff_ops import ops
from fastdiff_ops.ops import _dense
from fastdiff_ops.ops._dense import smallest_numbering

SCALES = (1.0, 1.7, 2.4, 3.0, 3.3, 4.0, 5.6)


def cube(n: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Points of the unit cube, half of them on faces and edges, and all corners."""
    x = rng.random((count, n))
    on_side = rng.random((count, n)) < rng.choice([0.0, 0.3, 0.8], size=(count, 1))
    x = np.where(on_side, rng.integers(2, size=(count, n)), x)
    return np.concatenate([x, np.array(list(itertools.product((0.0, 1.0), repeat=n)))])


def reached(n: int, scale: float, shift: np.ndarray, x: np.ndarray) -> np.ndarray:
    """All vertices of the simplices of points."""
    z = scale * x + shift
    y = z + (math.sqrt(n + 1) - 1) / n * z.sum(1, keepdims=True)
    cell = np.floor(y).astype(np.int64)
    order = np.argsort(-(y - cell), axis=1, kind="stable")
    steps = np.cumsum(np.eye(n, dtype=np.int64)[order], axis=1)
    found = np.concatenate([cell[:, None], cell[:, None] + steps], 1).reshape(-1, n)
    _, first = np.unique((found + 64) @ 128 ** np.arange(n), return_index=True)
    return found[first]


def classes(vertices: np.ndarray, a: int, k: int) -> np.ndarray:
    """Numbers of the classes of Z^n / (a I + k 1 1^T), by division of whole numbers."""
    digits = vertices[:, :-1] - vertices[:, -1:]
    turns = digits // a
    last = (vertices[:, -1] - k * turns.sum(1)) % (a + vertices.shape[1] * k)
    number = last
    for i in reversed(range(vertices.shape[1] - 1)):
        number = number * a + (digits - a * turns)[:, i]
    return number


@pytest.mark.parametrize("n", range(1, 7))
def test_vertices_have_numbers_of_their_own(n):
    rng = np.random.default_rng(n)
    for scale in SCALES[: 7 if n < 5 else 3]:
        x = cube(n, 20_000 if n < 5 else 50_000, rng)
        for _ in range(3):
            shift = rng.random() + rng.uniform(-0.5, 0.5, n)
            spread = float(np.abs(shift - shift[-1]).max())
            a, k, size = smallest_numbering(n, scale, spread)
            vertices = reached(n, scale, shift, x)
            assert size == a ** (n - 1) * (a + n * k) >= len(vertices)
            assert len(np.unique(classes(vertices, a, k))) == len(vertices), (scale, shift)
            e = vertices[:, :-1] - vertices[:, -1:]
            assert n == 1 or (-a <= e.min() and e.max() < a)


def test_a_numbering_too_small_is_noticed(monkeypatch):
    """The test above has points enough to see vertices that meet."""
    monkeypatch.setattr(_dense, "_is_unique", lambda *_: True)
    smallest_numbering.cache_clear()
    try:
        with pytest.raises(AssertionError):
            test_vertices_have_numbers_of_their_own(3)
    finally:
        smallest_numbering.cache_clear()


@pytest.mark.parametrize(("n", "most"), [(2, 1.25), (3, 1.4), (4, 1.6)])
def test_few_numbers_are_idle(n, most):
    """At scale 4; the formula that suffices at every scale takes 1.9, 2.4 and 2.9 times the vertices."""
    shift = np.zeros(n)
    vertices = reached(n, 4.0, shift, cube(n, 100_000, np.random.default_rng(0)))
    assert smallest_numbering(n, 4.0, 0.0).vertices <= most * len(vertices)


@pytest.mark.emulated
@pytest.mark.parametrize("n", range(1, 8))
def test_inside_of_the_cube_one_wrap_is_enough(backend, n):
    """Kernels that know the point to be inside take shortcuts; they give the numbers of those that divide."""
    levels = ops.SimplexLevels(n, 6 if n < 5 else 2, log2_hashmap_size=21, base_resolution=1)
    assert any(levels.dense)
    x = cube(n, 3000, np.random.default_rng(n))
    x = torch.from_numpy(x).float().to(backend.device)
    table = torch.rand(levels.n_entries, 2, generator=torch.Generator().manual_seed(n)).to(backend.device)
    inside, anywhere = (ops.simplex_encode(x, table, levels, bounds=bounds) for bounds in ("clamp", "extend"))
    assert torch.equal(inside, anywhere)
