"""knn: equal to all distances sorted, whatever the points; wrong arguments; a good citizen of torch."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from fastdiff_ops.ops import knn
from fastdiff_ops.reference.tsp import knn as reference
from torch import Tensor

operator = torch.ops.fastdiff_ops.knn.default
F32, F64 = torch.float32, torch.float64


def uniform(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.random((n, 2))


def clustered(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 3, (n, 2)) + 1e-4 * rng.standard_normal((n, 2))


def outlier(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([rng.random((n - 1, 2)), [[1e6, -3e5]]])


def collinear(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.stack([rng.random(n), np.full(n, 7.0)], 1)


def diagonal(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.repeat(rng.random((n, 1)), 2, axis=1)


def duplicated(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 4, (n, 2)).astype(float)


def equal(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.full((n, 2), -0.1)


def lattice(n: int, rng: np.random.Generator) -> np.ndarray:
    side = math.isqrt(n) + 1
    return rng.permutation(np.stack(np.divmod(np.arange(n), side), 1)) * 0.1


def far_away(n: int, rng: np.random.Generator) -> np.ndarray:
    """Neighbours differ in the last bits of float32."""
    return 1e6 + rng.random((n, 2))


def huge(n: int, rng: np.random.Generator) -> np.ndarray:
    """Squares of differences leave the range of float32."""
    return rng.standard_normal((n, 2)) * 1e38 * np.where(rng.random((n, 1)) < 0.1, 1, 1e-38)


KINDS = [uniform, clustered, outlier, collinear, diagonal, duplicated, equal, lattice, far_away, huge]


def points(kind: Callable, shape: tuple[int, int], dtype: torch.dtype = F32) -> Tensor:
    rng = np.random.default_rng(shape)
    return torch.from_numpy(np.stack([kind(shape[1], rng) for _ in range(shape[0])])).to(dtype)


def check(got: tuple[Tensor, Tensor], coords: Tensor, k: int) -> None:
    for mine, right in zip(got, reference(coords, k), strict=True):
        assert mine.dtype == right.dtype
        assert torch.equal(mine.cpu(), right)


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_equals_all_distances_sorted(backend, kind, dtype) -> None:
    """Sizes on both sides of what a GPU does by all pairs; a block's tile and one point more."""
    for batch, n, k in ((3, 2, 1), (2, 65, 9), (1, 257, 5), (1, 1030, 10)):
        coords = points(kind, (batch, n), dtype)
        check(knn(coords.to(backend.device), k), coords, k)


@pytest.mark.emulated
@pytest.mark.parametrize("k", [1, 8, 9, 16, 17, 40, 69])
def test_numbers_of_neighbours(backend, k) -> None:
    """Up to all of them, beyond what is kept in registers."""
    for kind in (uniform, duplicated):
        coords = points(kind, (3, 70))  # odd rows of two floats: not all aligned to 16 bytes
        check(knn(coords.to(backend.device), k), coords, k)
    coords = points(clustered, (1, 1200))
    check(knn(coords.to(backend.device), k), coords, k)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_large_instances(kind) -> None:
    """Worked on by all threads; the reference on a part of the rows."""
    n, k = 20_000, 70
    coords = points(kind, (1, n), F64)
    ids, distances = knn(coords, k)
    few = knn(coords, 10)
    assert torch.equal(few[0], ids[..., :10]) and torch.equal(few[1], distances[..., :10])
    for own in range(0, n, 1999):
        delta = coords[0] - coords[0, own]
        d2 = delta[:, 0] * delta[:, 0] + delta[:, 1] * delta[:, 1]
        d2[own] = math.nan
        right = d2.sort(stable=True)
        assert torch.equal(ids[0, own].long(), right.indices[:k])
        assert torch.equal(distances[0, own], right.values[:k].sqrt().float())


def test_threads_change_nothing() -> None:
    code = """
import hashlib, torch
from fastdiff_ops.ops import knn
torch.set_num_threads({threads})
xy = torch.rand(30_000, 2, generator=torch.Generator().manual_seed(1))
results = [*knn(xy, 10), *knn(xy.view(30, 1000, 2), 10)]
print(hashlib.sha256(b"".join(r.numpy().tobytes() for r in results)).hexdigest())
"""
    run = [[sys.executable, "-c", code.format(threads=threads)] for threads in (1, 3)]
    outputs = {subprocess.run(command, capture_output=True, check=True).stdout for command in run}
    assert len(outputs) == 1


