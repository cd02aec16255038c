"""The simplex lattice by independent means: barycentric coordinates, enumeration, linear functions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from fastdiff_ops import ops
from fastdiff_ops.reference._encoding import levels_of
from fastdiff_ops.reference.simplex import _locate
from ops.encode_cases import F64, some_levels
from scipy import stats
from torch import Tensor


def constants(n: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Return F, the skew S = I + F 11^T and the unskew U = I - G 11^T."""
    root = math.sqrt(n + 1)
    skew, unskew = (root - 1) / n, (1 - 1 / root) / n
    return skew, np.eye(n) + skew, np.eye(n) - unskew


def points(n: int, count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((count, n)))


def positions(levels: ops.SimplexLevels, level: int, vertices: np.ndarray) -> Tensor:
    """Return the points at which lattice vertices [M, n] lie."""
    unskew = constants(levels.n)[2]
    shift = np.array(levels.shifts).reshape(-1, levels.n)[level]
    return torch.from_numpy((vertices @ unskew - shift) / levels.scales[level])


def entries(levels: ops.SimplexLevels, level: int, vertices: np.ndarray) -> np.ndarray:
    """Return the table rows of lattice vertices, read off the operator: rows that hold their own number."""
    table = torch.arange(levels.n_entries, dtype=F64)[:, None]
    found = ops.simplex_encode(positions(levels, level, vertices), table, levels, bounds="extend")[:, level]
    assert (found - found.round()).abs().max() < 1e-4
    return found.round().long().numpy()


def reached(levels: ops.SimplexLevels, level: int, x: np.ndarray) -> np.ndarray:
    """Return all vertices of the simplices that contain points, by walking along sorted coordinates."""
    n = levels.n
    shift = np.array(levels.shifts).reshape(-1, n)[level]
    y = (x * levels.scales[level] + shift) @ constants(n)[1]
    cell = np.floor(y).astype(int)
    order = np.argsort(cell - y, axis=1)
    steps = np.concatenate([np.zeros((len(x), 1, n), int), np.eye(n, dtype=int)[order].cumsum(1)], 1)
    return np.unique((cell[:, None] + steps).reshape(-1, n), axis=0)


@pytest.mark.parametrize("n", range(1, 9))
def test_skew(n):
    _, s, u = constants(n)
    np.testing.assert_allclose(u @ s, np.eye(n), atol=1e-15)
    assert math.isclose(np.linalg.det(s), math.sqrt(n + 1), rel_tol=1e-13)
    for k in range(n + 1):
        edge = u @ (np.arange(n) < k)
        assert math.isclose(edge @ edge, k * (n + 1 - k) / (n + 1), abs_tol=1e-14)


@pytest.mark.parametrize("n", range(1, 9))
def test_weights(n):
    """Not negative, of sum 1, and the vertices' mean is the point."""
    levels = some_levels("simplex", n)
    lists = (levels.scales, levels.shifts, levels.layout)
    x = points(n, 500)
    for level in levels_of(lists, n, 0):
        weights = _locate(x, torch.ones(500, dtype=torch.bool), level).weights
        assert (weights >= 0).all()
        assert (weights.sum(1) - 1).abs().max() <= 4.5e-16
    total = ops.simplex_encode(x, torch.ones(levels.n_entries, 1, dtype=F64), levels)
    assert (total - 1).abs().max() <= 4.5e-16
    in_float32 = ops.simplex_encode(x.float(), torch.ones(levels.n_entries, 1), levels)
    assert (in_float32 - 1).abs().max() <= 2.4e-7


