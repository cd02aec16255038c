"""The random stream: golden numbers, equality over everything that must not matter, and its distribution.

Statistical tests use fixed seeds and bounds of 4.5 standard errors or p > 1e-4: a right generator fails none
of them at these seeds, and each says which error it would catch.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
import torch
from fastdiff_ops.ops.random import PhiloxState, make_rng, rand, randn, resolve_seed
from fastdiff_ops.reference import random as reference

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SEED = 0x123456789ABCDEF0
# Of randn((3, 1000)) and rand((3, 1000)) in float32, seed SEED, offset 2: the same on every device and
# processor.
DIGESTS = {"randn": "3682baf0173f11be", "rand": "4ec30e5537346917"}

# One block and less, SIMD chunks (256 numbers) and what they leave over, lanes shared by samples, several
# axes.
SHAPES = [(3,), (5, 1), (7, 2), (4, 3), (2, 5), (65, 7), (1, 255), (2, 256), (3, 257), (2, 4, 41), (2, 1281)]


def digest(x: torch.Tensor) -> str:
    return hashlib.sha256(x.cpu().numpy().tobytes()).hexdigest()[:16]


def in_new_process(code: str, **environment: str) -> str:
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- which number stands where


def test_philox_golden_vectors() -> None:
    zero, ones = torch.zeros((), dtype=torch.int64), torch.tensor(0xFFFFFFFF)
    words = [int(w) for w in reference.philox4x32([zero] * 4, [zero] * 2)]
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    words = [int(w) for w in reference.philox4x32([ones] * 4, [ones] * 2)]
    assert words == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_reference_layout_against_plain_integers() -> None:
    """Counter and key of the design, in Python's own integers: block 2^28 + 5 of sample 17, draw 2."""

    def philox(c: list[int], k: list[int]) -> list[int]:
        for _ in range(10):
            p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            word = 0xFFFFFFFF
            c = [p1 >> 32 ^ c[1] ^ k[0], p1 & word, p0 >> 32 ^ c[3] ^ k[1], p0 & word]
            k = [k[0] + 0x9E3779B9 & word, k[1] + 0xBB67AE85 & word]
        return c

    want = philox([10 << 28 | 5, 17, 1, 2], [SEED & 0xFFFFFFFF, SEED >> 32])
    rng = make_rng(SEED, 2, sample_ids=[17])
    got = reference.stream_words(reference.TAG_NORMAL, 1, torch.tensor([(1 << 28) + 5]), rng)
    assert [int(w) for w in got] == want


@pytest.mark.emulated
@pytest.mark.parametrize("draw", [randn, rand])
def test_golden_digest(backend, draw) -> None:
    assert digest(draw((3, 1000), seed=SEED, offset=2, device=backend.device)) == DIGESTS[draw.__name__]


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per_sample", [False, True])
def test_kernels_equal_reference(backend, shape, dtype, per_sample) -> None:
    ids = [2**32 - 1 - 3 * i for i in range(shape[0])] if per_sample else None
    seeds = [SEED + 2**40 * i for i in range(shape[0])] if per_sample else SEED
    rng = make_rng(seeds, 2**32 - 1, sample_ids=ids)
    on_device = rng.to(backend.device)
    ops = torch.ops.fastdiff_ops
    normal = ops.random_normal(shape, on_device, dtype).cpu()
    assert normal.dtype == dtype
    torch.testing.assert_close(normal, reference.random_normal(shape, rng, torch.float32).to(dtype),
                               atol=2e-6, rtol=2 * torch.finfo(dtype).eps)  # fmt: skip
    single = ops.random_normal(shape, on_device, torch.float32).cpu()
    assert torch.equal(normal, single.to(dtype)), "every dtype holds the same number"
    uniform = ops.random_uniform(shape, on_device, dtype).cpu()
    assert torch.equal(uniform, reference.random_uniform(shape, rng, dtype))


@pytest.mark.parametrize("dtype", DTYPES[2:])
def test_half_uniforms_truncate_the_same_number(dtype) -> None:
    exact, half = rand((2, 4096), seed=1), rand((2, 4096), seed=1, dtype=dtype).float()
    step = torch.finfo(dtype).eps / 2
    assert torch.equal(half, torch.floor(exact / step) * step)
    assert half.max() < 1


