"""Derivatives of both encodings: finite differences, torch's own gradients, adjoints, every order."""

from __future__ import annotations

import pytest
import torch
from ops.encode_cases import (
    BF16,
    F16,
    F32,
    F64,
    LATTICES,
    REFERENCES,
    WRAPPERS,
    Call,
    check_close,
    some_call,
    some_levels,
)
from torch.autograd import grad, gradcheck, gradgradcheck

pytestmark = pytest.mark.parametrize("lattice", LATTICES)


def small(lattice: str, n: int, *, bounds: str = "clamp", points: int = 4):
    """Return a function of (x, table) and arguments for it, far enough from every face."""
    levels = some_levels(lattice, n, 2, log2_hashmap_size=6, base_resolution=2)
    generator = torch.Generator().manual_seed(n)
    table = torch.randn(levels.n_entries, 2, generator=generator, dtype=F64)
    found: list[torch.Tensor] = []
    switches = (int(bounds == "extend"), 2, True)
    while len(found) < points:
        x = torch.rand(1, n, generator=generator, dtype=F64) * 1.4 - 0.2
        near = x + 1e-4 * (2 * torch.rand(20, n, generator=generator, dtype=F64) - 1)
        at = torch.cat([x, near])
        slopes = Call(lattice, levels, at, table, torch.ones(21, 4, dtype=F64), at, switches).run("_vjp_x")
        inside = (x * (1 - x)).abs().min() > 1e-3
        if inside and (lattice == "grid" or torch.equal(slopes, slopes[:1].expand(21, n))):
            found.append(x)
    x = torch.cat(found).requires_grad_()
    return (lambda x, table: WRAPPERS[lattice](x, table, levels, bounds=bounds)), (x, table.requires_grad_())


@pytest.mark.parametrize("bounds", ["clamp", "extend"])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_first_and_second_order(lattice, n, bounds):
    function, inputs = small(lattice, n, bounds=bounds)
    assert gradcheck(function, inputs, eps=1e-7, atol=1e-5, fast_mode=True)
    assert gradgradcheck(function, inputs, eps=1e-7, atol=1e-5, fast_mode=True)


@pytest.mark.emulated
def test_second_order_on_all_backends(backend, lattice):
    function, inputs = small(lattice, 2, points=2)
    inputs = tuple(t.detach().to(backend.device).requires_grad_() for t in inputs)
    assert gradcheck(function, inputs, eps=1e-7, atol=1e-5, fast_mode=True)
    assert gradgradcheck(function, inputs, eps=1e-7, atol=1e-5, fast_mode=True)


@pytest.mark.parametrize("n", [1, 3])
def test_third_order(lattice, n):
    """Second derivatives of a function of the features, differentiated once more."""
    function, inputs = small(lattice, n)

    def curvature(x, table):
        (slope,) = grad(function(x, table).pow(3).sum(), x, create_graph=True)
        return grad(slope.pow(2).sum(), (x, table), create_graph=True)

    assert gradcheck(curvature, inputs, eps=1e-7, atol=1e-4, rtol=1e-3, fast_mode=True)


@pytest.mark.emulated
@pytest.mark.parametrize(("n", "bounds"), [(1, 0), (2, 1), (3, 0), (5, 1), (8, 0)])
def test_adjoints(backend, lattice, n, bounds):
    """<J u, g> = <u, V g> = <T, S'(u, g)> and <E, g> = <T, S g>: the five operators belong together."""
    call = some_call(lattice, n, bounds=bounds, points=70, max_level=2, device=backend.device)
    scale = call.run("_jvp").abs().sum() * call.grad.abs().max()
    along = (call.run("_jvp") * call.grad).sum()
    assert (along - (call.run("_vjp_x") * call.u).sum()).abs() < 1e-13 * scale
    assert (along - (call.run("_vjp_table_u") * call.table).sum()).abs() < 1e-13 * scale
    features = (call.run() * call.grad).sum()
    assert (features - (call.run("_vjp_table") * call.table).sum()).abs() < 1e-13 * scale


@pytest.mark.parametrize("n", range(1, 9))
def test_torch_differentiates_the_reference_alike(lattice, n):
    """The gather form left to torch's autograd, without formulas of ours: first and mixed second order."""
    call = some_call(lattice, n, bounds=1)
    x, table = call.x.clone().requires_grad_(), call.table.clone().requires_grad_()
    reference = getattr(REFERENCES[lattice], f"{lattice}_encode")
    features = reference(x, table, *call.arguments("")[2:])
    dx, dtable = grad(features, (x, table), call.grad, create_graph=True)
    check_close(call.run("_vjp_x"), dx.detach(), 1e-12)
    check_close(call.run("_vjp_table"), dtable.detach(), 1e-12)
    along = grad((dx * call.u).sum(), table, retain_graph=True)[0]
    check_close(call.run("_vjp_table_u"), along, 1e-12)
    if lattice == "grid" and n > 1:  # the mixed second derivative, which only the cubic cells have
        curve = grad((dx * call.u).sum(), x)[0]
        ours = REFERENCES[lattice].grid_encode_vjp_xx(
            *call.arguments("_jvp")[:3], call.grad, *call.arguments("_jvp")[3:9]
        )
        check_close(ours, curve, 1e-11)


