"""The definition itself: golden numbers, exact arithmetic, another transcription in Python's integers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from fastdiff_ops import ops
from fastdiff_ops.ops import make_rng
from fastdiff_ops.reference import gumbel
from fastdiff_ops.reference.exact import exponential, fd_log, fma
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ops.categorical_cases import F32, F64, SEED, STREAMS

# token: (element, block16); seed SEED, row (3 << 32) | 17, draw 2
GOLDEN = {
    0: ("-0x1.b9ecb6ce870d7p-1", "0x1.86e4bec52eec0p-1"),
    1: ("0x1.f82f4b93de74fp+0", "0x1.ae306f4035f6dp+1"),
    7: ("-0x1.153d3434bf44fp+0", "0x1.b3e6897ea7ecbp+0"),
    8: ("0x1.3087245899ba6p+0", "-0x1.36ef63786e6fcp+0"),
    4095: ("-0x1.3ad44f1493709p-3", "0x1.0fee6af82c87bp+1"),
    50256: ("-0x1.7338fa883a47cp-1", "0x1.e660c6232b1a2p+0"),
}
GOLDEN_TOKEN = {"element": 458, "block16": 2974}  # of 5000 equal logits
GOLDEN_ROW = (3 << 32) | 17
doubles = st.floats(allow_nan=False, width=64)
singles = st.floats(allow_nan=False, width=32)


@pytest.mark.parametrize("stream", STREAMS)
def test_golden_noise(stream) -> None:
    rows = torch.tensor([GOLDEN_ROW])
    noise = ops.gumbel_noise(rows, 50257, seed=SEED, offset=2, stream=stream)[0]
    got = {v: noise[v].item().hex() for v in GOLDEN}
    assert got == {v: float.fromhex(pair[STREAMS.index(stream)]).hex() for v, pair in GOLDEN.items()}
    part = gumbel.gumbel_noise(make_rng(SEED, 2), rows, 1, STREAMS.index(stream), 4095, 5000)
    assert torch.equal(part[0], noise[4095:5000]), "a part of the vocabulary"


@pytest.mark.emulated
@pytest.mark.parametrize("method", ["lazy", "full"])
@pytest.mark.parametrize("stream", STREAMS)
def test_golden_draw(backend, stream, method) -> None:
    """Of every backend: the token of 5000 equal logits, and each noise of the table as a score."""
    names = torch.tensor([GOLDEN_ROW], device=backend.device)
    options = {"seed": SEED, "offset": 2, "stream": stream, "method": method, "return_score": True}
    token, z = ops.gumbel_argmax(torch.zeros(1, 5000, device=backend.device), row_ids=names, **options)
    assert token.item() == GOLDEN_TOKEN[stream]
    for v, pair in GOLDEN.items():
        column = torch.zeros(1, 1, device=backend.device)
        token, z = ops.gumbel_argmax(column, row_ids=names, vocab_start=v, vocab_size=50257, **options)
        assert (token.item(), z.item()) == (v, float.fromhex(pair[STREAMS.index(stream)]))


def philox(counter: list[int], key: list[int]) -> list[int]:
    for _ in range(10):
        p0, p1 = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        word = 0xFFFFFFFF
        counter = [p1 >> 32 ^ counter[1] ^ key[0], p1 & word, p0 >> 32 ^ counter[3] ^ key[1], p0 & word]
        key = [key[0] + 0x9E3779B9 & word, key[1] + 0xBB67AE85 & word]
    return counter


def uniform_of_integers(prefix: int, t: list[int]) -> float:
    bits = prefix << 112 | t[0] << 80 | t[1] << 48 | t[2] << 16 | t[3] >> 16
    if bits == 0:
        return 2.0**-129
    zeros = 128 - bits.bit_length()
    return math.ldexp(((bits << zeros) >> 75) | 1, -53 - zeros)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("seed", [SEED, 2**64 - 1, 1])
def test_bits_against_plain_integers(stream, seed) -> None:
    """Counters, halves and the 128-bit fraction in Python's integers; libm's logarithm to a few 1e-16."""
    row, draw = 2**63 + 2**40 + 5, 2**32 - 1
    key = [seed & 0xFFFFFFFF, seed >> 32]

    def words(tag: int, index: int) -> list[int]:
        return philox([tag << 28 | index, row & 0xFFFFFFFF, row >> 32, draw], list(key))

    def draw_one(tags: tuple[int, int], prefix: int, tail: int) -> tuple[float, int]:
        halves = [h for w in words(tags[0], prefix >> 3) for h in (w & 0xFFFF, w >> 16)]
        t = words(tags[1], tail)
        return -math.log1p(-uniform_of_integers(halves[prefix & 7], t)), t[3]

    tokens = [0, 1, 7, 8, 255, 256, 4095, 4096, 9999, 2**28 - 1]
    state = make_rng([seed], draw, sample_ids=[0])
    state[0, 2] = row - 2**64
    for v in tokens:
        if stream == "element":
            e = draw_one((0, 1), v, v)[0]
        else:
            tile, place, r = v >> 12, (v >> 8) & 15, v & 255
            block = 256 * tile + r
            e, word = draw_one((2, 3), block, block)
            e /= 16
            if word & 15 != place:
                e += draw_one((4, 5), 16 * block + place, v)[0]
        got = gumbel.gumbel_noise(state, None, 1, STREAMS.index(stream), v, v + 1).item()
        assert got == pytest.approx(-math.log(e), abs=4e-15)


@pytest.mark.parametrize("zeros", [0, 1, 15, 16, 17, 31, 47, 48, 63, 64, 65, 100, 112, 126, 127, 128])
def test_uniforms_of_every_size(zeros) -> None:
    """53 bits and the sticky last one, wherever the first set bit of the 128 is."""
    rest = np.random.default_rng(zeros).integers(0, 2**32, (64, 5)).tolist()
    for numbers in rest:
        bits = numbers[0] << 96 | numbers[1] << 64 | numbers[2] << 32 | numbers[3]
        bits = (bits | 1 << 127) >> zeros if zeros < 128 else 0
        tail = [(bits >> 80) & 0xFFFFFFFF, (bits >> 48) & 0xFFFFFFFF, (bits >> 16) & 0xFFFFFFFF]
        tail.append((bits & 0xFFFF) << 16 | numbers[4] & 0xFFFF)
        words = tuple(torch.tensor([w]) for w in tail)
        w = gumbel.full_range_uniform(torch.tensor([bits >> 112]), words).item()
        assert w == uniform_of_integers(bits >> 112, tail)
        assert 2.0**-129 <= w < 1


# ---- arithmetic


def rounded(exact: Fraction, dtype: torch.dtype) -> float:
    """The nearest number of the type, to even, found without float arithmetic."""
    if exact == 0:
        return 0.0
    digits, least = (24, -149) if dtype == F32 else (53, -1074)
    magnitude = abs(exact)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if Fraction(2) ** exponent > magnitude:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - digits + 1, least)
    value = round(magnitude / unit) * unit  # Python rounds halves to even
    limit = 2**128 if dtype == F32 else 2**1024
    number = math.inf if abs(value) >= limit else float(value)
    return number if exact > 0 else -number


def check_fma(a: float, b: float, c: float, dtype: torch.dtype) -> None:
    got = fma(*(torch.tensor([x], dtype=dtype) for x in (a, b, c))).item()
    if all(map(math.isfinite, (a, b, c))):
        want = rounded(Fraction(a) * Fraction(b) + Fraction(c), dtype)
        assert got == want
    else:
        product = 0.0 if math.isfinite(a) and math.isfinite(b) else float(np.float64(a) * np.float64(b))
        plain = product + c
        assert got == plain or (math.isnan(got) and math.isnan(plain))


@settings(max_examples=400, deadline=None)
@example(2.0**1000, 2.0**1000, -math.inf)
@given(doubles, doubles, doubles)
@np.errstate(all="ignore")
def test_fma_of_any_doubles(a, b, c) -> None:
    check_fma(a, b, c, F64)


@settings(max_examples=400, deadline=None)
@example(-2.0, -(2.0**127), -math.inf)
@given(singles, singles, singles)
@np.errstate(all="ignore")
def test_fma_of_any_singles(a, b, c) -> None:
    check_fma(a, b, c, F32)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_fma_where_two_roundings_go_wrong(dtype) -> None:
    """Sums next to a tie, and cancellation down to the product's last bit."""
    torch.manual_seed(0)
    eps = torch.finfo(dtype).eps
    for _ in range(300):
        a, b = (1 + torch.randint(-9, 9, (2,)) * eps / 2).tolist()
        for c in (-(a * b), a * b * 2.0**30, -1.0, eps, 2.0 / eps, -2.0 / eps, -3.0 / eps):
            c = float(torch.tensor(c, dtype=dtype))
            check_fma(float(torch.tensor(a, dtype=dtype)), float(torch.tensor(b, dtype=dtype)), c, dtype)


