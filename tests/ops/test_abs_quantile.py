"""abs_quantile: torch.quantile where that works, sorting where it does not, on every backend and path."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch
from fastdiff_ops._coefficients import C_O, C_X, N_COEF
from fastdiff_ops.ops.quantile import abs_quantile
from fastdiff_ops.ops.random import randn
from fastdiff_ops.reference.quantile import abs_quantile as reference

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
QUANTILES = (0.0, 0.25, 0.5, 0.9, 0.995, 1.0)
# One block, more than one, the sampled path on a CPU (> 1024), many blocks a sample on CUDA (> 2^15).
SIZES = (1, 2, 3, 1000, 1025, 40_001)


def table(c_x=1.0, c_o=0.0, steps=1, samples=1, device="cpu") -> torch.Tensor:
    coef = torch.zeros(steps, samples, N_COEF, dtype=torch.float64, device=device)
    coef[..., C_X], coef[..., C_O] = c_x, c_o
    return coef


def at(step=0, device="cpu") -> torch.Tensor:
    return torch.tensor(step, device=device)


def sorted_quantile(x, q, device, floor=0.0, cap=math.inf):
    return reference(x, [], table(), at(), None, q, floor, cap).to(device)


def ulps(a: torch.Tensor, b: torch.Tensor) -> int:
    kind = torch.int64 if a.dtype == torch.float64 else torch.int32
    return int((a.cpu().view(kind) - b.cpu().view(kind)).abs().max())


# ---- the number itself


@pytest.mark.parametrize("n", [1, 2, 3, 1000, 65537])
@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_equals_torch_quantile(n, dtype) -> None:
    x = randn((4, n), seed=n, dtype=dtype) * torch.tensor([[1.0], [1e-3], [1e4], [1e-38]])
    for q in QUANTILES:
        assert ulps(abs_quantile(x, q=q, floor=0), torch.quantile(x.abs(), q, dim=1)) <= 1


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_equals_sorting(backend, n, dtype) -> None:
    x = randn((2, n), seed=n, dtype=dtype)
    for q in (0.0, 0.3, 0.995, 1.0):
        got = abs_quantile(x.to(backend.device), q=q, floor=0)
        assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert torch.equal(got, sorted_quantile(x, q, backend.device)), q


def hard_cases(n: int) -> dict[str, torch.Tensor]:
    z = randn((1, n), seed=1)[0]
    few = torch.where(torch.arange(n) % 7 == 0, 1.0, -2.0)
    huge = z.clone()
    huge[: n // 2] = math.inf
    return {
        "zeros": torch.zeros(n),
        "one value": torch.full((n,), -3.0),
        "two values": few,
        "ties": (z * 4).round() / 4,
        "clipped": z.clamp(-1, 1),
        "sorted": z.sort().values,
        "denormals": z * 1e-39,
        "wide range": torch.exp2(z * 40),
        "half infinite": huge,
        "all infinite": torch.full((n,), -math.inf),
        "outlier": torch.where(torch.arange(n) == n // 2, 1e30, 1.0),
        "periodic": (torch.arange(n) % 33 == 0).float(),
        "neighbours": torch.arange(0x3F800000, 0x3F800000 + n, dtype=torch.int32).view(torch.float32),
    }


@pytest.mark.emulated
@pytest.mark.parametrize("case", hard_cases(8))
@pytest.mark.parametrize("n", [5000, 33_000])
def test_hard_distributions(backend, case, n) -> None:
    x = hard_cases(n)[case][None]
    for kind in (torch.float32, torch.float64):
        y = x.to(kind)
        for q in (0.0, 0.5, 6 / 7, 0.995, 1.0):
            got = abs_quantile(y.to(backend.device), q=q, floor=0)
            assert torch.equal(got, sorted_quantile(y, q, backend.device)), (kind, q)


@pytest.mark.parametrize("case", hard_cases(8))
def test_hard_distributions_in_large_samples(case) -> None:
    """Past the grain of a thread, every pass and its merging."""
    x = hard_cases(300_000)[case][None]
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            for q in (0.0, 0.4, 0.5, 0.995, 1.0):
                assert torch.equal(abs_quantile(x, q=q, floor=0), sorted_quantile(x, q, "cpu")), (q, threads)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 3])
def test_parts_of_a_large_sample_are_merged(threads) -> None:
    """Rank k is the last of many ones, rank k + 1 the smallest of values spread over every thread's part."""
    n, spread = 300_000, 3000
    larger = torch.arange(spread) + 2.0
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for values in (larger, larger.flip(0)):
            x = torch.ones(1, n)
            x[0, :: n // spread] = values
            q = (n - spread - 0.5) / (n - 1)
            assert 1 < abs_quantile(x, q=q, floor=0).item() < 2
            assert torch.equal(abs_quantile(x, q=q, floor=0), sorted_quantile(x, q, "cpu"))
            for place in (0, n // 2, n - 1):
                broken = x.clone()
                broken[0, place] = math.nan
                with pytest.raises(ValueError, match="sample 0 holds NaN"):
                    abs_quantile(broken, q=q)
    finally:
        torch.set_num_threads(before)


def test_more_elements_than_torch_quantile_takes() -> None:
    """0 .. 2^24 - 1 permuted, then 0, 1, 2 again: rank k >= 6 holds k - 3; float32 ranks would miss it."""
    n = 2**24 + 3
    x = ((torch.arange(n) * 0x9E3779B1) % 2**24).to(torch.float32)
    x[2**24 :] = torch.arange(3.0)
    for q in (0.1, 0.5, 0.995):
        rank = q * (n - 1)
        below = math.floor(rank)
        want = torch.tensor([below - 3 + (rank - below)], dtype=torch.float64).float()
        assert ulps(abs_quantile(x[None], q=q, floor=0), want) <= 1
    assert abs_quantile(x[None], q=1.0).item() == 2**24 - 1


@pytest.mark.emulated
def test_floor_and_cap(backend) -> None:
    x = torch.tensor([[0.5, 0.25], [3.0, 1.0], [20.0, 2.0]], device=backend.device)
    assert abs_quantile(x, q=1.0).tolist() == [1.0, 3.0, 20.0]
    assert abs_quantile(x, q=1.0, floor=0, cap=10).tolist() == [0.5, 3.0, 10.0]
    assert abs_quantile(x, q=1.0, floor=2, cap=2).tolist() == [2.0, 2.0, 2.0]


# ---- what it is the quantile of


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("branches", [1, 2, 4])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("n", [37, 1032])
def test_converted_guided_output(backend, dtype, branches, per_sample, n) -> None:
    batch, steps = 3, 2
    x = randn((batch, n), seed=1, dtype=dtype)
    model_type = torch.bfloat16 if dtype == torch.float32 else dtype
    outs = [randn((batch, n), seed=2 + k, dtype=model_type) for k in range(branches)]
    samples = batch if per_sample else 1
    values = randn((steps, samples, 2), seed=30, dtype=torch.float64)
    coef = table(values[..., 0], values[..., 1], steps, samples)
    weights = randn((steps, 2, samples, branches), seed=40, dtype=torch.float64)
    weights[1, 0, -1, 0] = 0  # a zero weight skips its tensor
    for step in range(steps):
        arguments = [coef, at(step), weights, 0.7, 0.0, math.inf]
        want = reference(x, outs, *arguments)
        moved = [v.to(backend.device) if isinstance(v, torch.Tensor) else v for v in arguments]
        got = torch.ops.fastdiff_ops.abs_quantile(
            x.to(backend.device), [o.to(backend.device) for o in outs], *moved
        )
        eps = torch.finfo(got.dtype).eps
        torch.testing.assert_close(got.cpu(), want, rtol=20 * eps, atol=20 * eps)
        first_row = torch.ops.fastdiff_ops.abs_quantile(
            x.to(backend.device),
            [o.to(backend.device) for o in outs],
            moved[0][step : step + 1],
            at(0, backend.device),
            moved[2][step : step + 1],
            *moved[3:],
        )
        assert torch.equal(got, first_row), "the row is read from the table by the step tensor"


@pytest.mark.emulated
def test_same_bits_on_every_backend(backend) -> None:
    """A frozen result of fused arithmetic: fma, first a product, float32 coefficients."""
    x, out = randn((2, 777), seed=1), randn((2, 777), seed=2)
    lin = torch.tensor([[0.3, -1.7], [1 / 3, 0.1]], dtype=torch.float64)
    got = abs_quantile(x.to(backend.device), [out.to(backend.device)], lin=lin.to(backend.device), floor=0)
    assert [v.hex() for v in got.tolist()] == ["0x1.3e8abc0000000p+2", "0x1.e30fd60000000p-1"]


@pytest.mark.emulated
def test_zero_coefficients_skip_their_tensor(backend) -> None:
    x, out = torch.ones(1, 9, device=backend.device), torch.full((1, 9), 2.0, device=backend.device)
    bad = torch.full((1, 9), math.nan, device=backend.device)
    assert abs_quantile(x, [bad], lin=(3.0, 0.0)).item() == 3
    assert abs_quantile(bad, [out], lin=(0.0, 3.0)).item() == 6
    weights = torch.tensor([[[[2.0, 0.0]], [[0.0, 0.0]]]], dtype=torch.float64, device=backend.device)
    assert abs_quantile(x, [out, bad], lin=(1.0, 1.0), weights=weights).item() == 5
    assert abs_quantile(bad, [bad], lin=(0.0, 0.0), floor=0).item() == 0


@pytest.mark.emulated
@pytest.mark.parametrize("n", [5, 2000, 33_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_nan(backend, n, dtype) -> None:
    x = randn((3, n), seed=1, dtype=dtype).to(backend.device)
    x[1, n // 2] = -math.nan
    if backend.name == "cpu":
        with pytest.raises(ValueError, match="sample 1 holds NaN"):
            abs_quantile(x)
    else:
        assert abs_quantile(x).isnan().tolist() == [False, True, False]


@pytest.mark.emulated
def test_memory_layouts(backend) -> None:
    x = randn((2, 3, 8, 4), seed=1).to(backend.device)
    out = randn((2, 3, 8, 4), seed=2).to(backend.device)
    want = abs_quantile(x, [out], lin=(0.5, 2.0), q=0.8)

    def strided(t):
        wide = torch.full((4, 3, 16, 8), math.nan, device=t.device)
        wide[::2, :, ::2, ::2] = t
        return wide[::2, :, ::2, ::2]

    orders = [
        lambda t: t.contiguous(memory_format=torch.channels_last),
        lambda t: t.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        strided,
        lambda t: torch.cat([t[:1], t])[1:],  # starts off a 16-byte boundary or not: a view
        lambda t: torch.nn.functional.pad(t.flatten(), (1, 0))[1:].view(t.shape),
    ]
    for order_x in orders:
        for order_out in orders:
            got = abs_quantile(order_x(x), [order_out(out)], lin=(0.5, 2.0), q=0.8)
            assert torch.equal(got, want)


@pytest.mark.emulated
def test_shapes(backend) -> None:
    device = backend.device
    assert abs_quantile(torch.empty(0, 4, device=device)).shape == (0,)
    assert abs_quantile(torch.tensor([-3.0, 2.0], device=device)).tolist() == [3.0, 2.0]
    many = randn((700, 5), seed=1)
    got = abs_quantile(many.to(device), q=0.6, floor=0)
    assert torch.equal(got, sorted_quantile(many, 0.6, device))


# ---- torch citizenship


@pytest.mark.emulated
def test_launches(backend, count_launches) -> None:
    if backend.name != "emulated":
        pytest.skip("counted by the emulation")
    small, large = randn((2, 100), seed=1), randn((1, 33_000), seed=1)
    assert count_launches(lambda: abs_quantile(small)) == 1
    assert count_launches(lambda: abs_quantile(large)) == 4
    assert count_launches(lambda: abs_quantile(large.double())) == 7


def test_opcheck() -> None:
    x, outs = randn((3, 50), seed=1), [randn((3, 50), seed=2), randn((3, 50), seed=3)]
    weights = torch.ones(1, 2, 1, 2, dtype=torch.float64)
    op = torch.ops.fastdiff_ops.abs_quantile.default
    torch.library.opcheck(op, (x, outs, table(1, 1), at(), weights, 0.9, 0.0, 5.0))
    torch.library.opcheck(op, (x.double(), [], table(), at(), None, 0.9, 0.0, 5.0))


def test_compiles_without_recompiling_for_coefficients() -> None:
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph

    @torch.compile(backend=backend, fullgraph=True)
    def scale(x, coef, step):
        return abs_quantile(x, [x], coef, step, q=0.9, floor=0.0)

    x, coef = randn((2, 99), seed=1), table(torch.tensor([[1.0], [2.0], [3.0]]), 0.5, steps=3)
    for step in range(3):
        want = abs_quantile(x, [x], lin=(step + 1, 0.5), q=0.9, floor=0)
        assert torch.equal(scale(x, coef, at(step)), want)
    assert len(graphs) == 1


@pytest.mark.parametrize("level", ["scalar", "avx2", "avx512"])
def test_simd_levels_agree(level) -> None:
    code = """
import torch
from fastdiff_ops.ops.quantile import abs_quantile
from fastdiff_ops.ops.random import randn
result = []
for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
    for n in (7, 1000, 70_000):
        x, out = randn((2, n), seed=n, dtype=dtype), randn((2, n), seed=1, dtype=dtype)
        result += [v.hex() for v in abs_quantile(x, [out], lin=(0.3, -1.7), q=0.97, floor=0).tolist()]
"""
    here: dict[str, list[str]] = {}
    exec(code, here)
    run = [sys.executable, "-c", f"{code}print(*result)"]
    environment = {**os.environ, "FASTDIFF_OPS_SIMD": level}
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == here["result"]


# ---- errors

X = torch.ones(2, 3)
W2 = torch.ones(1, 2, 1, 2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: abs_quantile([1.0]), TypeError, "`x` must be a Tensor"),
        (lambda: abs_quantile(X.int()), TypeError, "`x` must be torch.float16 or"),
        (lambda: abs_quantile(torch.tensor(1.0)), ValueError, "0-d"),
        (lambda: abs_quantile(torch.empty(2, 0)), ValueError, "at least one element"),
        (lambda: abs_quantile(X, q=1.1), ValueError, "`q` must be in"),
        (lambda: abs_quantile(X, q=math.nan), ValueError, "`q` must be in"),
        (lambda: abs_quantile(X, floor=2, cap=1), ValueError, "`floor` must not"),
        (lambda: abs_quantile(X, floor=math.nan), ValueError, "`floor` must not"),
        (lambda: abs_quantile(X, X), TypeError, "`outs` must be a list"),
        (lambda: abs_quantile(X, [X] * 5), ValueError, "at most 4"),
        (lambda: abs_quantile(X, [X]), ValueError, "how `x` and `outs` combine"),
        (lambda: abs_quantile(X, [X[:1]], lin=(1, 1)), ValueError, r"`outs\[0\]` must have shape"),
        (lambda: abs_quantile(X, [X.to("meta")], lin=(1, 1)), ValueError, r"`outs\[0\]` must be on the"),
        (lambda: abs_quantile(X, [X, X.half()], lin=(1, 1), weights=W2), TypeError, r"`outs\[1\]` must be"),
        (lambda: abs_quantile(X, [X, X], lin=(1, 1)), ValueError, "`weights` must be given"),
        (lambda: abs_quantile(X, [X], lin=(1, 1), weights=W2), ValueError, "`weights` must have shape"),
        (lambda: abs_quantile(X, [X], lin=(1, 1, 1)), ValueError, "`lin` must have shape"),
        (lambda: abs_quantile(X, coef=table()), ValueError, "go together"),
        (lambda: abs_quantile(X, coef=table(), step=at(), lin=(1, 1)), ValueError, "not both"),
        (lambda: abs_quantile(X, coef=table()[0], step=at()), ValueError, "`coef` must have shape"),
        (lambda: abs_quantile(X, coef=table(samples=3), step=at()), ValueError, "`coef` must have shape"),
        (lambda: abs_quantile(X, coef=table(), step=at()[None]), ValueError, "0-d"),
        (lambda: abs_quantile(X, coef=table(), step=at().int()), TypeError, "`step` must be torch.int64"),
        (lambda: abs_quantile(X, coef=table(), step=at(1)), ValueError, r"`step` must be in \[0, 1\)"),
        (lambda: abs_quantile(X, coef=table(), step=at(-1)), ValueError, "`step` must be in"),
    ],
)
def test_errors(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()


@pytest.mark.emulated
def test_raw_operator_checks_what_could_corrupt_memory(backend) -> None:
    x = X.to(backend.device)
    good = {
        "outs": [],
        "coef": table(device=backend.device),
        "step": at(device=backend.device),
        "weights": None,
    }
    for bad in (
        {"outs": [x[:1]]},
        {"outs": [x] * 5},
        {"outs": [x, x]},
        {"coef": good["coef"].float()},
        {"coef": table(samples=3, device=backend.device)},
        {"step": at().int()},
        {"step": torch.zeros(2, dtype=torch.int64, device=backend.device)},
        {"outs": [x], "weights": W2.to(backend.device)},
    ):
        with pytest.raises(RuntimeError):
            torch.ops.fastdiff_ops.abs_quantile(x, **{**good, **bad}, q=0.5, floor=0.0, cap=1.0)


@pytest.mark.emulated
def test_a_step_outside_the_table_is_seen(backend) -> None:
    arguments = (table(device=backend.device), at(7, backend.device), None, 0.5, 0.0, 9.0)
    if backend.name == "cpu":
        with pytest.raises(ValueError, match="`step`"):
            torch.ops.fastdiff_ops.abs_quantile(X, [], *arguments)
    else:
        assert torch.ops.fastdiff_ops.abs_quantile(X.to(backend.device), [], *arguments).isnan().all()
