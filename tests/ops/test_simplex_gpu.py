"""What only a GPU can show of the encodings: blocks side by side, vector atomics, capture in CUDA graphs."""

from __future__ import annotations

import pytest
import torch
from ops.encode_cases import BF16, F16, F32, LATTICES, SUFFIXES, Call, check_close, some_call, some_levels

pytestmark = [pytest.mark.gpu, pytest.mark.parametrize("lattice", LATTICES)]

POINTS = 100_003


def large_call(lattice: str, features: int, table_dtype: torch.dtype, n: int = 3) -> Call:
    """Levels summed in shared memory, dense ones beyond it, and a hashed one of 2^16 entries."""
    levels = some_levels(lattice, n, 6, base_resolution=4, per_level_scale=2.0, log2_hashmap_size=16)
    return some_call(
        lattice, n, points=POINTS, features=features, dtype=F32, table_dtype=table_dtype, levels=levels
    )


def on_gpu(call: Call, deterministic: bool = False) -> Call:
    tensors = {name: getattr(call, name).to("cuda") for name in ("x", "table", "grad", "u")}
    return call._replace(**tensors, switches=(*call.switches[:2], deterministic))


@pytest.mark.parametrize("table_dtype", [F16, BF16, F32], ids=str)
@pytest.mark.parametrize("features", [1, 2, 4, 8])
def test_the_cpu_has_the_same_bits(lattice: str, features: int, table_dtype: torch.dtype) -> None:
    """Where nothing is added atomically; where it is, only sums round differently."""
    call = large_call(lattice, features, table_dtype)
    for suffix in SUFFIXES:
        wanted, got = call.run(suffix), on_gpu(call).run(suffix).cpu()
        if "table" in suffix:
            check_close(got, wanted, 1e-5)
            check_close(on_gpu(call, deterministic=True).run(suffix).cpu(), wanted, 1e-5)
        else:
            assert torch.equal(got, wanted)


@pytest.mark.parametrize("suffix", ["_vjp_table", "_vjp_table_u"])
def test_deterministic(lattice: str, suffix: str) -> None:
    """Neither the order of the blocks nor that of the points matters."""
    call = on_gpu(large_call(lattice, 2, F32), deterministic=True)
    first = call.run(suffix)
    assert all(torch.equal(call.run(suffix), first) for _ in range(3))
    order = torch.randperm(POINTS, device=call.x.device)
    shuffled = call._replace(x=call.x[order], u=call.u[order], grad=call.grad[order])
    assert torch.equal(shuffled.run(suffix), first)


def test_capture(lattice: str) -> None:
    """All five operators replay in a CUDA graph, on what the tensors hold by then."""
    call = on_gpu(large_call(lattice, 2, F16), deterministic=True)
    other = torch.rand_like(call.x)
    wanted = call._replace(x=other.clone()).all()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call.all()
    call.x.copy_(other)
    for _ in range(2):
        graph.replay()
        torch.cuda.synchronize()
        assert all(torch.equal(got, expected) for got, expected in zip(results, wanted, strict=True))
