"""Decoding of masked language models: several tokens from one evaluation, the surest first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor

from fastdiff_ops.schedules._checks import check_count

from ._decode_loop import Settings, decode_loop, make_plan
from ._loop import CommonOptions, Model, SampleStats, start
from .ancestral import ancestral_sample
from .blocks import block_counts, block_index
from .first_hitting import first_hitting_sample
from .schedule import MaskSchedule

if TYPE_CHECKING:
    from typing_extensions import Unpack

Strategy = Literal[
    "confidence", "margin", "entropy", "random", "threshold", "factor", "entropy_bound", "origin"
]
#: How many tokens a step commits is planned; or what is committed depends on the scores; or all is planned.
_RANKED = ("confidence", "margin", "entropy")
_ADAPTIVE = {"threshold": 0.9, "factor": 1.0, "entropy_bound": 0.1}
_PLANNED = ("random", "origin")
STRATEGIES = (*_RANKED, *_ADAPTIVE, *_PLANNED)


@overload
def decode(
    model: Model,
    tokens: Tensor,
    *,
    mask_id: int,
    return_stats: Literal[True],
    strategy: Strategy = ...,
    num_steps: int | None = ...,
    block_length: int | None = ...,
    threshold: float | None = ...,
    factor: float | None = ...,
    entropy_bound: float | None = ...,
    alg_temp: float = ...,
    score_temperature: float = ...,
    low_confidence_tokens: Sequence[int] | None = ...,
    **options: Unpack[CommonOptions],
) -> tuple[Tensor, SampleStats]: ...
@overload
def decode(
    model: Model,
    tokens: Tensor,
    *,
    mask_id: int,
    return_stats: Literal[False] = ...,
    strategy: Strategy = ...,
    num_steps: int | None = ...,
    block_length: int | None = ...,
    threshold: float | None = ...,
    factor: float | None = ...,
    entropy_bound: float | None = ...,
    alg_temp: float = ...,
    score_temperature: float = ...,
    low_confidence_tokens: Sequence[int] | None = ...,
    **options: Unpack[CommonOptions],
) -> Tensor: ...
@torch.no_grad()
def decode(
    model: Model,
    tokens: Tensor,
    *,
    mask_id: int,
    strategy: Strategy = "confidence",
    num_steps: int | None = None,
    block_length: int | None = None,
    threshold: float | None = None,
    factor: float | None = None,
    entropy_bound: float | None = None,
    alg_temp: float = 0.0,
    score_temperature: float = 1.0,
    low_confidence_tokens: Sequence[int] | None = None,
    return_stats: bool = False,
    **options: Unpack[CommonOptions],
) -> Tensor | tuple[Tensor, SampleStats]:
    """Fill masks as language models of masked diffusion (LLaDA, Dream, ...) are decoded.

    Each step evaluates the network, draws a token for every candidate (masked positions of the current
    block), and commits those that the strategy chooses; the others stay masked.

    Parameters
    ----------
    model : callable
        ``model(tokens [B, L]) -> logits [B, L, V]``, or an `as_model`.
    tokens : int64 Tensor [B, L]
        Prompts, holes, suffixes: positions with `mask_id` are generated, others never touched.
    mask_id : int
    strategy : str
        ================= ============================================================ =====================
        strategy          a step commits                                               of
        ================= ============================================================ =====================
        ``confidence``    the largest p(token)                                         LLaDA low_confidence
        ``margin``        the largest lead of the first token over the second          Dream topk_margin
        ``entropy``       the smallest entropies                                       Dream
        ``random``        positions at random, chosen before the network is called     LLaDA random
        ``origin``        each with the chance that ancestral sampling gives it        Dream
        ``threshold``     all with p(token) >= `threshold`, and the largest            Fast-dLLM
        ``factor``        the n largest p, n the largest with (n + 1)(1 - p_n) <       Fast-dLLM
                          `factor`, and the largest
        ``entropy_bound`` smallest entropies H, as long as sum H - max H <=            EB-Sampler
                          `entropy_bound`, and the smallest
        ================= ============================================================ =====================
    num_steps : int, optional
        Evaluations for the first five, which share the tokens evenly among them; default: a token each.
    block_length : int, optional
        Complete blocks of so many positions one after the other (semi-autoregressive); default: one block.
        `num_steps` are shared among a sequence's blocks, the remainder to the first ones.
    threshold, factor, entropy_bound : float, optional
        >= 0, each with its strategy; default 0.9, 1.0 and 0.1 nats.
    alg_temp : float
        For the first three: with alg_temp > 0 positions are drawn without replacement with probabilities
        softmax(score / alg_temp), score = p, lead or -entropy (Dream).
    score_temperature : float
        > 0: scores are those of softmax(logits / score_temperature). LLaDA takes 1 whatever the temperature
        of the draw, Dream that temperature. Top-k, top-p and min-p do not enter scores.
    low_confidence_tokens : ints, optional
        Tokens that are committed last if drawn (LLaDA's way to put off the end of a text). Only the ranking
        changes. What LLaDA calls ``suppress_tokens`` is `forbidden`.
    return_stats : bool
        Return a `SampleStats` too.
    **options
        See `CommonOptions`; but `temperature` is 0 by default here.

    Returns
    -------
    int64 Tensor [B, L]
    SampleStats
        Only with `return_stats`; without times.

    Raises
    ------
    ValueError, TypeError
        A bad argument; the message names it.
    RuntimeError
        On a CPU, if there is a position where no token can be drawn.

    Notes
    -----
    Sources: LLaDA (arXiv 2502.09992), Dream (arXiv 2508.15487), Fast-dLLM (arXiv 2505.22618), EB-Sampler
    (arXiv 2505.24857). Sequences do not wait for each other, and each gets what it would get alone.

    p is ranked by the odds against the token, in float64: a softmax in bfloat16 is 1 for dozens of positions
    at once, and sorting then goes by place. Equal scores: the smaller position first.

    With ``random`` a position is drawn once and the result is that of `first_hitting_sample`, token for
    token. Elsewhere a candidate is drawn anew in each step, with noise of its own. All strategies that look
    at scores change the law that is sampled, which is their purpose.

    Examples
    --------
    >>> import torch
    >>> def model(tokens):  # sure of every token, and surest of the last ones
    ...     length = tokens.shape[1]
    ...     sure = torch.arange(1.0, length + 1)[:, None]
    ...     return (sure * torch.eye(length + 1)[:length]).expand(len(tokens), -1, -1)
    >>> tokens = torch.full((1, 6), 6)
    >>> text, stats = decode(model, tokens, mask_id=6, num_steps=3, return_stats=True)
    >>> text, stats.trace
    (tensor([[0, 1, 2, 3, 4, 5]]), tensor([[2, 2, 1, 1, 0, 0]], dtype=torch.int32))
    >>> stats = decode(model, tokens, mask_id=6, block_length=3, num_steps=4, return_stats=True)[1]
    >>> stats.trace
    tensor([[1, 0, 0, 3, 2, 2]], dtype=torch.int32)
    >>> text, stats = decode(model, tokens, mask_id=6, strategy="threshold", threshold=0.9, return_stats=True)
    >>> stats.nfe, stats.reveals.flatten().tolist()
    (4, [3, 1, 1, 1])
    """
    limits = {"threshold": threshold, "factor": factor, "entropy_bound": entropy_bound}
    settings = _check(strategy, limits, alg_temp, score_temperature, low_confidence_tokens)
    options.setdefault("temperature", 0.0)
    if strategy in _PLANNED:
        result, stats = _planned(strategy, model, tokens, mask_id, num_steps, block_length, options)
        return (result, stats) if return_stats else result
    if strategy in _ADAPTIVE and num_steps is not None:
        raise ValueError(f"`num_steps` does not go with {strategy!r}, which commits as many as it finds")
    if num_steps is not None:
        check_count("num_steps", num_steps, 1)
    run = start(model, tokens, mask_id, **options)
    if run.model.time != "none":
        raise ValueError(f"`model` must not take the time, decoding has none: it takes {run.model.time!r}")
    blocks = block_index(run.todo, block_length)
    plan = None if strategy in _ADAPTIVE else make_plan(block_counts(blocks), num_steps)
    result, stats = decode_loop(run, settings, blocks, plan, options.get("progress", False))
    return (result, stats) if return_stats else result


def _check(
    strategy: str,
    limits: dict[str, float | None],
    alg_temp: float,
    score_temperature: float,
    low_confidence_tokens: Sequence[int] | None,
) -> Settings:
    """Everything but the steps, which depend on the tokens."""
    if strategy not in STRATEGIES:
        raise ValueError(f"`strategy` must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
    numbers = {**limits, "alg_temp": alg_temp, "score_temperature": score_temperature}
    for name, value in numbers.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"`{name}` must be a number, got {value!r:.80}")
        if not 0.0 <= value < math.inf or (name == "score_temperature" and value == 0):
            least = "above" if name == "score_temperature" else "at least"
            raise ValueError(f"`{name}` must be finite and {least} 0, got {value}")
    for name, value in limits.items():
        if value is not None and name != strategy:
            raise ValueError(f"`{name}` is of strategy {name!r}, got it with {strategy!r}")
    if alg_temp and strategy not in _RANKED:
        raise ValueError(f"`alg_temp` is of strategies {', '.join(_RANKED)}, got it with {strategy!r}")
    if strategy in _PLANNED and low_confidence_tokens is not None:
        raise ValueError(f"`low_confidence_tokens` needs a strategy with scores, got {strategy!r}")
    limit = limits.get(strategy)
    tokens = () if low_confidence_tokens is None else tuple(low_confidence_tokens)
    for token in tokens:
        if isinstance(token, bool) or not isinstance(token, int):
            raise TypeError(f"`low_confidence_tokens` must hold ints, got {token!r:.80}")
        if token < 0:
            raise ValueError(f"`low_confidence_tokens` must not be negative, got {token}")
    return Settings(
        strategy,
        _ADAPTIVE.get(strategy, 0.0) if limit is None else limit,
        alg_temp,
        score_temperature,
        tokens,
    )


@dataclass(frozen=True)
class _DreamOrigin(MaskSchedule):
    """m = t on Dream's grid, from 1 to 1e-3, except that its last step reveals everything."""

    def _mask_prob(self, xp: Any, t: Any) -> Any:
        return xp.where(t > 0, 1e-3 + (1 - 1e-3) * t, 0.0)

    def _inverse(self, xp: Any, m: Any) -> Any:
        return (m - 1e-3) / (1 - 1e-3)


def _planned(
    strategy: str,
    model: Model,
    tokens: Tensor,
    mask_id: int,
    num_steps: int | None,
    block_length: int | None,
    options: CommonOptions,
) -> tuple[Tensor, SampleStats]:
    """Strategies that look at no score are samplers."""
    if strategy == "random":
        return first_hitting_sample(
            model,
            tokens,
            mask_id=mask_id,
            num_steps=num_steps,
            block_length=block_length,
            return_stats=True,
            **options,
        )
    if num_steps is None:
        raise ValueError("`num_steps` is needed by strategy 'origin'")
    if block_length is not None:
        raise ValueError("`block_length` does not go with strategy 'origin'")
    return ancestral_sample(
        model,
        tokens,
        mask_id=mask_id,
        num_steps=num_steps,
        schedule=_DreamOrigin(),
        t_end=0.0,
        return_stats=True,
        **options,
    )
