"""The encodings and torch: opcheck, torch.compile, SIMD levels, the route to the reference."""

from __future__ import annotations

import hashlib

import pytest
import torch
from ops.categorical_cases import in_new_process
from ops.encode_cases import BF16, F16, F32, F64, LATTICES, SUFFIXES, WRAPPERS, some_call, some_levels
from torch._dynamo.testing import CompileCounterWithBackend


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("lattice", LATTICES)
def test_opcheck(lattice, suffix):
    call = some_call(lattice, 2, dtype=F64, points=5, levels=some_levels(lattice, 2, 2))
    tensors = {name: getattr(call, name).requires_grad_() for name in ("x", "table", "grad", "u")}
    operator = getattr(torch.ops.fastdiff_ops, f"{lattice}_encode{suffix}").default
    torch.library.opcheck(operator, call._replace(**tensors).arguments(suffix))
    low = some_call(lattice, 3, dtype=F32, table_dtype=BF16, points=3)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(operator, low.arguments(suffix, F16), test_utils=checks)


@pytest.mark.parametrize("lattice", LATTICES)
def test_one_graph(lattice):
    """Values and gradients as eager; no break, and no new graph for other numbers of points."""
    call = some_call(lattice, 3, dtype=F32)

    def loss(x, table):
        return WRAPPERS[lattice](x, table, call.levels, bounds="extend", max_level=2).square().sum(1)

    counter, graphs = CompileCounterWithBackend("aot_eager"), 0
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend=counter)
    for points in (37, 20, 33):
        results = []
        for function in (loss, compiled):
            x, table = call.x[:points].clone().requires_grad_(), call.table.clone().requires_grad_()
            value = function(x, table)
            value.sum().backward()
            results.append((value.detach(), x.grad, table.grad))
        for got, wanted in zip(*results, strict=True):
            torch.testing.assert_close(got, wanted)
        graphs = graphs or counter.frame_count  # torch may trace the first call twice
    assert counter.frame_count == graphs


def test_export():
    call = some_call("simplex", 3, dtype=F32)

    class Module(torch.nn.Module):
        def forward(self, x, table):
            return WRAPPERS["simplex"](x, table, call.levels)

    program = torch.export.export(Module(), (call.x, call.table))
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("fastdiff_ops.simplex_encode.default") == 1
    assert torch.equal(program.module()(call.x, call.table), call.run())


CODE = """
import hashlib, torch
from ops.encode_cases import *
state = hashlib.sha256()
for lattice in LATTICES:
    for n in range(1, 9):
        for features, table_dtype, bounds in ((1, F32, 0), (2, F16, 1), (4, BF16, 0), (8, F32, 1)):
            # more than a run of groups, and a group that is not full
            call = some_call(lattice, n, dtype=F32, table_dtype=table_dtype, features=features, bounds=bounds,
                             points=533 if n < 4 else 85)
            call.x[7, 0] = float("nan")
            for result in call.all():
                state.update(result.nan_to_num(3.0).view(torch.uint8).numpy().tobytes())
print(state.hexdigest())
"""


def test_simd_levels_have_the_same_bits():
    digests = {in_new_process(CODE, FASTDIFF_OPS_SIMD=level) for level in ("scalar", "avx2", "avx512")}
    assert len(digests) == 1 and len(digests.pop()) == len(hashlib.sha256().hexdigest())


@pytest.mark.parametrize("routed", [True, False])
def test_the_environment_routes_to_the_reference(routed):
    code = """
import torch
from fastdiff_ops.reference import _encoding
calls = []
locate_all = _encoding.locate_all
_encoding.locate_all = lambda *inputs: calls.append(1) or locate_all(*inputs)
from ops.encode_cases import *
for lattice in ("simplex",):  # the cubic grid's second derivative in x has no other form
    call = some_call(lattice, 2)
    x, table = call.x.requires_grad_(), call.table.requires_grad_()
    value = WRAPPERS[lattice](x, table, call.levels).square().sum()
    slope = torch.autograd.grad(value, x, create_graph=True)[0]
    table.grad = torch.autograd.grad(slope.square().sum(), table)[0]
    assert table.grad.isfinite().all() and table.grad.abs().sum() > 0
print(len(calls))
"""
    calls = int(in_new_process(code, FASTDIFF_OPS_REFERENCE=str(int(routed))))
    assert calls >= 5 if routed else calls == 0


# Rows that hold their own numbers, at two points: what checkpoints rely on must never move.
GOLDEN = {
    "simplex": [
        [420.06574718879915, 658.717481594204, 1094.406364113114],
        [136.06574718879912, 879.8823595759528, 1264.408278572716],
    ],
    "grid": [[142.0, 387.46592, 531.90742912], [38.8, 354.826368, 615.824992512]],
}


@pytest.mark.parametrize("lattice", LATTICES)
def test_golden_numbers(lattice):
    levels = some_levels(lattice, 3)
    table = torch.arange(levels.n_entries, dtype=F64)[:, None]
    x = torch.tensor([[0.1, 0.5, 0.9], [0.7, 0.3, 0.2]], dtype=F64)
    golden = torch.tensor(GOLDEN[lattice], dtype=F64)
    torch.testing.assert_close(WRAPPERS[lattice](x, table, levels), golden, rtol=1e-12, atol=0)
