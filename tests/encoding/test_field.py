"""Fields: training, mixed precision, torch.compile, data parallelism, normals; and Morton order."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.distributed as dist
from fastdiff_ops.encoding import FieldMLP, GridEncoding, SimplexEncoding, morton_order
from torch import nn

BOTH = pytest.mark.parametrize("kind", [SimplexEncoding, GridEncoding], ids=["simplex", "grid"])
KEYS = {"n_levels": 4, "log2_hashmap_size": 9, "base_resolution": 4, "seed": 0}


def field(kind, n: int = 3, outputs: int = 2, **options) -> FieldMLP:
    torch.manual_seed(0)
    return FieldMLP(kind(n, **(KEYS | options)), outputs, width=16)


def gradients(call, model: FieldMLP, x: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    at = x.clone().requires_grad_()
    value = call(at)
    value.float().square().sum().backward()
    return [value.detach(), at.grad, *(p.grad.clone() for p in model.parameters())]


def test_layers():
    model = FieldMLP(SimplexEncoding(2, **KEYS), 3, width=20, n_hidden=3, bias=False)
    sizes = [(m.in_features, m.out_features, m.bias) for m in model.modules() if isinstance(m, nn.Linear)]
    assert sizes == [(8, 20, None), (20, 20, None), (20, 20, None), (20, 3, None)]
    assert sum(isinstance(m, nn.ReLU) for m in model.modules()) == 3
    assert len(FieldMLP(SimplexEncoding(2, **KEYS), 3, n_hidden=0).layers) == 1
    x = torch.rand(2, 7, 2)
    assert torch.equal(model(x), model.layers(model.encoding(x))) and model(x).shape == (2, 7, 3)
    assert torch.equal(model(x, 2), model.layers(model.encoding(x, 2)))
    assert set(model.state_dict()) == {"encoding.table", *(f"layers.{i}.weight" for i in (0, 2, 4, 6))}
    for arguments, error, message in (
        ((nn.Identity(), 3), TypeError, "`encoding` must be a SimplexEncoding or GridEncoding, got Identity"),
        ((model.encoding, 0), ValueError, "`n_output_dims` must be >= 1"),
        ((model.encoding, 1.0), TypeError, "`n_output_dims` must be an int"),
    ):
        with pytest.raises(error, match=message):
            FieldMLP(*arguments)
    for option, bad in (("width", 0), ("n_hidden", -1)):
        with pytest.raises(ValueError, match=f"`{option}` must be >="):
            FieldMLP(model.encoding, 1, **{option: bad})


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_types_of_tables(kind, dtype):
    """Half tables feed float32 layers, rounded nowhere in between."""
    model, x = field(kind, dtype=dtype), torch.rand(5, 3)
    value = model(x)
    assert value.dtype == (dtype if dtype == torch.float64 else torch.float32)
    exact = model.encoding(x, out_dtype=value.dtype)
    assert torch.equal(value, model.layers(exact))
    value.sum().backward()
    assert model.encoding.table.grad.dtype == dtype and model.encoding.table.grad.abs().sum() > 0


@BOTH
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compile(kind, compiler):
    """One graph, forwards and backwards, with the numbers of eager."""
    torch._dynamo.reset()
    model, x = field(kind), torch.rand(33, 3)
    compiled = torch.compile(model, fullgraph=True, backend=compiler)
    for got, wanted in zip(gradients(compiled, model, x), gradients(model, model, x), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


@BOTH
def test_autocast(kind):
    model, x = field(kind), torch.rand(33, 3)
    read = []
    hook = model.layers[0].register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = gradients(model, model, x)
    hook.remove()
    assert read == [torch.bfloat16]  # features are written once, in the type that layers read
    assert low[0].dtype == torch.bfloat16 and {g.dtype for g in low[1:]} == {torch.float32}
    for got, wanted in zip(low, gradients(model, model, x), strict=True):
        error = (got.float() - wanted).norm() / wanted.norm()
        assert error < 0.05


def target(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(6 * x[:, :1]) * torch.cos(5 * x[:, 1:2])


@BOTH
def test_training(kind):
    """A picture is learnt: 30 dB after 150 steps, and finer levels come in one by one."""
    model = field(kind, 2, 1, log2_hashmap_size=12)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, betas=(0.9, 0.99), eps=1e-15)
    generator = torch.Generator().manual_seed(0)
    for step in range(150):
        x = torch.rand(512, 2, generator=generator)
        loss = (model(x, min(4, 1 + step // 10)) - target(x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = torch.rand(4000, 2, generator=generator)
    error = (model(x) - target(x)).square().mean()
    assert error < 1e-3 * target(x).var()


@BOTH
def test_normals_are_trained(kind):
    """An eikonal term reaches table and layers through the derivative of the derivative."""
    model = field(kind, 2, 1, base_resolution=3, n_levels=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, eps=1e-15)
    generator = torch.Generator().manual_seed(1)
    errors = []
    for _ in range(80):
        x = torch.rand(256, 2, generator=generator).requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        loss = (slope.norm(dim=1) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert sum(errors[-10:]) < 0.1 * sum(errors[:10])


@BOTH
def test_distributed_data_parallel(kind):
    """Plain parameters: DDP takes the module as it is."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model, x = field(kind), torch.rand(9, 3)
        wanted = gradients(model, model, x)
        parallel = nn.parallel.DistributedDataParallel(model)
        for got, want in zip(gradients(parallel, model, x), wanted, strict=True):
            assert torch.equal(got, want)
    finally:
        dist.destroy_process_group()


# ---- Morton order


def test_morton_order():
    """The curve itself: the cells of a grid, in the order in which quadrants are visited."""
    cells = torch.tensor(list(itertools.product(range(4), repeat=2)))
    order = morton_order((cells + 0.5) / 4, bits=2)
    visited = [tuple(c) for c in cells[order].tolist()]
    quadrants = [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert visited == [(2 * a + c, 2 * b + d) for a, b in quadrants for c, d in quadrants]


@pytest.mark.parametrize("n", [1, 2, 3, 6, 8])
def test_morton_order_keeps_neighbours_together(n):
    x = torch.rand(2000, n, generator=torch.Generator().manual_seed(0))
    order = morton_order(x)
    assert torch.equal(order.sort().values, torch.arange(2000))
    steps = [(points.diff(dim=0)).norm(dim=1).mean() for points in (x, x[order])]
    assert steps[1] < 0.75 * steps[0]
    assert torch.equal(morton_order(x), order)


def test_morton_order_of_odd_points():
    x = torch.tensor([[0.5, 0.5], [float("nan"), 0.0], [2.0, 9.0], [-1.0, -5.0], [0.5, 0.5]])
    assert morton_order(x).tolist() == [1, 3, 0, 4, 2]
    assert morton_order(x[:0]).shape == (0,)
    for bad, error, message in (
        ([[0.1]], TypeError, "`x` must be a floating-point Tensor"),
        (torch.zeros(3, 2, dtype=torch.int32), TypeError, "`x` must be a floating-point Tensor"),
        (torch.zeros(3), ValueError, r"`x` must have shape \[N, n\]"),
    ):
        with pytest.raises(error, match=message):
            morton_order(bad)
    with pytest.raises(ValueError, match=r"`bits` must be in \[1, 7\], got 8"):
        morton_order(torch.rand(3, 9), bits=8)
