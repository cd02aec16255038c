"""What the word demo measures: samplers on the embedded model, and draws in low precision."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdiff_ops import ops
from fastdiff_ops.demo.words import LENGTH, MASK, WordWeights, spell
from fastdiff_ops.masked import ancestral_sample, as_model, decode, first_hitting_sample
from fastdiff_ops.masked.numerics import emulate_float32, truncated_gumbel_law

__all__ = [
    "Entropies",
    "Measured",
    "SamplerRun",
    "compare_samplers",
    "draw_uniformly",
    "evenness",
    "infill",
    "measure_entropies",
    "predicted_float32",
    "zipf",
]

_NODES = 16  # of the reveal probability, between which a float32 step is interpolated
_ROWS = 8  # drawn at once in float32: what fits into a cache


# ---- words


@dataclass(frozen=True)
class SamplerRun:
    """What a sampler made, and what it took.

    Attributes
    ----------
    name : str
    words : list of str
    calls : int
        Of the network, for the whole batch.
    calls_a_word : float
        Steps in which a word grew, on average: the calls for a word alone.
    seconds : float
        For the whole batch.
    real, new, distinct : float
        Shares of words of the dictionary, of those among them that the training did not show, and of
        words that differ.
    """

    name: str
    words: list[str]
    calls: int
    calls_a_word: float
    seconds: float
    real: float
    new: float
    distinct: float


def compare_samplers(
    weights: WordWeights,
    n: int,
    *,
    seed: int,
    temperature: float,
    device: torch.device,
    progress: Callable[[], object] | None = None,
) -> list[SamplerRun]:
    """Let every sampler generate `n` words; the first-hitting sampler comes first."""
    model = as_model(backbone=weights.model.backbone, head=weights.model.head)
    common: dict[str, Any] = {"mask_id": MASK, "seed": seed, "temperature": temperature, "return_stats": True}
    samplers: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "first-hitting, exact": (first_hitting_sample, {}),
        "parallel, 6 calls": (first_hitting_sample, {"num_steps": 6}),
        "parallel, 3 calls": (first_hitting_sample, {"num_steps": 3}),
        "surest first, 6 calls": (decode, {"strategy": "confidence", "num_steps": 6}),
        "ancestral, 12 steps": (ancestral_sample, {"num_steps": 12}),
        "ancestral, 32 steps": (ancestral_sample, {"num_steps": 32}),
    }
    masks = torch.full((n, LENGTH), MASK, device=device)
    model(masks[:1])  # what the first call costs is nobody's
    runs = []
    for name, (sampler, options) in samplers.items():
        begin = time.perf_counter()
        tokens, stats = sampler(model, masks, **options, **common)
        words = spell(tokens)  # waits for the device
        seconds = time.perf_counter() - begin
        runs.append(
            SamplerRun(
                name,
                words,
                stats.nfe,
                float((stats.reveals > 0).sum(0).double().mean()),
                seconds,
                float(weights.dictionary.real(tokens).double().mean()),
                float(weights.dictionary.new(tokens).double().mean()),
                len(set(words)) / n,
            )
        )
        if progress is not None:
            progress()
    return runs


def infill(
    weights: WordWeights, pattern: Tensor, n: int, *, seed: int, temperature: float, device: torch.device
) -> Tensor:
    """Fill the masks of a pattern ``[12]`` in `n` ways, one network call for each of its letters."""
    model = as_model(backbone=weights.model.backbone, head=weights.model.head)
    tokens = pattern.to(device).expand(n, -1)
    filled: Tensor = first_hitting_sample(model, tokens, mask_id=MASK, seed=seed, temperature=temperature)
    return filled.cpu()


# ---- precision


@dataclass(frozen=True)
class Measured:
    """A mean over tokens, and its standard error."""

    mean: float
    error: float


@dataclass(frozen=True)
class Entropies:
    """Mean -log p(token), in nats, of tokens that should be drawn from p: the entropy of p, if they are.

    Attributes
    ----------
    exact : float
        The entropy of p.
    steps : tuple of int
        Of ancestral sampling.
    predicted : tuple of float
        Of the float32 draw that has the mask as one of its classes, from its law in closed form.
    float32 : dict of int to Measured
        Of that draw, by number of steps.
    ours : dict of int to Measured
        Of `ancestral_sample`, whose draw is float64 and knows no mask.
    first_hitting : Measured
        Of `first_hitting_sample`.
    """

    exact: float
    steps: tuple[int, ...]
    predicted: tuple[float, ...]
    float32: dict[int, Measured]
    ours: dict[int, Measured]
    first_hitting: Measured


def zipf(vocabulary: int) -> Tensor:
    """Probabilities proportional to 1 / rank, float64."""
    p = 1.0 / torch.arange(1, vocabulary + 1, dtype=torch.float64)
    return p / p.sum()


def measure_entropies(
    vocabulary: int,
    predicted_steps: tuple[int, ...],
    float32_tokens: dict[int, int],
    our_tokens: int,
    seed: int,
    progress: Callable[[], object] | None = None,
) -> Entropies:
    """Compare ancestral sampling by one float32 draw a step, as public code has it, with this library's.

    Every position has the same law, Zipf's, whatever the others hold, so that all that differs is the draw.

    Parameters
    ----------
    vocabulary : int
        Tokens.
    predicted_steps : tuple of int
        Numbers of steps for the closed form and for our sampler.
    float32_tokens : dict of int to int
        How many tokens to draw in float32, by number of steps; a token costs steps / 2 draws.
    our_tokens : int
        How many tokens ours draws for each number of steps.
    seed : int
        Of all draws; `seed` plus the number of steps for ours.
    progress : callable, optional
        Called after each measurement.
    """
    p = zipf(vocabulary)
    log_p = p.log()

    def measured(tokens: Tensor) -> Measured:
        values = -log_p[tokens.flatten()]
        if progress is not None:
            progress()
        return Measured(float(values.mean()), float(values.std() / len(values) ** 0.5))

    logits = log_p.float()
    masks = torch.full((max(1, our_tokens // 256), 256), vocabulary)

    def network(tokens: Tensor) -> Tensor:
        return logits.expand(*tokens.shape, -1)

    # A seed each: with one for all, the tokens would be the same, as nothing depends on the order of reveal.
    common: dict[str, Any] = {"mask_id": vocabulary}
    predicted = tuple(predicted_float32(p, predicted_steps))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        float32 = {n: measured(_one_draw_a_step(p, n, count)) for n, count in float32_tokens.items()}
    return Entropies(
        exact=float(-(p * log_p).sum()),
        steps=predicted_steps,
        predicted=predicted,
        float32=float32,
        ours={
            n: measured(ancestral_sample(network, masks, num_steps=n, t_end=0.0, seed=seed + n, **common))
            for n in predicted_steps
        },
        first_hitting=measured(first_hitting_sample(network, masks, seed=seed, **common)),
    )


def predicted_float32(p: Tensor, steps: tuple[int, ...], bits: int = 24) -> list[float]:
    """Mean -log p(token) of ancestral sampling whose uniforms stop at 1 - 2^-bits, for each number of steps.

    In the step that should reveal a mask with probability q, tokens race with q p against 1 - q of the mask
    (`truncated_gumbel_law`). The law depends on q smoothly: it is computed for some q and interpolated.
    """
    nodes = np.geomspace(1.0 / max(steps), 1.0, _NODES)
    nodes[-1] = 1.0
    score = -p.log()
    share, value = np.empty(_NODES), np.empty(_NODES)
    for k, q in enumerate(nodes.tolist()):
        law = truncated_gumbel_law(torch.cat([q * p, p.new_tensor([1.0 - q])]), bits)[:-1]
        share[k] = float(law.sum()) / q  # what is revealed of what should be
        value[k] = float((law * score).sum() / law.sum())
    result = []
    for n in steps:
        q = 1.0 / np.arange(n, 0, -1)
        revealed = q * np.interp(np.log(q), np.log(nodes), share)
        revealed[-1] = 1.0
        left = np.concatenate([[1.0], np.cumprod(1.0 - revealed[:-1])])
        result.append(float((left * revealed * np.interp(np.log(q), np.log(nodes), value)).sum()))
    return result


def _one_draw_a_step(p: Tensor, steps: int, tokens: int) -> Tensor:
    """Ancestral sampling as in MDLM's code: each step one draw from all tokens and the mask, in float32."""
    mask = len(p)
    result = torch.full((tokens,), mask)
    for i in range(steps):
        t, s = 1 - i / steps, 1 - (i + 1) / steps
        law = torch.cat([p * (t - s), p.new_tensor([s])]).float()
        for rows in (result == mask).nonzero()[:, 0].split(_ROWS):
            result[rows] = emulate_float32(law.expand(len(rows), -1))
    return result


def draw_uniformly(vocabulary: int, n: int, seed: int) -> dict[str, Tensor]:
    """Draw `n` tokens from logits that are all equal: by MDLM's formula in low precision, and by ours."""
    flat = torch.zeros(1, vocabulary, dtype=torch.bfloat16)
    drawn = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, dtype in (("MDLM's, bfloat16", torch.bfloat16), ("MDLM's, float32", torch.float32)):
            law = torch.full((1, vocabulary), 1 / vocabulary, dtype=dtype)
            parts = [min(_ROWS, n - i) for i in range(0, n, _ROWS)]
            drawn[name] = torch.cat([emulate_float32(law.expand(k, -1), dtype=dtype) for k in parts])
    drawn["ours, bfloat16 logits"] = ops.gumbel_argmax(flat.expand(n, -1), 1.0, seed=seed)
    return drawn


def evenness(tokens: Tensor, vocabulary: int) -> Measured:
    """Mean of (token + 1/2) / vocabulary: 1/2, if all tokens are equally likely."""
    place = (tokens.double() + 0.5) / vocabulary
    return Measured(float(place.mean()), float(place.std() / math.sqrt(len(place))))