@pytest.mark.parametrize("n", [2, 3])
def test_second_derivative_in_x(lattice, n):
    """None inside of simplices, as a zero tensor; on cubes the mixed terms."""
    function, (x, table) = small(lattice, n)
    (slope,) = grad(function(x, table).sum(), x, create_graph=True)
    (curve,) = grad(slope.pow(2).sum(), x)
    assert torch.equal(curve, torch.zeros_like(x)) if lattice == "simplex" else curve.abs().sum() > 0


@pytest.mark.parametrize("table_dtype", [F16, BF16, F32, F64], ids=str)
@pytest.mark.parametrize("out_dtype", [None, F16, BF16, F32, F64], ids=str)
def test_types_of_gradients(lattice, table_dtype, out_dtype):
    """Every tensor's gradient has its own type, through both orders."""
    call = some_call(lattice, 2, dtype=F32, table_dtype=table_dtype)
    x, table = call.x.requires_grad_(), call.table.requires_grad_()
    features = WRAPPERS[lattice](x, table, call.levels, out_dtype=out_dtype)
    assert features.dtype == (out_dtype or table_dtype)
    (slope,) = grad(features.double().pow(2).sum() / 64, x, create_graph=True)  # float16 would overflow
    dx, dtable = grad((slope**2).sum() / 64, (x, table))
    assert slope.dtype == dx.dtype == F32 and dtable.dtype == table_dtype
    assert dtable.isfinite().all() and dtable.abs().sum() > 0
    exact = some_call(lattice, 2)
    xs, ts = x.detach().double().requires_grad_(), table.detach().double().requires_grad_()
    (wanted,) = grad(WRAPPERS[lattice](xs, ts, exact.levels).pow(2).sum() / 64, xs)
    low = BF16 if BF16 in (table_dtype, out_dtype) else F16 if F16 in (table_dtype, out_dtype) else F32
    tolerance = {F32: 1e-5, F16: 5e-3, BF16: 4e-2}[low]
    check_close(slope.detach().double(), wanted, tolerance)


def test_only_what_is_asked_for(lattice):
    call = some_call(lattice, 2, dtype=F32)
    table = call.table.clone().requires_grad_()
    WRAPPERS[lattice](call.x, table, call.levels).sum().backward()
    x = call.x.clone().requires_grad_()
    WRAPPERS[lattice](x, call.table, call.levels).sum().backward()
    full = call._replace(grad=torch.ones_like(call.grad))
    assert torch.equal(table.grad, full.run("_vjp_table")) and torch.equal(x.grad, full.run("_vjp_x"))
    assert not WRAPPERS[lattice](call.x, call.table, call.levels).requires_grad


def test_descent_reaches_a_target(lattice):
    """What gradients are for: the table that fits given features at given points."""
    call = some_call(lattice, 2, dtype=F32, points=24)
    table = torch.zeros_like(call.table).requires_grad_()
    optimizer = torch.optim.Adam([table], lr=0.05, betas=(0.9, 0.99), eps=1e-15)
    losses = []
    for _ in range(150):
        features = WRAPPERS[lattice](call.x.clamp(0, 1), table, call.levels)
        loss = (features.view(24, 3, 2).sum(1) - call.grad[:, :2]).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]


# ---- the same bits, however the work is divided


@pytest.fixture
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize(("n", "n_levels"), [(2, 1), (3, 3), (6, 2)])
def test_threads(lattice, n, n_levels):
    """1, 2 or 4 threads, more or fewer than levels: the same bits of all five operators."""
    keys = {"log2_hashmap_size": 8, "base_resolution": 6, "per_level_scale": 1.5}
    call = some_call(lattice, n, points=5000, dtype=F32, levels=some_levels(lattice, n, n_levels, **keys))
    results = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        results.append(call.all())
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))
    assert results[0][3].abs().sum() > 0


@pytest.mark.emulated
def test_deterministic_on_request(backend, lattice):
    """Asked for, a repeated table gradient has the same bits."""
    call = some_call(lattice, 3, dtype=F32, points=100, device=backend.device)
    call = call._replace(switches=(0, 3, True))
    for suffix in ("_vjp_table", "_vjp_table_u"):
        first = call.run(suffix)
        assert torch.equal(first, call.run(suffix))
        check_close(first, call.reference(suffix), 1e-5)


@pytest.mark.parametrize("asked", [True, False, None])
@pytest.mark.parametrize("setting", [True, False])
def test_who_decides_determinism(lattice, asked, setting, monkeypatch):
    """The argument, else torch's setting; it reaches the operators of every backward pass."""
    call = some_call(lattice, 2, dtype=F32)
    x, table = call.x.requires_grad_(), call.table.requires_grad_()
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "vjp_table" in str(func):
                seen.append(args[-1])
            return func(*args, **(kwargs or {}))

    torch.use_deterministic_algorithms(setting)
    try:
        features = WRAPPERS[lattice](x, table, call.levels, deterministic=asked)
    finally:
        torch.use_deterministic_algorithms(False)
    with Watch():
        (slope,) = grad(features.pow(2).sum(), x, create_graph=True)
        grad(slope.pow(2).sum(), table)
    assert seen and set(seen) == {setting if asked is None else asked}
