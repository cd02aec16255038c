"""Lazy evaluation finds what full evaluation finds: the same token and the same z, to the last bit."""

from __future__ import annotations

import pytest
import torch
from fastdiff_ops import ops, reference
from fastdiff_ops.ops import make_rng
from fastdiff_ops.reference.gumbel import gumbel_noise, philox_words, stream_of_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ops.categorical_cases import (
    BF16,
    DTYPES,
    F32,
    F64,
    FAMILIES,
    OFFSET,
    SEED,
    STREAMS,
    TEMPERATURES,
    assert_same,
    family,
    hard_rows,
    noise,
    perturbed,
    row_names,
    winner,
)
from torch import Tensor

METHODS = ("lazy", "full")
SMALL = (1, 2, 3, 7, 8, 255, 256, 257)
LARGE = (4095, 4096, 4097, 50257)


def draw(logits: Tensor, temperature: Tensor, stream: str, method: str, **options) -> tuple[Tensor, ...]:
    options = {"seed": SEED, "offset": OFFSET, "row_ids": row_names(len(logits), logits.device), **options}
    return ops.gumbel_argmax(
        logits, temperature, stream=stream, method=method, return_score=True, **options
    )  # fmt: skip


def check_hard_rows(backend, vocab: int, dtype: torch.dtype, stream: str, n: int | None = None) -> None:
    """All hard rows, or the first n after a whole number of noises that depends on the type."""
    logits, temperature = hard_rows(vocab, dtype, stream)
    start = 0 if n is None else 3 * (DTYPES.index(dtype) * 6)
    logits, temperature = logits[start:][:n], temperature[start:][:n]
    want = winner(perturbed(logits, temperature, stream))
    logits, temperature = logits.to(backend.device), temperature.to(backend.device)
    for method in METHODS:
        assert_same(draw(logits, temperature, stream, method), want)


@pytest.mark.emulated
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", SMALL)
def test_small_vocabularies(backend, vocab, dtype, stream) -> None:
    check_hard_rows(backend, vocab, dtype, stream)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", LARGE)
def test_large_vocabularies(backend, vocab, dtype, stream) -> None:
    check_hard_rows(backend, vocab, dtype, stream, None if vocab < 10_000 else 21)


@pytest.mark.emulated
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("vocab", [4097, 8500])
def test_some_rows_of_several_tiles(backend, vocab, stream) -> None:
    """For emulated kernels: few rows, but tiles, tails and every family."""
    for i, (name, dtype) in enumerate(zip(FAMILIES, DTYPES * 4, strict=False)):
        temperature = TEMPERATURES[-1 - i % 3]
        logits = family(name, vocab, dtype, temperature, noise(vocab, stream)[0])[None]
        heat = torch.tensor([temperature])
        want = winner(perturbed(logits, heat, stream))
        assert_same(draw(logits.to(backend.device), heat.to(backend.device), stream, "lazy"), want)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("dtype", [BF16, F32])
def test_the_largest_vocabulary_in_use(backend, dtype, stream) -> None:
    vocab = 126464
    for i, name in enumerate(FAMILIES):
        temperature = (1.0, 0.2)[i % 2]
        logits = family(name, vocab, dtype, float(torch.tensor(temperature)), noise(vocab, stream)[0])[None]
        heat = torch.tensor([temperature])
        want = winner(perturbed(logits, heat, stream))
        for method in METHODS:
            assert_same(draw(logits.to(backend.device), heat.to(backend.device), stream, method), want)


