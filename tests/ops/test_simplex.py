"""Both encodings against the plain reference: every dimension, features, types, bounds, levels, shapes."""

from __future__ import annotations

import math

import hypothesis
import pytest
import torch
from fastdiff_ops import ops
from hypothesis import strategies as st
from ops.encode_cases import (
    BF16,
    F16,
    F32,
    F64,
    LATTICES,
    LEVELS,
    SUFFIXES,
    WRAPPERS,
    check_close,
    some_call,
    some_levels,
)

pytestmark = pytest.mark.parametrize("lattice", LATTICES)


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("n", range(1, 9))
def test_reference(backend, lattice, n, dtype):
    """All five operators; in float32 cells are found as in the reference, so only sums round differently."""
    bounds = (n + (dtype == F64)) % 2
    features = (1, 2, 4, 8)[(n // 2 + bounds) % 4]
    call = some_call(lattice, n, dtype=dtype, features=features, bounds=bounds, device=backend.device)
    for suffix in SUFFIXES:
        check_close(call.run(suffix), call.reference(suffix), 1e-13 if dtype == F64 else 4e-6)


@pytest.mark.emulated
@pytest.mark.parametrize("table_dtype", [F16, BF16, F32], ids=str)
@pytest.mark.parametrize("features", [1, 2, 4, 8])
def test_types_of_tables(backend, lattice, features, table_dtype):
    """Entries are widened exactly, sums are float32, results are rounded once."""
    call = some_call(lattice, 3, dtype=F32, table_dtype=table_dtype, features=features, device=backend.device)
    wide = call._replace(table=call.table.float(), grad=call.grad.float())
    for suffix in ("", "_jvp"):
        assert torch.equal(call.run(suffix, F32), wide.run(suffix))
        assert torch.equal(call.run(suffix), wide.run(suffix).to(table_dtype))
    for suffix in ("_vjp_x", "_vjp_table", "_vjp_table_u"):
        result = call.run(suffix)
        assert result.dtype == F32 and torch.equal(result, wide.run(suffix))


@pytest.mark.emulated
@pytest.mark.parametrize(("x_dtype", "table_dtype"), [(F32, F64), (F64, F32), (F64, F16)], ids=str)
def test_float64_where_a_tensor_is(backend, lattice, x_dtype, table_dtype):
    call = some_call(lattice, 2, dtype=x_dtype, table_dtype=table_dtype, device=backend.device)
    for suffix in SUFFIXES:
        got, wanted = call.run(suffix), call.reference(suffix)
        check_close(got, wanted, {F64: 1e-13, F32: 1.2e-7, F16: 1e-3}[got.dtype])
    assert call.run().dtype == table_dtype and call.run("_vjp_x").dtype == x_dtype
    precise = call._replace(x=call.x.double(), table=call.table.double())
    check_close(call.run("", F64), precise.run(), 1e-14)  # sums were float64: only the result was rounded


@pytest.mark.emulated
@pytest.mark.parametrize("points", [0, 1, 16, 33])
def test_numbers_of_points(backend, lattice, points):
    call = some_call(lattice, 3, dtype=F32, points=points, device=backend.device)
    for suffix in SUFFIXES:
        check_close(call.run(suffix), call.reference(suffix), 4e-6)


def test_blocks_of_points_are_the_same(lattice):
    """A point's features do not depend on the batch; more points than any block holds."""
    call = some_call(lattice, 2, dtype=F32, points=9001)
    features, slopes = call.run(), call.run("_vjp_x")
    check_close(features, call.reference(), 4e-6)
    for first, last in ((0, 1), (4090, 4100), (8999, 9001)):
        part = call._replace(x=call.x[first:last], grad=call.grad[first:last])
        assert torch.equal(part.run(), features[first:last])
        assert torch.equal(part.run("_vjp_x"), slopes[first:last])


@pytest.mark.emulated
@pytest.mark.parametrize("max_level", [0, 1, 2, 3])
def test_levels_in_use(backend, lattice, max_level):
    """Levels from max_level on are 0 and get nothing, in every operator alike."""
    full = some_call(lattice, 3, device=backend.device)
    call = full._replace(switches=(0, max_level, False))
    width, used = max_level * 2, full.levels.offsets[max_level]
    for suffix in ("", "_jvp"):
        assert torch.equal(call.run(suffix)[:, :width], full.run(suffix)[:, :width])
        assert (call.run(suffix)[:, width:] == 0).all()
    for suffix in ("_vjp_table", "_vjp_table_u"):
        assert torch.equal(call.run(suffix)[:used], full.run(suffix)[:used])
        assert (call.run(suffix)[used:] == 0).all()
    cut = full.grad.clone()
    cut[:, width:] = 0
    check_close(call.run("_vjp_x"), full._replace(grad=cut).run("_vjp_x"), 1e-14)


@pytest.mark.emulated
def test_any_strides(backend, lattice):
    call = some_call(lattice, 3, dtype=F32, device=backend.device)
    strided = {
        name: torch.stack([getattr(call, name)] * 2, -1).transpose(0, 1)[..., 1].t()
        for name in ("x", "table", "grad", "u")
    }
    assert not any(t.is_contiguous() for t in strided.values())
    for suffix in SUFFIXES:
        result = call._replace(**strided).run(suffix)
        assert result.is_contiguous() and torch.equal(result, call.run(suffix))


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("bad", "dtype", "bounds"),
    [(math.nan, F32, 0), (math.inf, F32, 1), (-math.inf, F64, 0), (math.nan, F64, 1)],
)
def test_points_that_are_not_finite(backend, lattice, bad, dtype, bounds):
    """Their rows are NaN, other rows untouched, and the table learns nothing from them."""
    call = some_call(lattice, 3, dtype=dtype, bounds=bounds, points=20, device=backend.device)
    x = call.x.clone()
    rows = [0, 3, 17, 19]
    for axis, row in enumerate(rows):
        x[row, axis % 3] = bad
    others = torch.ones(20, dtype=torch.bool)
    others[rows] = False
    broken = call._replace(x=x)
    for suffix in ("", "_jvp", "_vjp_x"):
        result = broken.run(suffix)
        assert result[rows].isnan().all()
        assert torch.equal(result[others], call.run(suffix)[others])
        check_close(result, broken.reference(suffix), 4e-6)
    clean = call._replace(x=x[others], grad=call.grad[others], u=call.u[others])
    for suffix in ("_vjp_table", "_vjp_table_u"):
        check_close(broken.run(suffix), clean.run(suffix), 1e-6)
        check_close(broken.reference(suffix), clean.reference(suffix), 1e-6)


def test_far_away(lattice):
    """Where a cell's number has no room the result is NaN; before that it is right."""
    call = some_call(lattice, 2, bounds=1)
    call = call._replace(x=torch.cat([call.x * 1e5, call.x * 1e30]))
    result = call.run()
    assert result[:37].isfinite().all() and result[37:].isnan().all()
    check_close(result, call.reference(), 1e-9)


@pytest.mark.emulated
def test_clamping(backend, lattice):
    """Outside of the cube: the value on its boundary, and slope 0 along the axes that are outside."""
    levels = some_levels(lattice, 3)
    call = some_call(lattice, 3, device=backend.device)
    outside = torch.tensor([[-0.3, 0.4, 0.7], [1.5, 0.2, -9.0], [0.3, 1.0, 0.0]], dtype=F64)
    call = call._replace(x=outside.to(backend.device), grad=call.grad[:3], u=call.u[:3])
    moved = call._replace(x=call.x.clamp(0, 1))
    assert torch.equal(call.run(), moved.run())
    inside = ((call.x >= 0) & (call.x <= 1)).to(F64)
    assert inside.sum() == 6  # exactly on the boundary a gradient passes
    assert torch.equal(call.run("_vjp_x"), moved.run("_vjp_x") * inside)
    assert torch.equal(call.run("_jvp"), moved._replace(u=call.u * inside).run("_jvp"))
    assert levels.dense[0]


@pytest.mark.parametrize("bounds", ["clamp", "extend"])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_no_jumps(lattice, n, bounds):
    """On a segment from outside to outside no step is larger than the slope allows: no cell is left out."""
    levels = some_levels(lattice, n)
    generator = torch.Generator().manual_seed(n)
    table = torch.randn(levels.n_entries, 2, generator=generator, dtype=F64)
    start, end = torch.rand(2, n, generator=generator, dtype=F64) * 0.5 + torch.tensor([[-3.0], [3.5]])
    steps = 20000
    x = start + (end - start) * torch.linspace(0, 1, steps + 1, dtype=F64)[:, None]
    values = WRAPPERS[lattice](x, table, levels, bounds=bounds)
    # a weight's slope along u is at most 2 s (|u|_inf + F |u|_1) on a simplex, s |u|_1 on a cube
    u = (end - start).abs()
    reach = u.sum() if lattice == "grid" else 2 * (u.max() + (math.sqrt(n + 1) - 1) / n * u.sum())
    largest = levels.scales[-1] * reach * table.abs().max() * (2 if lattice == "grid" else n + 1) / steps
    assert values.diff(dim=0).abs().max() < largest
    assert values.std() > 0.1
    # the mean slope is far below the bound, a jump of a feature's size (1) above it
    assert largest < 0.5


@pytest.mark.parametrize("n", [1, 2, 3])
def test_dense_levels_repeat_outside(lattice, n):
    """Their numbering is a homomorphism, so the extension is periodic: a vertex is like its class."""
    levels = LEVELS[lattice](n, 1, log2_hashmap_size=16, base_resolution=4)
    table = torch.arange(levels.n_entries, dtype=F64)[:, None]
    a, k = levels.a[0], levels.K[0]
    x = torch.rand(50, n, generator=torch.Generator().manual_seed(0), dtype=F64)
    if lattice == "simplex":  # the skewed period is B = a I + k 11^T; in x it is U B / s
        g = (1 - 1 / math.sqrt(n + 1)) / n
        unskew = torch.eye(n, dtype=F64) - g
        period = unskew @ (a * torch.eye(n, dtype=F64) + k) / levels.scales[0]
    else:
        period = torch.eye(n, dtype=F64) * a / levels.scales[0]
    for m in (torch.eye(n, dtype=F64)[0], torch.full((n,), -3.0, dtype=F64)):
        moved = x + period @ m
        encode = WRAPPERS[lattice]
        values = [encode(at, table, levels, bounds="extend") for at in (x, moved)]
        torch.testing.assert_close(*values, rtol=1e-11, atol=1e-9)


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(data=st.data())
def test_any_configuration(lattice, data):
    n = data.draw(st.integers(1, 8))
    options = {
        "log2_hashmap_size": data.draw(st.integers(1, 12)),
        "base_resolution": data.draw(st.integers(2, 40)),
        "per_level_scale": data.draw(st.floats(0.8, 2.5)),
        "level_shift": data.draw(st.sampled_from(["none", "quasi"])),
    }
    if lattice == "simplex":
        options["resolution_mode"] = data.draw(st.sampled_from(["axis", "density"]))
    elif options["level_shift"] == "none":
        options["convention"] = data.draw(st.sampled_from(["plain", "tiny-cuda-nn"]))
    levels = LEVELS[lattice](n, data.draw(st.integers(1, 5)), **options)
    dtype = data.draw(st.sampled_from([F32, F64]))
    call = some_call(
        lattice,
        n,
        points=data.draw(st.integers(0, 40)),
        features=data.draw(st.sampled_from([1, 2, 4, 8])),
        dtype=dtype,
        bounds=data.draw(st.integers(0, 1)),
        max_level=data.draw(st.integers(0, levels.n_levels)),
        seed=data.draw(st.integers(0, 99)),
        levels=levels,
    )
    for suffix in SUFFIXES:
        check_close(call.run(suffix), call.reference(suffix), 1e-12 if dtype == F64 else 2e-5)


def test_wrapper_is_the_operator(lattice):
    call = some_call(lattice, 3, dtype=F32, max_level=2, bounds=1)
    result = WRAPPERS[lattice](call.x, call.table, call.levels, bounds="extend", max_level=2, out_dtype=F64)
    assert torch.equal(result, call.run("", F64))


def test_autocast(lattice):
    """The table is read as it is; only the result takes autocast's type, unless one is asked for."""
    call, encode = some_call(lattice, 3, dtype=F32), WRAPPERS[lattice]
    with torch.autocast("cpu", dtype=BF16):
        assert torch.equal(encode(call.x, call.table, call.levels), call.run("", BF16))
        assert encode(call.x, call.table, call.levels, out_dtype=F32).dtype == F32
        assert encode(call.x.double(), call.table.double(), call.levels).dtype == F64
    table = call.table.requires_grad_()
    with torch.autocast("cpu", dtype=BF16):
        encode(call.x, table, call.levels).sum().backward()
    assert table.grad.dtype == F32 and table.grad.abs().sum() > 0


def test_levels_are_values(lattice):
    a, b = (some_levels(lattice, 3) for _ in range(2))
    assert a == b and hash(a) == hash(b) and a != some_levels(lattice, 4)
    assert len(a.offsets) == 4 and a.offsets[-1] == a.n_entries == sum(a.sizes)
    assert all(size % 8 == 0 for size in a.sizes)
    assert "scales" not in repr(a) and isinstance(a, (ops.SimplexLevels, ops.GridLevels))