@pytest.mark.emulated
@pytest.mark.parametrize(("n", "count"), [(1, 60), (2, 60), (3, 60), (4, 40), (5, 16), (6, 3)])
def test_barycentric_coordinates(backend, n, count):
    """Among the n! simplices of a cell exactly one contains the point; its value is the operator's.

    Geometry alone decides here: vertices in x space, a linear system for the coordinates. Entries are
    numbered by the operator on dense levels, by a hash in Python's integers on others.
    """
    levels = some_levels("simplex", n)
    primes = (1, 2654435761, 805459861, 3674653429, 2097192037, 1434869437)
    table = torch.randn(levels.n_entries, 2, generator=torch.Generator().manual_seed(n), dtype=F64)
    x = points(n, count)
    values = ops.simplex_encode(x.to(backend.device), table.to(backend.device), levels).cpu()
    _, s, u = constants(n)
    shifts = np.array(levels.shifts).reshape(-1, n)
    steps = np.array(
        [
            np.concatenate([np.zeros((1, n)), np.eye(n)[list(p)].cumsum(0)])
            for p in itertools.permutations(range(n))
        ]
    )
    for level in range(levels.n_levels):
        chosen, weights = [], []
        for point in x.numpy():
            z = levels.scales[level] * point + shifts[level]
            corners = np.floor(s @ z) + steps  # [n!, n + 1, n]
            system = np.concatenate([corners @ u, np.ones((len(steps), n + 1, 1))], 2).transpose(0, 2, 1)
            coordinates = np.linalg.solve(system, np.append(z, 1.0)[:, None])[..., 0]
            inside = np.flatnonzero((coordinates >= -1e-12).all(1))
            assert len(inside) == 1
            chosen.append(corners[inside[0]])
            weights.append(coordinates[inside[0]])
        vertices = np.array(chosen).astype(int).reshape(-1, n)
        if levels.dense[level]:
            rows = entries(levels, level, vertices)
        else:
            hashes = []
            for vertex in vertices.tolist():
                h = 0
                for v, prime in zip(vertex, primes, strict=False):
                    h ^= (v % (1 << 32)) * prime % (1 << 32)
                hashes.append(levels.offsets[level] + h % (1 << levels.log2_hashmap_size))
            rows = np.array(hashes)
        features = table[rows].reshape(count, n + 1, 2)
        wanted = (torch.from_numpy(np.array(weights))[..., None] * features).sum(1)
        torch.testing.assert_close(values[:, 2 * level : 2 * level + 2], wanted, rtol=0, atol=1e-11)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_simplices_are_delaunay(n):
    """The sphere around a simplex holds no other vertex: the tessellation is the one of the A_n* lattice."""
    _, s, u = constants(n)
    z = points(n, 5, seed=n).numpy() * 3
    near = np.array(list(itertools.product(range(-2, 4), repeat=n)))
    for point in z:
        y = s @ point
        cell = np.floor(y)
        order = np.argsort(cell - y)
        corners = (cell + np.concatenate([np.zeros((1, n)), np.eye(n)[order].cumsum(0)])) @ u
        edges = corners[1:] - corners[0]
        centre = np.linalg.solve(2 * edges, (edges**2).sum(1)) + corners[0]
        radius = np.linalg.norm(corners - centre, axis=1)
        assert np.ptp(radius) < 1e-12
        distance = np.linalg.norm((cell + near) @ u - centre, axis=1)
        assert distance.min() > radius[0] - 1e-12


@pytest.mark.parametrize("mode", ["axis", "density"])
@pytest.mark.parametrize(("n", "resolution"), [(1, 16), (1, 5), (2, 16), (2, 7), (3, 9), (4, 4), (5, 2)])
def test_dense_levels_have_an_entry_for_each_vertex(n, resolution, mode):
    """Enumerated: all vertices that the cube reaches have entries of their own, below the level's size."""
    keys = {"base_resolution": resolution, "per_level_scale": 1.0, "resolution_mode": mode}
    levels = ops.SimplexLevels(n, 2, log2_hashmap_size=26, **keys)
    assert all(levels.dense)
    rng = np.random.default_rng(0)
    x = rng.random((20000, n))
    faces = rng.random((20000, n))
    axis = rng.integers(n, size=20000)
    faces[np.arange(20000), axis] = rng.integers(2, size=20000)
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=n)))
    for level in range(2):
        vertices = reached(levels, level, np.concatenate([x, faces, corners]))
        rows = entries(levels, level, vertices)
        assert len(np.unique(rows)) == len(vertices)
        assert levels.offsets[level] <= rows.min() and rows.max() < levels.offsets[level + 1]
        assert len(vertices) <= levels.vertices[level]


def test_a_known_size():
    levels = ops.SimplexLevels(3, 1, base_resolution=16, level_shift="none")
    assert (levels.a, levels.K, levels.vertices) == ((18,), (6,), (11664,))