@pytest.mark.emulated
def test_shapes_and_layouts(backend) -> None:
    coords = points(uniform, (3, 50)).to(backend.device)
    ids, distances = knn(coords, 4)
    assert ids.shape == distances.shape == (3, 50, 4)
    alone = knn(coords[1], 4)
    assert torch.equal(alone[0], ids[1]) and torch.equal(alone[1], distances[1])
    turned = coords.transpose(0, 1).contiguous().transpose(0, 1)  # the same numbers, another order in memory
    assert torch.equal(knn(turned, 4)[0], ids)
    wide = torch.nn.functional.pad(coords, (1, 1), value=math.nan)[..., 1:3]
    assert torch.equal(knn(wide, 4)[0], ids)
    assert [tuple(t.shape) for t in knn(coords[:0], 4)] == [(0, 50, 4)] * 2
    needs = coords.clone().requires_grad_()
    assert not knn(needs, 4)[1].requires_grad


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite(value) -> None:
    coords = points(uniform, (2, 30))
    coords[1, 7, 1] = value
    with pytest.raises(ValueError, match=rf"`coords` must be finite, got {value} in instance 1, point 7"):
        knn(coords, 3)


@pytest.mark.emulated
def test_not_finite_on_a_gpu(backend) -> None:
    """Asking would wait for the device: such points have no neighbours and are nobody's."""
    if backend.name != "cpu":
        check_not_finite(lambda coords, k: [t.cpu() for t in knn(coords.to(backend.device), k)])


def test_not_finite_in_the_reference() -> None:
    check_not_finite(reference)


def check_not_finite(run: Callable) -> None:
    for n in (40, 1030):
        coords = points(uniform, (2, n))
        coords[1, 3, 0], coords[1, 9, 1] = math.nan, math.inf
        ids, distances = run(coords, 39)
        for mine, right in zip((ids[0], distances[0]), knn(coords[0], 39), strict=True):
            assert torch.equal(mine, right)
        assert bool((ids[1, [3, 9]] == -1).all() and distances[1, [3, 9]].isnan().all())
        assert not bool(torch.isin(ids[1], torch.tensor([3, 9])).any())
        assert torch.equal(ids[1] == -1, distances[1].isnan())
        short = max(0, 39 - (n - 3))
        assert bool(((ids[1, 4:9] == -1).sum(1) == short).all())


@pytest.mark.gpu
@pytest.mark.parametrize("n", [1000, 50_000])
def test_capture(n) -> None:
    """A CUDA graph replays on what the points are by then, and every replay has the same bits."""
    coords, other = (points(uniform, (2, n + i)).cuda()[:, :n].contiguous() for i in range(2))
    wanted = knn(other, 10)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = knn(coords, 10)
    coords.copy_(other)
    for _ in range(3):
        graph.replay()
        assert all(map(torch.equal, results, wanted))


XY = torch.zeros(5, 2)
WRONG = [
    ([[0.0, 0.0]], 1, TypeError, "`coords` must be a Tensor, got list"),
    (XY.half(), 1, TypeError, "`coords` must be float32 or float64, got torch.float16"),
    (XY.long(), 1, TypeError, "`coords` must be float32 or float64, got torch.int64"),
    (XY[0], 1, ValueError, r"`coords` must be \[N, 2\] or \[B, N, 2\], got shape \(2,\)"),
    (torch.zeros(5, 3), 1, ValueError, r"got shape \(5, 3\)"),
    (torch.zeros(1, 2, 5, 2), 1, ValueError, r"got shape \(1, 2, 5, 2\)"),
    (XY[:1], 1, ValueError, "at least 2 and less than 2\\^30 points, got 1"),
    (XY[:0], 1, ValueError, "points, got 0"),
    (XY, 5, ValueError, r"`k` must be in \[1, 4\], got 5"),
    (XY, 0, ValueError, r"`k` must be in \[1, 4\], got 0"),
    (XY, 2.0, TypeError, "`k` must be an int, got float"),
    (XY, True, TypeError, "`k` must be an int, got bool"),
]


@pytest.mark.parametrize(("coords", "k", "error", "message"), WRONG, ids=lambda v: str(v)[:30])
def test_wrong_arguments(coords, k, error, message) -> None:
    with pytest.raises(error, match=message):
        knn(coords, k)


@pytest.mark.emulated
def test_raw_operator_refuses(backend) -> None:
    xy = XY.to(backend.device)
    for bad in (xy, xy[None].half(), torch.zeros(1, 5, 3, device=backend.device)):
        with pytest.raises(RuntimeError, match="coords must be"):
            operator(bad, 1)
    for k in (0, 5, -1):
        with pytest.raises(RuntimeError, match="k must be in"):
            operator(xy[None], k)


def test_opcheck() -> None:
    for coords in (points(uniform, (2, 40)), points(lattice, (1, 9), F64)):
        torch.library.opcheck(operator, (coords, 3))


def test_compiles_to_one_graph() -> None:
    graphs = []

    def count(graph, _inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(lambda xy: knn(2 * xy, 5), backend=count, fullgraph=True)
    for seed in range(3):
        xy = torch.rand(64, 2, generator=torch.Generator().manual_seed(seed))
        assert all(map(torch.equal, compiled(xy), knn(2 * xy, 5)))
    assert len(graphs) == 1


def test_meta() -> None:
    ids, distances = knn(torch.empty(3, 10, 2, device="meta"), 4)
    assert ids.shape == distances.shape == (3, 10, 4)
    assert (ids.dtype, distances.dtype) == (torch.int32, F32)
