"""sampling_threshold: the reference to the last bit, and what it must mean, by sorting in float64."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from fastdiff_ops.ops import gumbel_argmax, sampling_threshold
from fastdiff_ops.reference import threshold as reference
from fastdiff_ops.reference.categorical import processed_logits
from ops.categorical_cases import DTYPES, F32, F64, assert_same, family, in_new_process
from ops.threshold_cases import FAMILIES, check_top_p, hard_rows, in_shards
from torch import Tensor

operator = torch.ops.fastdiff_ops.sampling_threshold
NAMES = ("top_k", "top_p", "min_p", "temperature")


def normal(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def both(logits: Tensor, filters: tuple[Tensor, ...], device: torch.device) -> None:
    """The kernel and the reference agree, on thresholds and on shares."""
    *numbers, temperature = filters
    arguments = (logits, temperature, *[None] * 6, *numbers, True)
    want = reference.sampling_threshold(*arguments)
    moved = (x.to(device) if isinstance(x, Tensor) else x for x in arguments)
    assert_same(operator(*moved), want)


# ---- the number


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", [1, 2, 9, 300])
def test_equals_the_reference(backend, vocab, dtype) -> None:
    both(*hard_rows(vocab, dtype, step=2 if vocab == 300 else 1), backend.device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", [1023, 4097, 9000])
def test_equals_the_reference_in_longer_rows(backend, vocab, dtype) -> None:
    both(*hard_rows(vocab, dtype, step=1 + vocab // 1000), backend.device)


@pytest.mark.parametrize("dtype", [torch.bfloat16, F32])
@pytest.mark.parametrize("name", ["flat", "normal", "peaked", "zipf", "llm", "one_finite"])
def test_equals_the_reference_in_vocabularies(backend, name, dtype) -> None:
    """Every way the CPU finds a threshold: candidates, the histogram over depth, radix passes."""
    vocab = 50257
    row = family(name, vocab, dtype, 1.0, torch.zeros(vocab, dtype=F64))
    filters = (
        torch.tensor([50, 0, 0, 0, 900, 5000, 40000, 20]),
        *(
            torch.tensor(x, dtype=kind)
            for x, kind in (
                ([1, 0.1, 0.9, 0.999, 1, 0.5, 1, 0.9999999], F64),
                ([0, 0, 0, 0, 0, 0, 0, 1e-9], F64),
                ([1, 1, 1, 0.5, 1, 2, 1, 0.1], F32),
            )
        ),
    )
    both(row.expand(8, vocab), filters, backend.device)


@pytest.mark.parametrize("name", FAMILIES)
def test_top_p_by_sorting(name) -> None:
    """Independent of the reference: float64 softmax and its sums."""
    for vocab in (5, 3000, 20_000):
        row = family(name, vocab, F32, 1.0, torch.zeros(vocab, dtype=F64))
        if name in ("none_finite", "infinite"):
            continue
        for temperature in (0.5, 1.0, 2.0):
            for p in (1e-6, 0.3, 0.9, 0.999):
                theta = sampling_threshold(row, temperature, top_p=p)
                check_top_p(row, temperature, p, float(theta))


@pytest.mark.parametrize("dtype", DTYPES)
def test_top_k_and_min_p_by_sorting(dtype) -> None:
    for vocab in (30, 5000):
        logits = normal(4, vocab).to(dtype)
        wide = logits.to(F64 if dtype == F64 else F32)
        for k in (1, 2, 29):
            assert torch.equal(sampling_threshold(logits, top_k=k), wide.sort(1).values[:, vocab - k])
        for p in (0.5, 0.01):
            theta = sampling_threshold(logits, 0.7, min_p=p).double()
            exact = wide.amax(1).double() + float(torch.tensor(0.7)) * math.log(p)
            torch.testing.assert_close(theta, exact, rtol=1e-6, atol=1e-6)
            # rounded up, never down: no token below min_p is kept
            assert bool((theta >= exact - 1e-14).all())


def test_masses_are_rounded_exponentials() -> None:
    """Relative error of the exponential below 2^-51, then one rounding to an integer."""
    depth = torch.cat([torch.linspace(0, 45, 4001), torch.tensor([1e-9, 300.0])]).double()
    value, bits = -depth[None], 50
    got = reference.masses(value, torch.zeros(1, dtype=F64), torch.ones(1), bits)[0]
    for d, mass in zip(depth.tolist(), got.tolist(), strict=True):
        exact = math.exp(-d) * 2**bits
        assert abs(mass - exact) <= 0.5 + exact * (2 + d) * 2**-52
    assert got[0] == 1 << bits


def test_mass_target_is_exact() -> None:
    generator = torch.Generator().manual_seed(1)
    p = torch.rand(500, generator=generator, dtype=F64)
    p[:6] = torch.tensor([1.0, 1 - 2**-53, 2**-53, 1e-300, 0.5, 0.1], dtype=F64)
    total = torch.randint(1, 1 << 62, (500,), generator=generator)
    total[::7] >>= 40
    want = [
        math.ceil(Fraction(math.ceil(Fraction(x) * 2**53), 2**53) * m)
        for x, m in zip(p.tolist(), total.tolist(), strict=True)
    ]
    assert reference.mass_target(p, total).tolist() == want


# ---- what it means


@pytest.mark.emulated
def test_nothing_to_filter(backend) -> None:
    x = normal(3, 50).to(backend.device)
    none = torch.full((3,), -math.inf, device=backend.device)
    for filters in ({}, {"top_p": 1.0}, {"top_k": 0}, {"top_k": 50}, {"top_k": 1 << 50}, {"min_p": 0.0}):
        assert torch.equal(sampling_threshold(x, **filters), none), filters
        tensors = {k: torch.tensor([v] * 3, device=backend.device) for k, v in filters.items()}
        assert torch.equal(sampling_threshold(x, **tensors), none), filters
    assert torch.equal(gumbel_argmax(x, seed=1, threshold=none), gumbel_argmax(x, seed=1))


@pytest.mark.emulated
def test_the_tightest_filter_counts(backend) -> None:
    x = torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.06, 0.04]], dtype=F64).log().to(backend.device)

    def kept(**filters) -> int:
        return int((x >= sampling_threshold(x, **filters)).sum())

    assert kept(top_k=2) == 2 and kept(top_p=0.75) == 4 and kept(min_p=0.1) == 5
    assert kept(top_k=2, top_p=0.75, min_p=0.1) == 2
    assert kept(top_k=5, top_p=0.45, min_p=0.1) == 1
    assert kept(top_k=5, top_p=0.97, min_p=0.3) == 2
    # p is a share of the whole distribution: 0.5 of what top-k has left would be 0.71
    assert kept(top_k=2, top_p=0.6) == 2


@pytest.mark.emulated
def test_ties_are_kept(backend) -> None:
    x = torch.tensor([[1.0, 3.0, 1.0, 1.0, 0.0], [-0.0, 0.0, -1.0, 0.0, -0.0]], device=backend.device)
    assert sampling_threshold(x, top_k=2).tolist() == [1.0, 0.0]
    assert [math.copysign(1, v) for v in sampling_threshold(x, top_k=3).tolist()] == [1.0, 1.0]
    assert (x >= sampling_threshold(x, top_k=2)[:, None]).sum(1).tolist() == [4, 4]
    flat = torch.zeros(1, 5, device=backend.device)
    assert sampling_threshold(flat, top_p=0.1).item() == 0


@pytest.mark.emulated
def test_temperature_zero_is_the_limit(backend) -> None:
    x = normal(3, 40).to(backend.device)
    x[1, [3, 7]] = 50.0
    top = x.amax(1)
    assert torch.equal(sampling_threshold(x, 0, top_p=0.4), top)
    assert torch.equal(sampling_threshold(x, 0, min_p=0.4), top)
    assert torch.equal(sampling_threshold(x, 0, top_k=3), sampling_threshold(x, 1, top_k=3))
    for name in ("top_p", "min_p"):
        theta = sampling_threshold(x, 0, **{name: 0.4})
        assert torch.equal(gumbel_argmax(x, 0, threshold=theta), x.argmax(1))


@pytest.mark.emulated
def test_rows_that_hold_infinities_and_nan(backend) -> None:
    inf = math.inf
    rows = [[-inf] * 4, [math.nan] * 4, [-inf, 1, -inf, math.nan], [inf, 1, inf, 0], [inf, -inf, 3, math.nan]]
    x = torch.tensor(rows, device=backend.device)
    assert sampling_threshold(x, top_p=0.9).tolist() == [-inf, -inf, 1, inf, inf]
    assert sampling_threshold(x, top_k=2).tolist() == [-inf, -inf, -inf, inf, 3]
    assert sampling_threshold(x, min_p=0.5).tolist()[3:] == [inf, inf]
    assert sampling_threshold(x, min_p=0.5)[:2].tolist() == [-inf, -inf]


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_ties(dtype) -> None:
    """More logits of one value, or of two that are close, than the CPU collects; some of them NaN."""
    vocab = 20_000
    place = torch.arange(vocab)
    near = torch.where(place % 2 == 0, 1.0, 1.0078125)
    rows = torch.stack([near, torch.ones(vocab), torch.where(place % 3 == 0, torch.nan, -90.0), near]).to(
        dtype
    )
    rows[2, :3] = 1.0
    for k in (5, 1200, 9999, 13_000, 14_000):
        both(rows, (torch.tensor([k]), None, None, torch.ones(1)), torch.device("cpu"))
    for p in (0.1, 0.6, 1 - 1e-9):
        both(rows, (None, torch.tensor([p], dtype=F64), None, torch.ones(1)), torch.device("cpu"))


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES)
def test_processing(backend, dtype) -> None:
    """Guidance, bias, suppressed and forbidden tokens, rows: as if the result were given."""
    x, u = normal(6, 130, seed=1).to(dtype), normal(6, 130, seed=2).to(dtype)
    x[2, 5] = math.nan
    bias, mask = normal(4, 130, seed=3), normal(4, 130, seed=4) > 2
    rows, w = torch.tensor([5, 0, 2, 2]), torch.tensor([0.0, 1.5, -0.3, 2.0])
    options = {"bias": bias, "suppressed": mask, "forbidden": torch.tensor([7, 129, 300, -4])}
    given = {**options, "rows": rows, "uncond_logits": u, "cfg_scale": w}
    value = processed_logits(x, rows, u, w, bias, mask, torch.tensor([7, 129]))
    filters = {"top_k": torch.tensor([3, 0, 0, 9]), "top_p": 0.8, "min_p": 0.01}
    temperature = torch.tensor([1.0, 0.5, 2.0, 0.0])
    want = sampling_threshold(value, temperature, **filters)

    def moved(values: dict) -> dict:
        return {k: v.to(backend.device) if isinstance(v, Tensor) else v for k, v in values.items()}

    got = sampling_threshold(
        x.to(backend.device), temperature.to(backend.device), **moved(filters), **moved(given)
    )
    assert_same([got], [want])


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_layouts(backend, dtype) -> None:
    """Rows that start anywhere: strided, shifted off 16 bytes, of odd length, more axes."""
    x = normal(2, 3, 77).to(dtype)
    filters = {"top_k": 20, "top_p": 0.7}
    want = sampling_threshold(x.reshape(6, 77).clone(), **filters).view(2, 3)
    for shift in (0, 1, 3):
        wide = torch.full((2, 5, 101), 99.0).to(dtype).to(backend.device)
        view = wide[:, 1:4, shift : shift + 77]
        view.copy_(x)
        assert_same([sampling_threshold(view, **filters)], [want])
    assert sampling_threshold(x[0, 0].to(backend.device), **filters).shape == ()
    assert sampling_threshold(x[:0].to(backend.device), **filters).shape == (0, 3)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_matter(threads) -> None:
    x = normal(40, 5000)
    want = torch.stack([sampling_threshold(row, 0.8, top_k=700, top_p=0.9) for row in x])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert torch.equal(sampling_threshold(x, 0.8, top_k=700, top_p=0.9), want)
    finally:
        torch.set_num_threads(before)


def test_simd_levels_agree() -> None:
    code = """