@pytest.mark.emulated
@pytest.mark.parametrize("n", range(1, 6))
def test_linear_functions_are_exact(backend, n):
    """A table of <c, vertex> + d encodes <c, x> + d, with gradient c everywhere, on every dense level."""
    levels = ops.SimplexLevels(n, 2, base_resolution=3, per_level_scale=1.4, log2_hashmap_size=20)
    c = np.random.default_rng(n).standard_normal(n)
    x = points(n, 300, seed=1)
    table = torch.zeros(levels.n_entries, 1, dtype=F64)
    for level in range(2):
        vertices = reached(levels, level, x.numpy())
        table[entries(levels, level, vertices), 0] = (
            positions(levels, level, vertices) @ torch.from_numpy(c) + 0.7
        )
    x = x.to(backend.device).requires_grad_()
    values = ops.simplex_encode(x, table.to(backend.device), levels)
    wanted = (x @ torch.from_numpy(c).to(x) + 0.7)[:, None].expand(-1, 2)
    assert (values - wanted).abs().max() < 1e-13
    (slope,) = torch.autograd.grad(values[:, 1].sum(), x)
    assert (slope.cpu() - torch.from_numpy(c)).abs().max() < 1e-11


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_faces_are_shared(n):
    """Just either side of a face, where the order of two coordinates changes or a cell ends: one value."""
    levels = ops.SimplexLevels(n, 1, base_resolution=3, log2_hashmap_size=8, level_shift="none")
    table = torch.randn(levels.n_entries, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    rng = np.random.default_rng(n)
    unskew = constants(n)[2]
    y = rng.integers(0, 3, (100, n)) + rng.uniform(0.05, 0.95, (100, n))
    step = np.zeros((100, n))
    y[:50, 0] = np.floor(y[:50, 0]) + y[:50, 1] % 1  # equal fractional parts
    step[:50, 0], step[:50, 1] = 1, -1
    y[50:, 0] = np.floor(y[50:, 0])  # a cell's end
    step[50:, 0] = 1
    sides = [torch.from_numpy((y + e * step) @ unskew / 3) for e in (-1e-9, 1e-9)]
    values = [ops.simplex_encode(side, table, levels, bounds="extend") for side in sides]
    assert (values[0] - values[1]).abs().max() < 4e-9 * 2 * table.abs().max() * 2
    # while the simplices are others: the slopes differ
    assert (values[0] - values[1]).abs().max() > 1e-12


@pytest.mark.parametrize("n", range(1, 9))
def test_shifts(n):
    """phi solves phi^(n + 1) = phi + 1, and no two levels share their creases.

    The simplex lattice takes of all shifts that mean the same to it one that differs little between axes.
    """
    keys = {"n_levels": 16, "base_resolution": 1, "per_level_scale": 1.1, "level_shift": "quasi"}
    shifts = np.array(ops.GridLevels(n, **keys).shifts).reshape(16, n)
    nearest = np.array(ops.SimplexLevels(n, **keys).shifts).reshape(16, n)
    assert (np.abs(nearest - nearest[:, -1:]) <= 0.5).all()
    turns = (nearest - shifts) @ constants(n)[1]
    np.testing.assert_allclose(turns, turns.round(), atol=1e-9)
    phi = 1 / (shifts[0, 0] if shifts[0, 0] else 1)
    assert math.isclose(phi ** (n + 1), phi + 1, rel_tol=1e-12)
    assert ((shifts >= 0) & (shifts < 1)).all()
    gaps = np.abs(shifts[:, None] - shifts[None]).max(2) + np.eye(16)
    assert gaps.min() > 0.02
    assert set(ops.SimplexLevels(n, 3, base_resolution=2, level_shift="none").shifts) == {0.0}


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_density_mode_has_as_many_vertices_as_cubes(n):
    """The lattice has sqrt(n + 1) vertices per unit of volume: the mode's scale makes up for it."""
    axis, density = (
        ops.SimplexLevels(n, 3, base_resolution=8, resolution_mode=mode) for mode in ("axis", "density")
    )
    ratio = np.array(axis.scales) / density.scales
    np.testing.assert_allclose(ratio**n, math.sqrt(n + 1), rtol=1e-12)
    assert axis.scales == (8.0, 12.0, 18.0)


# ---- collisions

BITS = 12


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_hashed_entries_are_uniform(n):
    """Chi-square of 2^16 random vertices over 2^12 entries.

    Power: entries hit with relative deviations of 8 % (rms) raise the statistic by 2^16 0.08^2 = 419, more
    than four of its standard deviations, 90; half of the entries unused raise it by 2^16. Two-sided, since
    too even a distribution over random vertices is not random either; false alarms: 1 in 1000, seed fixed.
    """
    levels = ops.SimplexLevels(n, 1, log2_hashmap_size=BITS, base_resolution=4000, level_shift="none")
    vertices = np.random.default_rng(n).integers(-3000, 3000, (1 << 16, n))
    counts = np.bincount(entries(levels, 0, vertices), minlength=1 << BITS)
    assert len(counts) == 1 << BITS
    statistic = ((counts - 16.0) ** 2 / 16.0).sum()
    low, high = stats.chi2((1 << BITS) - 1).ppf([0.0005, 0.9995])
    assert low < statistic < high


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_neighbours_seldom_share_an_entry(n):
    """Along every axis a run of 256 vertices has as many entries as random ones would, or more."""
    levels = ops.SimplexLevels(n, 1, log2_hashmap_size=BITS, base_resolution=4000, level_shift="none")
    start = np.random.default_rng(0).integers(0, 1000, n)
    size = 1 << BITS
    expected = size * (1 - (1 - 1 / size) ** 256)  # 248 of 256, with a standard deviation of 2.6
    for axis in range(n):
        run = start + np.arange(256)[:, None] * np.eye(n, dtype=int)[axis]
        assert len(np.unique(entries(levels, 0, run))) > expected - 12
    # vertices of one simplex: pairs collide about as often as random ones, 1 in 4096
    x = np.random.default_rng(1).random((20000, n))
    shape = levels_of((levels.scales, levels.shifts, levels.layout), n, 0)[0]
    rows = _locate(torch.from_numpy(x), torch.ones(len(x), dtype=torch.bool), shape).entries.sort(1).values
    share = (rows.diff(dim=1) == 0).double().mean().item() * n
    assert share < 3 * n * (n + 1) / 2 / size