def adversarial(kind: str, n_rows: int, vocab: int, dtype: torch.dtype, g: Tensor, t: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(n_rows)
    normal = torch.randn(n_rows, vocab, generator=generator, dtype=F64)
    if kind == "ties":  # a few levels only, many of them equal
        return normal.round().to(dtype)
    if kind == "cancel":  # all z equal but for rounding
        return (normal[:, :1] - t.double()[:, None] * g).to(dtype)
    if kind == "near":  # differences of z between nothing and the noise itself
        width = 10.0 ** torch.randint(-12, 1, (n_rows, 1), generator=generator)
        return (3e2 * normal[:, :1] - t.double()[:, None] * g + width * normal).to(dtype)
    if kind == "special":
        special = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0, -0.0, torch.finfo(dtype).max])
        return torch.where(normal > 0.7, special[(normal.abs() * 1e6).long() % 6].double(), normal).to(dtype)
    if kind == "denormal":
        return (torch.finfo(dtype).tiny * normal / 64).to(dtype)
    return (normal * 2.0 ** (60 * torch.rand(n_rows, 1, generator=generator) - 30)).to(dtype)  # any size


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("kind", ["ties", "cancel", "near", "special", "denormal", "sizes"])
def test_millions_of_adversarial_rows(kind, stream) -> None:
    """2^17 rows for each kind, type and stream (2^23 / 2^2 = 6.3 million draws in all over this test and the
    next), V = 6; lazy against full, and the first 2^12 against the reference."""
    n_rows, vocab = 1 << 17, 6
    temperature = torch.tensor((*TEMPERATURES, 1e-30, 5e3, 0.7))[torch.arange(n_rows) % 8]
    state = make_rng(77)
    some = 1 << 12
    for dtype in DTYPES:
        if kind in ("cancel", "near"):  # few rows of noise, each met with many logits
            g = gumbel_noise(state, None, some, STREAMS.index(stream), 0, vocab)
            names = torch.arange(n_rows) % some
            logits = adversarial(kind, n_rows, vocab, dtype, g[names], temperature)
        else:
            names = torch.arange(n_rows)
            logits = adversarial(kind, n_rows, vocab, dtype, torch.zeros(()), temperature)
        options = {"rng": state, "row_ids": names, "stream": stream, "return_score": True}
        lazy = ops.gumbel_argmax(logits, temperature, **options)
        assert_same(lazy, ops.gumbel_argmax(logits, temperature, method="full", **options))
        arguments = (logits[:some], temperature[:some], state, names[:some], *[None] * 8)
        want = reference.gumbel_argmax(*arguments, 0, vocab, STREAMS.index(stream), 1)
        assert_same(tuple(x[:some] for x in lazy), want[:2])


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("vocab", [40, 700, 5000])
def test_adversarial_rows_of_blocks(vocab, stream) -> None:
    """The same where blocks and chunks matter: all tokens within rounding of each other."""
    n_rows = 60
    g = gumbel_noise(make_rng(5), None, n_rows, STREAMS.index(stream), 0, vocab)
    for dtype in DTYPES:
        for kind in ("cancel", "near", "ties"):
            temperature = torch.tensor(TEMPERATURES)[torch.arange(n_rows) % 5]
            logits = adversarial(kind, n_rows, vocab, dtype, g, temperature)
            value = reference.categorical.processed_logits(logits, *[None] * 6)
            want = winner(reference.categorical.perturbed_logits(value, None, temperature, g))
            for method in METHODS:
                got = ops.gumbel_argmax(
                    logits, temperature, seed=5, stream=stream, method=method, return_score=True
                )
                assert_same(got, want)


@pytest.mark.emulated
@pytest.mark.parametrize("stream", STREAMS)
def test_rows_whose_first_16_bits_are_zero(backend, stream) -> None:
    """The largest noise there is: such tokens win, and w is below 2^-16."""
    key, draw_number, row = stream_of_rows(make_rng(3), None, 1 << 17)
    tag = 0 if stream == "element" else 2
    words = philox_words(tag, torch.zeros(1 << 17, dtype=torch.int64), row, draw_number, key)
    halves = torch.stack([h for word in words for h in (word & 0xFFFF, word >> 16)], 1)
    rows, tokens = (halves == 0).nonzero(as_tuple=True)  # block beta = token beta's own, in the first tile
    assert 4 < len(rows) < 40, "16 expected"
    g = gumbel_noise(make_rng(3), rows, len(rows), STREAMS.index(stream), 0, 8)
    top = g.gather(1, tokens[:, None])[:, 0]
    if stream == "element":
        assert (top > 16 * 0.6931).all()
        assert (g.argmax(1) == tokens).all()
    for dtype in DTYPES:
        for penalty in (0.0, 9.0, 14.0):
            logits = torch.zeros(len(rows), 8, dtype=F64).scatter(1, tokens[:, None], -penalty).to(dtype)
            want = winner(logits.double() + g)
            got = ops.gumbel_argmax(
                logits.to(backend.device), seed=3, row_ids=rows.to(backend.device), stream=stream,
                return_score=True,
            )  # fmt: skip
            assert_same(got, want)