@pytest.mark.emulated
@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (2, 0, 3)])
def test_empty(backend, shape) -> None:
    assert randn(shape, seed=1, device=backend.device).shape == torch.Size(shape)
    assert rand(shape, seed=1, device=backend.device).shape == torch.Size(shape)


# ---- what must not matter


@pytest.mark.parametrize("level", ["scalar", "avx2", "avx512"])
def test_simd_levels_agree(level) -> None:
    code = """
import hashlib, torch
from fastdiff_ops.ops.random import rand, randn
state = hashlib.sha256()
for draw in (randn, rand):
    for shape in ((3, 1000), (500, 7), (70, 66)):
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            state.update(draw(shape, seed=5, dtype=dtype).view(torch.uint8).numpy().tobytes())
result = state.hexdigest()
"""
    here: dict[str, str] = {}
    exec(code, here)
    assert in_new_process(f"{code}print(result)", FASTDIFF_OPS_SIMD=level) == here["result"]


@pytest.mark.parametrize("shape", [(1, 100_003), (30_000, 3)])
def test_threads_agree(shape) -> None:
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append((randn(shape, seed=3), rand(shape, seed=3)))
        for normal, uniform in results[1:]:
            assert torch.equal(normal, results[0][0])
            assert torch.equal(uniform, results[0][1])
    finally:
        torch.set_num_threads(before)


@pytest.mark.emulated
def test_a_sample_does_not_depend_on_its_batch(backend) -> None:
    device = backend.device
    batch = randn((6, 5, 3), seed=9, offset=4, device=device)
    order = [4, 0, 3]
    assert torch.equal(randn((3, 5, 3), seed=9, offset=4, sample_ids=order, device=device), batch[order])
    seeds = [11, 2**64 - 1, 11]
    each = randn((3, 300), seed=seeds, device=device)
    for row, seed in zip(each, seeds, strict=True):
        assert torch.equal(row[None], randn((1, 300), seed=seed, device=device))
    assert not torch.equal(each[0], randn((2, 300), seed=11, device=device)[1])


def test_shape_inside_a_sample_does_not_matter() -> None:
    assert torch.equal(randn((2, 3, 4, 5), seed=1).flatten(1), randn((2, 60), seed=1))


# ---- distribution

N = 1 << 20


def test_normal_distribution() -> None:
    """A mean off by 0.0044, a variance off by 0.0062 or, by KS, a probability off by 0.0022 would be seen."""
    x = randn((1, N), seed=2024).double().numpy()[0]
    assert abs(x.mean()) < 4.5 / N**0.5
    assert abs(x.var() - 1) < 4.5 * (2 / N) ** 0.5
    assert abs((x**3).mean()) < 4.5 * (15 / N) ** 0.5
    assert abs((x**4).mean() - 3) < 4.5 * (96 / N) ** 0.5
    assert scipy.stats.kstest(x, "norm").pvalue > 1e-4


def test_normal_tails() -> None:
    """Of 2^24 normals 1062.6 exceed 4 and 9.6 exceed 5 in magnitude; the largest possible one is 6.77."""
    x = randn((16, N), seed=7).abs()
    four, five = int((x > 4).sum()), int((x > 5).sum())
    assert abs(four - 1062.6) < 4.5 * 1062.6**0.5
    assert 0 < five < 26
    assert x.max() < 6.78


