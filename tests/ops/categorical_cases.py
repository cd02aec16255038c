"""Logits that are hard to draw from, and what the definition says is drawn."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import torch
from fastdiff_ops.ops import make_rng
from fastdiff_ops.reference import categorical as reference
from fastdiff_ops.reference.gumbel import gumbel_noise
from torch import Tensor

SEED = 0x123456789ABCDEF0
F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
DTYPES = (BF16, F16, F32, F64)
STREAMS = ("element", "block16")
TEMPERATURES = (0.0, 1e-4, 0.2, 1.0, 2.0)
FAMILIES = (
    "flat", "normal", "wide", "peaked", "zipf", "llm", "large", "one_finite", "none_finite", "some_finite",
    "infinite", "nan", "denormal", "huge", "cancel",
)  # fmt: skip
N_IDS = 3  # distinct rows of noise; a test draws with each of them many times
OFFSET = 2


def row_names(n_rows: int, device: torch.device | str = "cpu") -> Tensor:
    return ((3 << 32) + 17 + torch.arange(n_rows) % N_IDS).to(device)


@functools.lru_cache(maxsize=8)
def noise(vocab: int, stream: str) -> Tensor:
    """The noise of the N_IDS rows, from the reference: [N_IDS, vocab]."""
    return gumbel_noise(make_rng(SEED, OFFSET), row_names(N_IDS), N_IDS, STREAMS.index(stream), 0, vocab)


def family(name: str, vocab: int, dtype: torch.dtype, temperature: float, g: Tensor) -> Tensor:
    """One row of logits [vocab]; `g` is the noise that it will be drawn with."""
    generator = torch.Generator().manual_seed(vocab)
    normal = torch.randn(vocab, generator=generator, dtype=F64)
    rank = torch.randperm(vocab, generator=generator).double() + 1
    last = torch.finfo(dtype).max
    x = torch.zeros(vocab, dtype=F64)
    if name == "normal":
        x = 2 * normal
    elif name == "wide":
        x = 30 * normal
    elif name == "peaked":
        x[vocab // 2] = 7 + float(torch.tensor(float(vocab)).log())
    elif name == "zipf":
        x = -rank.log()
    elif name == "llm":
        x = torch.where(rank <= 40, 8 - 1.8 * rank.log() + 0.5 * normal, -4 + 2.2 * normal)
    elif name == "large":
        x += 1e4
    elif name == "one_finite":
        x = torch.full_like(x, -torch.inf)
        x[vocab - 1] = -7.5
    elif name == "none_finite":
        x = torch.full_like(x, -torch.inf)
    elif name == "some_finite":
        x = torch.where(rank % 5 == 1, normal, -torch.inf)
    elif name == "infinite":
        x = torch.where(rank % 97 == 1, torch.inf, normal)
    elif name == "nan":
        x = torch.where(rank % 3 == 1, torch.nan, normal)
    elif name == "denormal":
        x = torch.finfo(dtype).tiny * (0.25 * normal)
    elif name == "huge":
        x = torch.where(rank % 2 == 0, last * normal.clamp(-1, 1), normal)
    elif name == "cancel":  # every perturbed logit is the same but for rounding
        x = -0.25 - temperature * g
    return x.to(dtype)


def hard_rows(vocab: int, dtype: torch.dtype, stream: str) -> tuple[Tensor, Tensor]:
    """Every family at every temperature: logits [R, vocab], temperatures [R]; the rows are row_names(R)."""
    rows, temperatures = [], []
    for name in FAMILIES:
        for temperature in TEMPERATURES:
            g = noise(vocab, stream)[len(rows) % N_IDS]
            temperature = float(torch.tensor(temperature, dtype=F32))
            rows.append(family(name, vocab, dtype, temperature, g))
            temperatures.append(temperature)
    return torch.stack(rows), torch.tensor(temperatures)


def perturbed(logits: Tensor, temperature: Tensor, stream: str, threshold: Tensor | None = None) -> Tensor:
    """z of plain logits [R, V] drawn as row_names(R), by the definition."""
    g = noise(logits.shape[1], stream)[torch.arange(len(logits)) % N_IDS]
    value = reference.processed_logits(logits, None, None, None, None, None, None)
    return reference.perturbed_logits(value, threshold, temperature, g)


def winner(z: Tensor) -> tuple[Tensor, Tensor]:
    """The first largest z of every row, and its column; -1 where there is none."""
    tokens = z.argmax(1)
    score = z.gather(1, tokens[:, None])[:, 0]
    return torch.where(score == -torch.inf, -1, tokens), score


def assert_same(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> None:
    """Equality to the last bit, of tensors on any device."""
    for a, b in zip(got, want, strict=True):
        a, b = a.cpu(), b.cpu()
        assert a.shape == b.shape and a.dtype == b.dtype
        wrong = (a != b).nonzero()[:5].tolist()
        assert not wrong, f"{int((a != b).sum())} differ, at {wrong}: {a[a != b][:5]} but {b[a != b][:5]}"


def in_new_process(code: str, **environment: str) -> str:
    run = [sys.executable, "-c", code]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(run, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