def test_logarithm_and_exponential_are_as_accurate_as_claimed() -> None:
    """Against 80-bit arithmetic, over the whole range that occurs."""
    generator = torch.Generator().manual_seed(0)
    power = torch.randint(-129, 1, (200_000,), generator=generator)
    x = torch.rand(200_000, generator=generator, dtype=F64) + 0.5
    x = torch.cat(
        [torch.ldexp(x, power), torch.tensor([2.0**-129, 1.0, 0.5**0.5, 2.0**0.5, 90.0], dtype=F64)]
    )
    long = x.numpy().astype(np.longdouble)
    log = np.log(long)
    error = np.abs(fd_log(x).numpy() - log) / np.maximum(np.abs(log), 1e-300)
    assert error[log != 0].max() < 1.31 * 2.0**-53
    w = x[(x < 1)]
    exact = -np.log1p(-w.numpy().astype(np.longdouble))
    assert (np.abs(exponential(w).numpy() - exact) / exact).max() < 2.01 * 2.0**-53
    edges = torch.tensor([2.0**-27, 2.0**-27 * (1 - 2.0**-53), 1 - 2.0**-53], dtype=F64)
    exact = -np.log1p(-edges.numpy().astype(np.longdouble))
    assert (np.abs(exponential(edges).numpy() - exact) / exact).max() < 2.01 * 2.0**-53