@pytest.mark.emulated
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_shape_type_and_stride(backend, data) -> None:
    """Leading axes, gaps between rows, unaligned starts, subsets in any order, every option of processing."""
    vocab = data.draw(st.integers(1, 600), "vocab")
    lead = data.draw(st.lists(st.integers(0, 4), max_size=3), "lead")
    gap, start = data.draw(st.integers(0, 9), "gap"), data.draw(st.integers(0, 9), "start")
    dtype = data.draw(st.sampled_from(DTYPES), "dtype")
    stream = data.draw(st.sampled_from(STREAMS), "stream")
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99), "seed"))
    device = backend.device

    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    big = (3 * tensor(*[n + 2 for n in lead], start + vocab + gap)).to(dtype)
    logits = big[tuple(slice(1, 1 + n) for n in lead)][..., start : start + vocab]
    uncond = (3 * tensor(*[n + 2 for n in lead], start + vocab + gap)).to(dtype)
    uncond = uncond[tuple(slice(1, 1 + n) for n in lead)][..., start : start + vocab]
    n_logits = logits.shape[:-1].numel()
    rows = None
    if n_logits and data.draw(st.booleans(), "subset"):
        n = data.draw(st.integers(0, 6), "rows")
        rows = torch.randint(n_logits, (n,), generator=generator).to(device)
    n_rows = n_logits if rows is None else len(rows)
    kind = F64 if dtype == F64 else F32
    options = {
        "row_ids": (torch.randint(-(2**62), 2**62, (n_rows,), generator=generator), "row_ids"),
        "uncond_logits": (uncond, "cfg"),
        "bias": (tensor(data.draw(st.sampled_from([1, n_rows])), vocab), "bias"),
        "suppressed": (tensor(data.draw(st.sampled_from([1, n_rows])), vocab) > 1, "suppressed"),
        "forbidden": (torch.randint(-5, vocab + 5, (4,), generator=generator), "forbidden"),
        "threshold": (tensor(data.draw(st.sampled_from([1, n_rows]))).to(kind), "threshold"),
    }
    chosen = {k: v.to(device) for k, (v, name) in options.items() if data.draw(st.booleans(), name)}
    if "uncond_logits" in chosen:
        scales = torch.tensor([0.0, 1.5, -1.0, 0.3])[torch.arange(n_rows) % 4]
        chosen["cfg_scale"] = scales.to(device)
    temperature = tensor(n_rows).abs()
    state = make_rng(9, 2**32 - 1, device=device)
    names = ("row_ids", "rows", "uncond_logits", "cfg_scale", "bias", "suppressed", "forbidden", "threshold")
    flat = dict(chosen)
    if "uncond_logits" in flat:
        flat["uncond_logits"] = uncond.reshape(n_logits, vocab)
    flat["rows"] = rows
    arguments = [None if flat.get(k) is None else flat[k].cpu() for k in names]
    plain = logits.reshape(n_logits, vocab).cpu(), temperature.cpu(), state.cpu()
    want = reference.gumbel_argmax(*plain, *arguments, None, 0, vocab, STREAMS.index(stream), 0)
    shape = logits.shape[:-1] if rows is None else (n_rows,)
    for method in METHODS:
        got = ops.gumbel_argmax(
            logits,
            temperature,
            rng=state,
            rows=rows,
            stream=stream,
            method=method,
            return_score=True,
            **chosen,
        )
        assert_same(got, tuple(x.reshape(shape) for x in want[:2]))
    k = min(vocab, 5)
    want = reference.gumbel_topk(*plain, *arguments, 0, vocab, STREAMS.index(stream), k)
    got = ops.gumbel_topk(logits, k, temperature, rng=state, rows=rows, stream=stream, **chosen)
    assert_same(got, tuple(x.reshape(*shape, k) for x in want))


@pytest.mark.emulated
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_topk_of_hard_rows(backend, dtype, stream) -> None:
    """k = 1 is the argmax; k up to V gives every token once, then pads."""
    for vocab, counts in ((7, (1, 3, 7)), (300, (1, 5, 299)), (4100, (1, 40))):
        logits, temperature = hard_rows(vocab, dtype, stream)
        if vocab == 4100:
            keep = torch.arange(3, len(logits), 7 if backend.name == "emulated" else 1)
        else:
            keep = torch.arange(len(logits))
        z = perturbed(logits, temperature, stream)[keep]
        names = row_names(len(logits))[keep].to(backend.device)
        logits, temperature = logits[keep].to(backend.device), temperature[keep].to(backend.device)
        ordered, tokens = torch.sort(z, dim=1, descending=True, stable=True)
        tokens = torch.where(ordered == -torch.inf, -1, tokens)
        for k in counts:
            got = ops.gumbel_topk(
                logits, k, temperature, seed=SEED, offset=OFFSET, row_ids=names, stream=stream
            )
            assert_same(got, (tokens[:, :k], ordered[:, :k]))
