"""Draws of a token per row of logits, by everybody: the library, and the recipes that users copy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import torch
from fastdiff_ops import ops
from torch import Tensor

from .interleave import Competitor

BLOCK16, ELEMENT, FULL = "block16", "element", "block16, all noise"
LLADA64, LLADA32, MDLM = "LLaDA, float64", "LLaDA, float32", "MDLM"
ARGMAX, READING = "torch.argmax", "reading"
COMPILED = ", compiled"
FIRST_HITTING = "first_hitting_sample"  # of the generation of whole sequences
SEED = 20
Sampler = Callable[[Tensor], Tensor]


# ---- logits


def flat(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return torch.zeros(shape)


def normal(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """N(0, 2^2)."""
    return 2 * torch.randn(shape, generator=generator)


def peaked(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """One token has 0.999 of the probability."""
    logits = torch.randn(shape, generator=generator)
    top = torch.randint(shape[1], (shape[0], 1), generator=generator)
    others = logits.logsumexp(1, keepdim=True)
    return logits.scatter_(1, top, others + math.log(999.0))


def zipf(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Probabilities 1 / rank, the ranks of a row in random order."""
    logits = -torch.arange(1.0, shape[1] + 1).log()
    return torch.stack([logits[torch.randperm(shape[1], generator=generator)] for _ in range(shape[0])])


def llm_like(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """40 likely tokens, 8 - 1.8 ln(rank) + N(0, 0.5^2), and a bulk of -4 + N(0, 2.2^2)."""
    logits = -4 + 2.2 * torch.randn(shape, generator=generator)
    top = 8 - 1.8 * torch.arange(1.0, 41).log() + 0.5 * torch.randn(shape[0], 40, generator=generator)
    places = torch.stack([torch.randperm(shape[1], generator=generator)[:40] for _ in range(shape[0])])
    return logits.scatter_(1, places, top)


LOGITS = {"flat": flat, "N(0,2²)": normal, "peaked": peaked, "Zipf": zipf, "LLM-like": llm_like}


@dataclass(frozen=True)
class Rows:
    """Logits to draw from.

    Attributes
    ----------
    rows, vocabulary : int
    dtype : torch.dtype
    kind : str
        A key of `LOGITS`.
    device : torch.device
    """

    rows: int
    vocabulary: int
    dtype: torch.dtype
    kind: str
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)

    @property
    def bytes(self) -> int:
        return self.rows * self.vocabulary * self.dtype.itemsize

    def logits(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return LOGITS[self.kind]((self.rows, self.vocabulary), generator).to(self.device, self.dtype)


# ---- what users do


def llada(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """exp(l) / (-ln u)^T, T = 1, and its argmax (LLaDA's generate.py, which others have copied)."""
    logits = logits.to(dtype)
    noise = torch.rand_like(logits, dtype=dtype)
    return torch.argmax(logits.exp() / (-torch.log(noise)) ** 1.0, dim=-1)


def llada64(logits: Tensor) -> Tensor:
    return llada(logits, torch.float64)


def llada32(logits: Tensor) -> Tensor:
    return llada(logits, torch.float32)


def mdlm(logits: Tensor) -> Tensor:
    """Probabilities over exponential noise, in the logits' dtype (MDLM's sampler)."""
    p = logits.exp()
    return (p / (1e-10 - (torch.rand_like(p) + 1e-10).log())).argmax(dim=-1)


def multinomial(logits: Tensor) -> Tensor:
    return torch.multinomial(torch.softmax(logits, -1), 1)[:, 0]


def categorical(logits: Tensor) -> Tensor:
    tokens: Tensor = torch.distributions.Categorical(logits=logits).sample()
    return tokens


PEERS: dict[str, Sampler] = {
    LLADA64: llada64,
    LLADA32: llada32,
    MDLM: mdlm,
    "multinomial(softmax)": multinomial,
    "distributions.Categorical": categorical,
    ARGMAX: lambda logits: torch.argmax(logits, -1),
}
COMPILABLE = (LLADA64, MDLM, ARGMAX)  # multinomial gains nothing, and each takes seconds to compile, a shape
OURS: dict[str, dict[str, str]] = {
    BLOCK16: {"stream": "block16"},
    ELEMENT: {"stream": "element"},
    FULL: {"stream": "block16", "method": "full"},
}
NAMES = (*OURS, *PEERS, *(name + COMPILED for name in COMPILABLE), READING)
NOTES = {
    BLOCK16: "ops.gumbel_argmax, the default from 4096 tokens on: exact, float64 noise",
    ELEMENT: "ops.gumbel_argmax(stream='element'): a noise for each token",
    FULL: "method='full': the definition, every noise is computed",
    LLADA32: "inexact: rare tokens cannot win",
    MDLM: "inexact, in bfloat16 grossly so (`fastdiff-ops masked-demo`)",
    ARGMAX: "draws nothing",
    READING: "sum of the logits' bytes as float32 words",
}


# ---- competitors


def ours(name: str, logits: Tensor) -> Callable[[], Tensor]:
    """Draw with other noise at every call: a row's time depends on where its noise is large."""
    states = cycle([ops.make_rng(SEED, offset=k, device=logits.device) for k in range(32)])
    options: dict[str, Any] = OURS[name]
    return lambda: ops.gumbel_argmax(logits, 1.0, rng=next(states), **options)


def reading(logits: Tensor) -> Callable[[], Tensor]:
    """The least that a draw must do."""
    words = logits.flatten()
    if words.numel() * words.itemsize % 4:
        words = words[:-1]
    words = words.view(torch.float32)
    return lambda: words.sum()


def compiled(sampler: Sampler) -> Sampler:
    """As torch.compile makes it, shapes static."""
    torch._dynamo.reset()
    return torch.compile(sampler, dynamic=False)


def competitors(rows: Rows, names: tuple[str, ...]) -> Iterator[Competitor]:
    """Those of `names`, their results looked at before."""
    logits = rows.logits()
    for name in names:
        if name == READING:
            yield Competitor(name, reading(logits), rows.bytes, note=NOTES[name])
            continue
        call: Callable[[], Tensor]
        if name in OURS:
            call = ours(name, logits)
        else:
            sampler = PEERS[name.removesuffix(COMPILED)]
            sampler = compiled(sampler) if name.endswith(COMPILED) else sampler
            call = partial(sampler, logits)
        plausible(name, call(), logits)
        yield Competitor(name, call, rows.bytes, note=NOTES.get(name, ""))


def plausible(name: str, tokens: Tensor, logits: Tensor) -> None:
    """Raise if these cannot be draws: wrong shape, or in a batch far less likely than draws are."""
    if tokens.shape != logits.shape[:1] or tokens.dtype != torch.int64:
        raise AssertionError(f"{name} gave {tokens.dtype} {tuple(tokens.shape)}")
    log_p = logits.float().log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1)
    surprise = -log_p.gather(1, tokens[:, None])[:, 0]
    if float((surprise - entropy).mean()) > 8 / len(tokens) ** 0.5 + 0.5:
        raise AssertionError(f"{name} draws tokens that are too rare: {float(surprise.mean())} nats")