def test_normals_are_independent() -> None:
    """Correlations inside a block, of neighbours, samples, offsets and seeds, also of squares and
    magnitudes: a radius or an angle that Box-Muller used twice would show."""
    n = N // 4
    blocks = randn((1, N), seed=5).double().reshape(n, 4).numpy()
    others = [randn((2, n), seed=5), randn((1, n), seed=5, offset=1), randn((1, n), seed=6)]
    streams = torch.cat(others).double().numpy()
    assert np.abs(np.corrcoef(blocks[:-1, 3], blocks[1:, 0])[0, 1]) < 4.5 / n**0.5
    for columns in (blocks.T, streams):
        for values in (columns, columns**2, np.abs(columns)):
            correlation = np.corrcoef(values) - np.eye(4)
            assert np.abs(correlation).max() < 4.5 / n**0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_distribution(dtype) -> None:
    """Chi-square sees one of 128 cells off by 5 %; the mean allows for the truncation to the type's grid."""
    x = rand((1, N), seed=11, dtype=dtype).double().numpy()[0]
    assert x.min() >= 0
    assert x.max() < 1
    counts = np.bincount((x * 128).astype(np.int64), minlength=128)
    assert scipy.stats.chisquare(counts).pvalue > 1e-4
    bits = {torch.float16: 11, torch.bfloat16: 8}.get(dtype, 24)
    assert abs(x.mean() - (0.5 - 2.0**-bits / 2)) < 4.5 / (12 * N) ** 0.5
    if bits == 24:
        assert scipy.stats.kstest(x, "uniform").pvalue > 1e-4


def test_float64_uniforms_have_53_bits() -> None:
    k = rand((1, 4096), seed=1, dtype=torch.float64) * 2.0**53
    assert torch.equal(k, k.floor())
    low_bits = k.to(torch.int64) & 0x1FFFFF  # 21 bits of the second word
    assert abs(low_bits.double().mean() / 2**21 - 0.5) < 4.5 / (12 * 4096) ** 0.5


def test_normals_and_uniforms_are_different_streams() -> None:
    u, z = rand((1, N), seed=3).double().numpy()[0], randn((1, N), seed=3).double().numpy()[0]
    for values in (z, z**2):
        assert abs(np.corrcoef(u, values)[0, 1]) < 4.5 / N**0.5


# ---- seeds and states


def test_state_fork() -> None:
    state = PhiloxState(SEED, offset=9)
    children = [state.fork(k) for k in range(100)]
    assert len({child.seed for child in children}) == 100
    assert all(child.offset == 0 for child in children)
    assert state.fork(3) == PhiloxState(SEED).fork(3), "a fork does not depend on the offset"
    words = reference.philox4x32(
        [torch.tensor(w) for w in (15 << 28 | 3, 0, 0, 0)],
        [torch.tensor(SEED & 0xFFFFFFFF), torch.tensor(SEED >> 32)],
    )
    assert state.fork(3).seed == int(words[0]) | int(words[1]) << 32


def test_state_is_read_by_operators_and_advanced_by_its_user() -> None:
    state = PhiloxState(1, offset=5)
    assert torch.equal(randn((2, 3), seed=state, offset=2), randn((2, 3), seed=1, offset=7))
    assert state == PhiloxState(1, 5)
    state.advance(3)
    assert state == PhiloxState(1, 8)
    assert PhiloxState(-1).seed == 2**64 - 1


def test_resolve_seed() -> None:
    state = PhiloxState(4)
    assert resolve_seed(state) is state
    assert resolve_seed(np.int64(7)) == PhiloxState(7)
    torch.manual_seed(0)
    a, b = resolve_seed(), resolve_seed(None)
    assert a != b
    torch.manual_seed(0)
    assert resolve_seed() == a
    generator = torch.Generator().manual_seed(3)
    seeds = {resolve_seed(generator).seed for _ in range(64)}
    assert len(seeds) == 64
    assert max(seeds) >= 2**63, "all 64 bits are drawn"


