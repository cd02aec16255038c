"""Shapes, strides, sizes, threads and SIMD levels change nothing about a step's numbers."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from fastdiff_ops import ops
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ops import step_cases
from ops.step_cases import (
    BF16,
    DTYPES,
    F16,
    F32,
    F64,
    Case,
    check_case,
    random_case,
    raw,
    run,
    run_in_place,
    same,
    table,
)
from torch import Tensor

LAYOUTS = ("contiguous", "reversed axes", "every other", "unaligned", "expanded", "channels last")


def laid_out(t: Tensor, layout: str, batch_axis: int = 0) -> Tensor:
    """Return the values of t in other strides; "expanded" repeats the first sample."""
    if layout == "reversed axes":
        axes = tuple(reversed(range(t.dim())))
        return t.permute(axes).contiguous().permute(axes)
    if layout == "every other":
        wide = torch.full((*t.shape[:-1], 2 * t.shape[-1]), torch.nan, dtype=t.dtype, device=t.device)
        wide[..., ::2] = t
        return wide[..., ::2]
    if layout == "unaligned":
        flat = torch.full((t.numel() + 1,), torch.nan, dtype=t.dtype, device=t.device)
        flat[1:] = t.flatten()
        return flat[1:].view(t.shape)
    if layout == "expanded" and t.shape[batch_axis] > 0:
        return t.narrow(batch_axis, 0, 1).expand(t.shape)
    if layout == "channels last" and t.dim() - batch_axis in (4, 5):
        axes = list(range(t.dim()))
        channel = axes.pop(batch_axis + 1)
        stored = t.permute(*axes, channel).contiguous()
        back = list(range(t.dim() - 1))
        back.insert(batch_axis + 1, t.dim() - 1)
        return stored.permute(back)
    return t


@pytest.mark.emulated
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 10**6),
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    dtypes=st.tuples(*[st.sampled_from(DTYPES)] * 4),
    layouts=st.tuples(*[st.sampled_from(LAYOUTS)] * 6),
    n_hist=st.integers(1, 3),
    anchor_mode=st.sampled_from(("same", "row")),
    noise=st.sampled_from(("tensor", "rng", "rngs")),
    clip_mode=st.sampled_from(("none", "static", "dynamic")),
    per_sample=st.booleans(),
)
def test_strides_change_nothing(backend, seed, shape, dtypes, layouts, **options):
    case = random_case(seed, shape, dtypes=dtypes, n_outs=2, elements=(10, 64), **options).to(backend.device)
    changed = case.changed(
        x=laid_out(case.x, layouts[0]),
        outs=[laid_out(out, layouts[1 + k]) for k, out in enumerate(case.outs)],
        anchor=laid_out(case.options["anchor"], layouts[3]),
        history=laid_out(case.options["history"], layouts[4], 1),
    )
    if options["noise"] == "tensor":
        changed = changed.changed(noise=laid_out(case.options["noise"], layouts[5]))
    dense = Case(
        changed.x.clone(memory_format=torch.contiguous_format),
        [out.clone(memory_format=torch.contiguous_format) for out in changed.outs],
        case.coef,
        case.step,
        {
            k: v.clone(memory_format=torch.contiguous_format) if isinstance(v, Tensor) else v
            for k, v in changed.options.items()
        },
    )
    assert same(run(changed), run(dense))


@pytest.mark.emulated
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 2, 3, 2), (1, 4, 1, 3), (2, 1, 3, 3)], ids=str)
@pytest.mark.parametrize("dtype", [F16, F32], ids=str)
def test_channels_last_in_place(backend, shape, dtype):
    """A ring, an anchor and a model input in channels-last order hold what they hold in row-major order."""
    case = random_case(
        5, shape, dtypes=(dtype,) * 4, anchor_mode="row", elements=(10,), elem_shape=(shape[1], 1, 1)
    )
    if len(shape) == 5:
        case.options["elem"] = case.options["elem"][..., None]
    case = case.to(backend.device)
    last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    turned = case.changed(
        x=case.x.contiguous(memory_format=last),
        outs=[out.contiguous(memory_format=last) for out in case.outs],
        anchor=case.options["anchor"].contiguous(memory_format=last),
        history=laid_out(case.options["history"], "channels last", 1),
    )
    expected, got = run_in_place(case, copies=2), run_in_place(turned, copies=2)
    assert same(list(got.values()), list(expected.values()))
    assert got["model_in"].is_contiguous(memory_format=last)


@pytest.mark.emulated
@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (3, 0, 4), (0, 0, 2, 2)], ids=str)
def test_empty(backend, shape):
    case = random_case(1, shape, noise="rng", anchor_mode="row").to(backend.device)
    for result in run(case)[:3]:
        assert result.shape == torch.Size(shape)
    assert run_in_place(case, copies=2)["model_in"].shape == (2 * shape[0], *shape[1:])


@pytest.mark.emulated
@pytest.mark.parametrize("n", [1, 3, 1023])
@pytest.mark.parametrize("dtypes", [(F32,) * 4, (F16,) * 4, (BF16, BF16, F32, F32), (F64,) * 4], ids=str)
def test_odd_sizes(backend, n, dtypes):
    for shape in ((n,), (1, n), (3, n)):
        check_case(random_case(n, shape, dtypes=dtypes).to(backend.device))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_odd_size(backend, dtype):
    """2^20 + 7 elements: threads, streaming stores, and what they leave over, aligned or not."""
    case = random_case(3, (1, 2**20 + 7), dtypes=(dtype,) * 4).to(backend.device)
    check_case(case)
    shifted = case.changed(x=laid_out(case.x, "unaligned"), outs=[laid_out(case.outs[0], "unaligned")])
    assert same(run(shifted), run(case))
    assert same([run_in_place(shifted)["x_next"]], [run(case)[0]])


def test_threads_change_nothing(backend):
    """Several samples to a thread, and several threads to a sample."""
    if backend.name != "cpu":
        pytest.skip("threads of the CPU kernels")
    before = torch.get_num_threads()
    try:
        for shape, noise in (((2, 3, 300, 301), "rng"), ((3001, 99), "rngs")):
            case = random_case(8, shape, per_sample=True, noise=noise, clip_mode="dynamic", anchor_mode="row")
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append([*run(case), run_in_place(case)["history"]])
            assert same(results[0], results[1])
            assert same(results[0], results[2])
    finally:
        torch.set_num_threads(before)


def digest_at(level: str) -> str:
    code = "import torch; from ops import step_cases;torch.set_num_threads(1); print(step_cases.digest())"
    environment = os.environ | {"FASTDIFF_OPS_SIMD": level, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip()


def test_simd_levels_agree_in_every_bit():
    """A processor without a level runs the one below, so this says most where AVX-512 is."""
    here = step_cases.digest()
    assert {level: digest_at(level) for level in ("scalar", "avx2", "avx512")} == dict.fromkeys(
        ("scalar", "avx2", "avx512"), here
    )


def test_shapes_beyond_2_to_the_31():
    """The fake says what comes out of a step that no test has the memory for."""
    shape = (2, 3, 2**15, 2**16)
    x = torch.empty(shape, dtype=BF16, device="meta")
    history = torch.empty(4, *shape, dtype=F32, device="meta")
    coef = torch.empty(1, 1, 64, dtype=F64, device="meta")
    step = torch.empty((), dtype=torch.int64, device="meta")
    case = Case(x, [x], coef, step, {"anchor": x, "history": history, "n_store": 2, "anchor_mode": "row"})
    results = torch.ops.fastdiff_ops.solver_step(*raw(case))
    assert [r.shape for r in results] == [torch.Size(shape)] * 4
    assert [r.dtype for r in results] == [BF16, BF16, F32, F32]


@pytest.mark.gpu
def test_more_than_2_to_the_31_elements():
    """bfloat16, 4 GiB a tensor: the last elements of the last sample are what they are alone."""
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("needs 24 GiB of free GPU memory")
    n = 2**30 + 24
    x = torch.zeros(2, n, dtype=BF16, device="cuda")
    out, x_out = torch.ones_like(x), torch.empty_like(x)
    x[1, -16:] = torch.arange(16, device="cuda")
    ring = torch.zeros(1, 2, n, dtype=BF16, device="cuda")
    coef = table({"X": ops.Row(state=1.0, output=0.5), "S0": ops.Row(output=2.0)}).cuda()
    step = torch.tensor(0, device="cuda")
    ops.solver_step_(x, [out], x_out, coef, step, history=ring, n_store=1)
    assert torch.equal(x_out[1, -16:].float(), torch.arange(16, device="cuda") + 0.5)
    assert bool((x_out[:, :-16] == 0.5).all())
    assert bool((ring == 2).all())


def test_evaluation_is_not_the_kernel():
    """What these tests compare with is float64 numpy, and notices one changed weight."""
    case = random_case(0)
    other = case.changed(coef=case.coef.clone())
    other.coef[case.step, 0, 10] += 1e-3
    with pytest.raises(AssertionError):
        check_case(case, run(other))
    assert isinstance(step_cases.evaluate(case)["x_next"][0], np.ndarray)
