"""Exact laws of samplers on tabular models, by enumeration of contexts, and how far counts are from a law."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from fastdiff_ops.masked.high_order import extrapolate
from fastdiff_ops.masked.testing import TabularMaskedModel
from torch import Tensor


def dirichlet_joint(vocab: int, length: int, seed: int = 0) -> Tensor:
    """A strongly dependent joint: Dirichlet(0.5) over all sequences."""
    generator = torch.Generator().manual_seed(seed)
    # Gamma(1/2) is half of a squared normal
    weights = torch.randn(vocab**length, generator=generator, dtype=torch.float64) ** 2
    return (weights / weights.sum()).view([vocab] * length)


def smooth_joint(vocab: int, length: int, seed: int = 0, scale: float = 0.35) -> Tensor:
    """A weakly dependent one: exp(scale x normal)."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.exp(scale * torch.randn(vocab**length, generator=generator, dtype=torch.float64))
    return (weights / weights.sum()).view([vocab] * length)


def z_score(counts: Tensor, law: Tensor) -> float:
    """Chi-square of counts against a law, as a normal score; cells expected below 5 are merged."""
    counts, expected = counts.flatten().double(), law.flatten() * counts.sum()
    small = expected < 5
    if small.any():
        counts = torch.cat([counts[~small], counts[small].sum()[None]])
        expected = torch.cat([expected[~small], expected[small].sum()[None]])
        if expected[-1] < 5:
            assert counts[-1] <= expected[-1] + 20
            counts, expected = counts[:-1], expected[:-1]
    degrees = len(counts) - 1
    return float(((counts - expected) ** 2 / expected).sum() - degrees) / math.sqrt(2 * degrees)


def total_variation(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().sum()) / 2


def transition(model: TabularMaskedModel, conditionals: Tensor, reveal: float) -> Tensor:
    """P(context -> context') where every mask is revealed independently, [C, C'] or [C0, C, C']."""
    contexts, mask = model.contexts, model.mask_id
    masked = contexts == mask
    kept = torch.nn.functional.one_hot(contexts, mask + 1).double()
    opened = torch.cat([reveal * conditionals, torch.full_like(conditionals[..., :1], 1.0 - reveal)], dim=-1)
    factor = torch.where(masked[..., None], opened, kept)
    place = torch.arange(model.length)
    return factor[..., place, contexts].prod(-1)


def ancestral_law(
    model: TabularMaskedModel,
    mask_probs: list[float],
    conditionals: Callable[[float], Tensor] | None = None,
) -> Tensor:
    """Law of ancestral sampling on a grid of mask probabilities that ends at 0."""
    law = torch.zeros(len(model.contexts), dtype=torch.float64)
    law[-1] = 1.0
    for now, following in pairwise(mask_probs):
        table = model.conditionals if conditionals is None else conditionals(now)
        law = law @ transition(model, table, 1.0 - following / now)
    return complete(model, law)


def trapezoidal_law(
    model: TabularMaskedModel, mask_probs: list[float], theta: float, weight: float
) -> Tensor:
    """Law of the theta-trapezoidal rule on the log-linear grid."""
    law = torch.zeros(len(model.contexts), dtype=torch.float64)
    law[-1] = 1.0
    log_mu = model.conditionals.log()
    size = len(law)
    both = extrapolate(  # [context before, context now]
        log_mu.expand(size, *log_mu.shape).flatten(0, 1),
        log_mu[:, None].expand(size, *log_mu.shape).flatten(0, 1),
        torch.full((size * size, model.length), weight - 1.0, dtype=torch.float64),
    ).exp()
    both = (both / both.sum(-1, keepdim=True)).view(size, size, *log_mu.shape[1:])
    for now, following in pairwise(mask_probs):
        middle = now - theta * (now - following)
        first = transition(model, model.conditionals, 1.0 - middle / now)
        second = transition(model, both, 1.0 - following / middle)
        law = torch.einsum("a,ab,abc->c", law, first, second)
    return complete(model, law)


def complete(model: TabularMaskedModel, law: Tensor) -> Tensor:
    """The part of a law over contexts that has no masks."""
    return law[~(model.contexts == model.mask_id).any(1)].view(model.joint.shape)
