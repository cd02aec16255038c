"""Grids of tiny-cuda-nn: the arithmetic of its hash grid, one point at a time in integers, against ours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fastdiff_ops.encoding import GridEncoding
from torch.nn.functional import grid_sample

PRIMES = (1, 2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737)
CONFIG = {"otype": "HashGrid", "n_levels": 5, "log2_hashmap_size": 10, "base_resolution": 6}


def level_numbers(config: dict[str, float], level: int, n: int) -> tuple[np.float32, int, int]:
    """Return scale, vertices along an axis, and number of entries, as that library works them out."""
    step = np.log2(np.float32(config["per_level_scale"]))
    scale = np.exp2(np.float32(level) * step) * np.float32(config["base_resolution"]) - np.float32(1)
    resolution = math.ceil(scale) + 1
    entries = -(-(resolution**n) // 8) * 8
    return scale, resolution, min(entries, 1 << config["log2_hashmap_size"])


def encode(config: dict[str, float], params: np.ndarray, x: np.ndarray, features: int) -> np.ndarray:
    """Encode one point the long way: wrapping 32-bit integers, modulo the level's size."""
    n, first, out = len(x), 0, []
    for level in range(config["n_levels"]):
        scale, resolution, size = level_numbers(config, level, n)
        at = np.float64(scale) * x.astype(np.float64) + 0.5
        cell, place = np.floor(at).astype(int), at - np.floor(at)
        total = np.zeros(features)
        for corner in range(1 << n):
            sides = [(corner >> i) & 1 for i in range(n)]
            weight = math.prod(place[i] if side else 1 - place[i] for i, side in enumerate(sides))
            vertex = [int(cell[i]) + side for i, side in enumerate(sides)]
            stride, index = 1, 0
            for v in vertex:
                if stride > size:
                    break
                index += v * stride
                stride *= resolution
            if size < stride:
                index = 0
                for v, prime in zip(vertex, PRIMES, strict=False):
                    index ^= v * prime % (1 << 32)
            row = (first + index % size) * features
            total += weight * params[row : row + features]
        out.append(total)
        first += size
    return np.concatenate(out)


@pytest.mark.parametrize("scale", [1.3819, 1.5, 2.0])
@pytest.mark.parametrize(("n", "features"), [(1, 2), (2, 2), (3, 4), (4, 1)])
def test_same_features(n, features, scale):
    config = CONFIG | {"per_level_scale": scale, "n_features_per_level": features}
    config["log2_hashmap_size"] = {1: 2, 2: 7, 3: 9, 4: 11}[n]
    config["base_resolution"] = 3 if n == 1 else 6  # 3 entries, rounded to 8, cut to 4
    numbers = sum(level_numbers(config, level, n)[2] for level in range(5)) * features
    rng = np.random.default_rng(n)
    params = rng.standard_normal(numbers).astype(np.float32)
    grid = GridEncoding.from_tiny_cuda_nn(n, config, torch.from_numpy(params))
    assert grid.levels.dense[0] and not grid.levels.dense[-1]
    x = np.concatenate([rng.random((40, n)), np.ones((1, n)), np.zeros((1, n))]).astype(np.float32)
    got = grid(torch.from_numpy(x)).detach().numpy()
    wanted = np.array([encode(config, params, point, features) for point in x])
    np.testing.assert_allclose(got, wanted, atol=2e-5 * scale**5)  # float32 places inside the finest cells


def test_types_and_places():
    config = CONFIG | {"per_level_scale": 1.5}
    size = GridEncoding.from_config(2, config, convention="tiny-cuda-nn").table.numel()
    params = torch.randn(size).half()
    grid = GridEncoding.from_tiny_cuda_nn(2, config, params)
    assert grid.table.dtype == torch.float16 and torch.equal(grid.table.flatten(), params)
    assert grid.table.requires_grad and grid.table.data_ptr() != params.data_ptr()
    wide = GridEncoding.from_tiny_cuda_nn(2, config, params, dtype=torch.float32, bounds="extend")
    assert wide.table.dtype == torch.float32 and wide.bounds == "extend"
    for wrong, error, message in (
        (
            params[:-2],
            ValueError,
            rf"`params` must have .*\[{size}\].*, got \({size - 2},\)",
        ),
        (params.view(-1, 2), ValueError, "`params` must have shape"),
        (params.int(), TypeError, "`params` must be a floating-point Tensor"),
        (None, TypeError, "`params` must be"),
    ):
        with pytest.raises(error, match=message):
            GridEncoding.from_tiny_cuda_nn(2, config, wrong)
    with pytest.raises(ValueError, match="`n_input_dims` must be at most 7"):
        GridEncoding.from_tiny_cuda_nn(8, config, params)
    with pytest.raises(ValueError, match="unknown configuration key"):
        GridEncoding.from_tiny_cuda_nn(2, config | {"levels": 3}, params)


@pytest.mark.parametrize("n", [2, 3])
def test_a_dense_level_is_an_image(n):
    """torch's own bilinear and trilinear interpolation, of a picture with its samples at the vertices."""
    resolution = 5
    grid = GridEncoding(n, 1, base_resolution=resolution, dtype=torch.float64, seed=0)
    a = grid.levels.a[0]
    image = grid.table.detach()[: a**n].T.reshape(1, 2, *[a] * n)  # the first axis is the fastest
    x = torch.rand(50, n, dtype=torch.float64)
    at = (x * resolution / (a - 1) * 2 - 1).reshape(1, 50, *[1] * (n - 1), n)
    wanted = grid_sample(image, at, align_corners=True).reshape(2, 50).T
    torch.testing.assert_close(grid(x), wanted, rtol=1e-12, atol=1e-16)