import torch
from ops.threshold_cases import hard_rows
for vocab in (300, 9001):
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        logits, (k, p, m, t) = hard_rows(vocab, dtype)
        theta, share = torch.ops.fastdiff_ops.sampling_threshold(logits, t, *[None] * 6, k, p, m, True)
        print(theta.double().view(torch.int64).tolist(), share.view(torch.int64).tolist())
"""
    code = "import fastdiff_ops.ops\n" + code
    results = {in_new_process(code, FASTDIFF_OPS_SIMD=level) for level in ("scalar", "avx2", "avx512")}
    assert len(results) == 1


# ---- a vocabulary in shards


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", [torch.bfloat16, F32, F64])
@pytest.mark.parametrize("cuts", [[0, 300], [0, 1, 300], [0, 100, 101, 300], [0, 7, 80, 200, 299, 300]])
def test_shards_give_the_threshold_of_the_row(backend, cuts, dtype) -> None:
    logits, filters = hard_rows(300, dtype)
    keep = slice(None, None, 1 if backend.name != "emulated" else 3)
    logits, filters = logits[keep].to(backend.device), [x[keep].to(backend.device) for x in filters]
    options = dict(zip(NAMES, filters, strict=True))
    want = sampling_threshold(logits, **options)

    def run(first, end, all_reduce):
        return sampling_threshold(
            logits[:, first:end], **options, vocab_start=first, vocab_size=300, all_reduce=all_reduce
        )

    if backend.name == "emulated" and len(cuts) > 2:
        pytest.skip("the emulation runs on one thread")
    for got in in_shards(cuts, run):
        assert torch.equal(got, want)


def test_shards_with_processing() -> None:
    x, bias, mask = normal(5, 400), normal(400, seed=1), normal(5, 400, seed=2) > 2
    options = {"top_k": 30, "top_p": 0.8, "min_p": 0.001, "forbidden": [3, 399, 150], "temperature": 0.6}
    want = sampling_threshold(x, bias=bias, suppressed=mask, **options)

    def run(first, end, all_reduce):
        part = {"bias": bias[first:end], "suppressed": mask[:, first:end]}
        place = {"vocab_start": first, "vocab_size": 400, "all_reduce": all_reduce}
        return sampling_threshold(x[:, first:end], **part, **options, **place)

    for got in in_shards([0, 150, 151, 400], run):
        assert torch.equal(got, want)


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", [torch.float16, F32, F64])
def test_histogram_equals_the_reference(backend, dtype) -> None:
    logits, (_, _, _, temperature) = hard_rows(90, dtype)
    logits, temperature = logits[::4], temperature[::4]
    value = processed_logits(logits, *[None] * 6)
    top = value.amax(1)
    keys = reference.descending_keys(value)
    assert torch.equal(reference.logits_of_keys(keys, value.dtype), value + 0.0)
    for number, (shift, bits) in enumerate(reference.radix_passes(value.dtype)):
        high = (keys >> shift) >> bits
        prefix = torch.stack([high[:, 3], high[:, 8]], 1) if number > 0 else torch.zeros(len(top), 2).long()
        if number > 0 and dtype == F64:
            prefix &= (1 << (64 - shift - bits)) - 1
        prefix[::5, 0] = -1
        prefix[::3, 1] = -1
        arguments = (logits, temperature, *[None] * 6, top, prefix, number, 1000)
        want = reference.threshold_histogram(*arguments)
        moved = (x.to(backend.device) if isinstance(x, Tensor) else x for x in arguments)
        assert_same([torch.ops.fastdiff_ops.threshold_histogram(*moved)], [want])
        counts = torch.where(
            prefix[:, 0] < 0, 0, (high == prefix[:, :1]).sum(1) if number and dtype != F64 else 90
        )
        if number == 0 or dtype != F64:
            assert torch.equal(want[:, 0].sum(1), counts)
