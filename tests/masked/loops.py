"""Small models to decode with, and decoding loops as their papers write them, in float64."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Model = Callable[[Tensor], Tensor]


def random_network(vocab: int, scale: float = 3.0, seed: int = 0) -> Model:
    """Logits [B, L, vocab] that depend on the position, its neighbours and all tokens; mask id = vocab."""
    g = torch.Generator().manual_seed(seed)
    embed = torch.randn(vocab + 1, 16, generator=g, dtype=torch.float64)
    place = torch.randn(64, 16, generator=g, dtype=torch.float64)
    out = torch.randn(16, vocab, generator=g, dtype=torch.float64) * scale / 4

    def model(tokens: Tensor) -> Tensor:
        x = embed[tokens]
        hidden = place[: tokens.shape[1]] + x.roll(1, 1) + x.roll(-1, 1) + x.mean(1, keepdim=True)
        return torch.tanh(hidden) @ out

    return model


def constant(logits: Tensor) -> Model:
    """The same logits [L, V] whatever the tokens."""
    return lambda tokens: logits.expand(len(tokens), *logits.shape)


def ends_of_blocks(tokens: Tensor, mask_id: int, block_length: int | None) -> list[tuple[int, int]]:
    """Blocks [start, stop) of one sequence [L] from its first mask on."""
    start = int((tokens == mask_id).nonzero()[0])
    length = block_length or len(tokens)
    edges = [*range(start, len(tokens), length), len(tokens)]
    return list(pairwise(edges))


def eager_decode(
    model: Model,
    tokens: Tensor,
    mask_id: int,
    choose: Callable[[Tensor, Tensor, int, int], Tensor],
    steps: int | None = None,
    block_length: int | None = None,
    score: Callable[[Tensor, Tensor], Tensor] | None = None,
    logits_of: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, list[list[int]]]:
    """Greedy decoding of one sequence [L], block by block, as LLaDA's `generate` goes about it.

    ``choose(confidence, probabilities, step, n)`` gets the scores [m] and probabilities [m, V] of the m
    candidates, the number of the block's step and how many masks the block had, and returns which of them to
    commit. `score` is p(token) unless given. Returns the tokens and the positions that each step commits.
    """
    x, order = tokens.clone(), []
    for start, stop in ends_of_blocks(tokens, mask_id, block_length):
        n = int((x[start:stop] == mask_id).sum())
        step = 0
        while bool((x[start:stop] == mask_id).any()):
            logits = logits_of(x) if logits_of else model(x[None])[0].double()
            probabilities = logits.softmax(-1)
            x0 = logits.argmax(-1)
            places = start + (x[start:stop] == mask_id).nonzero()[:, 0]
            scores = probabilities[places, x0[places]]
            if score is not None:
                scores = score(probabilities[places], x0[places])
            taken = places[choose(scores, probabilities[places], step, n)]
            x[taken] = x0[taken]
            order.append(sorted(taken.tolist()))
            step += 1
    return x, order


def top(k_of_step: Callable[[int, int], int]) -> Callable[[Tensor, Tensor, int, int], Tensor]:
    """Commit the k best."""
    return lambda scores, _, step, n: scores.topk(k_of_step(step, n)).indices


def at_least(tau: float) -> Callable[[Tensor, Tensor, int, int], Tensor]:
    """Fast-dLLM's threshold."""

    def choose(scores: Tensor, _probabilities: Tensor, _step: int, _n: int) -> Tensor:
        taken = scores >= tau
        taken[scores.argmax()] = True
        return taken.nonzero()[:, 0]

    return choose


def within_factor(factor: float) -> Callable[[Tensor, Tensor, int, int], Tensor]:
    """Fast-dLLM's factor."""

    def choose(scores: Tensor, _probabilities: Tensor, _step: int, _n: int) -> Tensor:
        best, order = scores.sort(descending=True)
        n = 0
        while n < len(best) and (n + 2) * (1 - float(best[n])) < factor:
            n += 1
        return order[: max(n, 1)]

    return choose


def within_entropy(bound: float) -> Callable[[Tensor, Tensor, int, int], Tensor]:
    """EB-Sampler, ordered by entropy."""

    def choose(_scores: Tensor, probabilities: Tensor, _step: int, _n: int) -> Tensor:
        entropy = torch.special.entr(probabilities).sum(-1)
        order, total, n = entropy.argsort(), 0.0, 0
        for place in order.tolist():
            total += float(entropy[place])
            if n and total - float(entropy[place]) > bound:  # sorted: the last is the largest
                break
            n += 1
        return order[:n]

    return choose