def test_make_rng() -> None:
    assert make_rng(2**64 - 1, 3).tolist() == [-1, 3]
    assert make_rng(PhiloxState(5, 7), 2).tolist() == [5, 9]
    assert make_rng([1, 2]).tolist() == [[1, 0, 0], [2, 0, 0]]
    seeds, ids = torch.tensor([1, 2]), torch.tensor([8, 9])
    assert make_rng(seeds, 4, sample_ids=ids).tolist() == [[1, 4, 8], [2, 4, 9]]
    assert make_rng(torch.tensor(6)).tolist() == [6, 0]
    assert make_rng([], batch=0).shape == (0, 3)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: PhiloxState(2**64), ValueError, "`seed`"),
        (lambda: PhiloxState(1, 2**32), ValueError, "`offset`"),
        (lambda: PhiloxState(1, -1), ValueError, "`offset`"),
        (lambda: PhiloxState(1.5), TypeError, "`seed`"),
        (lambda: PhiloxState(True), TypeError, "`seed`"),
        (lambda: PhiloxState(1).fork(2**28), ValueError, "`k`"),
        (lambda: PhiloxState(1, 5).advance(2**32 - 5), ValueError, "`offset`"),
        (lambda: PhiloxState(1).advance(-1), ValueError, "`draws`"),
        (lambda: resolve_seed("7"), TypeError, "`seed`"),
        (lambda: resolve_seed(0.5), TypeError, "`seed`"),
        (lambda: make_rng(1, 2**32), ValueError, "`offset`"),
        (lambda: make_rng(PhiloxState(1, 2**31), 2**31), ValueError, "`offset`"),
        (lambda: make_rng("ab"), TypeError, "`seed`"),
        (lambda: make_rng(torch.ones(2)), ValueError, "`seed`"),
        (lambda: make_rng([1, 2], sample_ids=[1]), ValueError, "one length"),
        (lambda: make_rng([1, 2], batch=3), ValueError, "each sample"),
        (lambda: make_rng(1, sample_ids=[2**32]), ValueError, "`sample_ids`"),
        (lambda: make_rng(1, sample_ids=[-1]), ValueError, "`sample_ids`"),
        (lambda: randn((), seed=1), ValueError, "`shape`"),
        (lambda: randn((2, -1), seed=1), ValueError, "`shape`"),
        (lambda: randn(5, seed=1), TypeError, "`shape`"),
        (lambda: randn((2,), seed=1, dtype=torch.int32), TypeError, "`dtype`"),
        (lambda: rand((2,), seed=[1, 2, 3]), ValueError, "each sample"),
    ],
)
def test_errors(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()


@pytest.mark.emulated
def test_raw_operator_checks_what_could_corrupt_memory(backend) -> None:
    op, device = torch.ops.fastdiff_ops.random_normal, backend.device
    rng = make_rng(1, device=device)
    for size, state, dtype in [
        ((), rng, torch.float32),
        ((2, -1), rng, torch.float32),
        ((2,), rng, torch.int32),
        ((2,), rng.double(), torch.float32),
        ((2,), rng[:1], torch.float32),
        ((2,), make_rng([1, 2, 3], device=device), torch.float32),
        ((2,), torch.zeros(2, 2, dtype=torch.int64, device=device), torch.float32),
    ]:
        with pytest.raises(RuntimeError):
            op(size, state, dtype)


@pytest.mark.parametrize("rng", [[1, 2**32], [1, -1]])
def test_offset_out_of_range_on_cpu(rng) -> None:
    with pytest.raises(ValueError, match="offset"):
        torch.ops.fastdiff_ops.random_normal((2,), torch.tensor(rng), torch.float32)


# ---- torch citizenship


@pytest.mark.parametrize("op", ["random_normal", "random_uniform"])
def test_opcheck(op) -> None:
    operator = getattr(torch.ops.fastdiff_ops, op).default
    for rng in (make_rng(1), make_rng([1, 2, 3])):
        torch.library.opcheck(operator, ((3, 5), rng, torch.float16))


def test_compiles_without_recompiling_for_seeds() -> None:
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph

    @torch.compile(backend=backend, fullgraph=True)
    def noisy(x, rng):
        return x + torch.ops.fastdiff_ops.random_normal(x.shape, rng, x.dtype)

    x = torch.ones(2, 7)
    for seed in range(4):
        assert torch.equal(noisy(x, make_rng(seed, seed)), x + randn((2, 7), seed=seed, offset=seed))
    assert len(graphs) == 1


def test_reference_can_be_asked_for() -> None:
    code = """
import torch
from fastdiff_ops.ops.random import make_rng, rand, randn
from fastdiff_ops.reference.random import random_normal, random_uniform
normal, uniform = randn((3, 500), seed=1), rand((3, 500), seed=1)
print(torch.equal(normal, random_normal((3, 500), make_rng(1), torch.float32)))
print(torch.equal(uniform, random_uniform((3, 500), make_rng(1), torch.float32)))
"""
    assert in_new_process(code, FASTDIFF_OPS_REFERENCE="1").split() == ["True", "True"]
    assert in_new_process(code, FASTDIFF_OPS_REFERENCE="0").split() == ["False", "True"]
