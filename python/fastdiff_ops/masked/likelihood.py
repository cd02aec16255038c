"""Likelihood of tokens under a masked diffusion model: unbiased estimates of its lower bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fastdiff_ops import ops
from fastdiff_ops.ops.random import PhiloxState, Seed
from fastdiff_ops.schedules._checks import check_count

from ._loop import Model, _sequence_rng
from .adapters import MaskedModel, as_model
from .drawing import Evaluation
from .schedule import MaskSchedule, check_schedule

Estimator = Literal["mask_count", "time", "any_order"]
ESTIMATORS = ("mask_count", "time", "any_order")
_CHUNK = 1 << 24  # logits in float64 at once


@torch.no_grad()
def log_likelihood(
    model: Model,
    tokens: Tensor,
    *,
    mask_id: int,
    num_samples: int = 128,
    estimator: Estimator = "mask_count",
    stratified: bool = True,
    prompt_mask: Tensor | None = None,
    schedule: MaskSchedule | None = None,
    attention_mask: Tensor | None = None,
    seed: Seed | Sequence[int] | Tensor = None,
    sequence_ids: Sequence[int] | Tensor | None = None,
) -> Tensor:
    """Estimate the evidence lower bound of log p(tokens): what masked diffusion models are trained on.

    The bound is the average, over orders of revealing, of the log-probability of the tokens one after the
    other. A model with consistent conditionals has the same value for all orders, and it is log p itself.

    Parameters
    ----------
    model : callable
        ``model(tokens [B, L]) -> logits [B, L, V]``, or an `as_model`.
    tokens : int64 Tensor [B, L]
        Without masks, but in the prompt.
    mask_id : int
    num_samples : int
        Masked copies of each sequence that are averaged over, one network call each; with "any_order",
        orders, a call for each token.
    estimator : str
        ==============  ===================================================================================
        ``mask_count``  mask n of the N tokens, n uniform, N / n times the sum of their log-probabilities
        ``time``        mask each with probability m, m uniform, 1 / m times that sum. Its variance is larger:
                        one token masked at small m counts 1 / m times
        ``any_order``   the sum along a whole order
        ==============  ===================================================================================
    stratified : bool
        Spread n or m evenly over the samples, with one random shift (LLaDA).
    prompt_mask : bool Tensor [B, L], optional
        True for tokens that are given: never masked, not counted.
    schedule : MaskSchedule, optional
        Needed by a model that takes the time, and used for nothing else: the bound depends on no schedule.
    attention_mask : Tensor [B, L], optional
        Passed on to the model; tokens where it is 0 are not counted.
    seed : int, torch.Generator, PhiloxState, None, or B ints
        One seed, or one for each sequence.
    sequence_ids : ints [B], optional
        Names of the sequences in a seed's stream; default their places in the batch.

    Returns
    -------
    float64 Tensor [B]
        In nats. Divide by the number of tokens and by ln 2 for bits a token.

    Raises
    ------
    ValueError, TypeError
        A bad argument; the message names it.

    Notes
    -----
    The three are estimates of one number (arXiv 2406.03736; 2409.02908, section 3.2; LLaDA, arXiv
    2502.09992). A model that takes the time is told one at which so many masks are likely: the mask
    probability is Beta(n, N - n + 1). For "any_order" it is that of the next reveal.

    A PhiloxState given as seed is moved on by `num_samples`.

    Examples
    --------
    >>> import torch
    >>> def model(tokens):  # 4 equally likely tokens
    ...     return torch.zeros(*tokens.shape, 5)
    >>> bound = log_likelihood(model, torch.tensor([[0, 3, 1]]), mask_id=4, num_samples=8, seed=0)
    >>> bool(torch.isclose(bound, -3 * torch.tensor(4.0, dtype=torch.float64).log()))
    True
    """
    network = as_model(model)
    counted = _check(tokens, mask_id, prompt_mask, attention_mask)
    check_count("num_samples", num_samples, 1)
    if estimator not in ESTIMATORS:
        raise ValueError(f"`estimator` must be one of {', '.join(ESTIMATORS)}, got {estimator!r}")
    check_schedule(schedule)
    if network.time != "none" and schedule is None:
        raise ValueError(f"`schedule` is needed by a model that takes the time, as {network.time!r}")
    rng = _sequence_rng(seed, sequence_ids, len(tokens), tokens.device)
    levels = _levels(rng, num_samples, stratified)
    total = torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
    for sample in range(num_samples):
        hits = ops.first_hitting_times(counted, rng=rng + rng.new_tensor([0, sample, 0]))
        for part in _PARTS[estimator](hits, levels[:, sample]):
            log_p = _sums(network, tokens, mask_id, part, schedule, attention_mask)
            total += torch.where(part.weight > 0, part.weight * log_p, 0.0)
    if isinstance(seed, PhiloxState):
        seed.advance(num_samples)
    return total / num_samples


class _Part(NamedTuple):
    """A sum of log-probabilities that one network call gives; by rank of the hits, first hit first.

    masked, summed : bool [B, L]
    weight : float64 [B]
    mask_prob : float64 [B], at which the network is asked
    order : int64 [B, L], positions
    """

    masked: Tensor
    summed: Tensor
    weight: Tensor
    mask_prob: Tensor
    order: Tensor


def _levels(rng: Tensor, num_samples: int, stratified: bool) -> Tensor:
    """Uniform numbers in (0, 1], float64 [B, num_samples]."""
    shape = (len(rng), 1 if stratified else num_samples)
    uniform: Tensor = torch.ops.fastdiff_ops.random_uniform.default(shape, rng, torch.float64)
    if stratified:
        shift = torch.arange(num_samples, dtype=torch.float64, device=rng.device) / num_samples
        uniform = (uniform + shift).remainder(1.0)
    return 1.0 - uniform


def _mask_count(hits: ops.HittingTimes, level: Tensor) -> Iterator[_Part]:
    """The n tokens that are hit last, n uniform."""
    total = hits.count.double()
    n = (level * total).ceil()
    rank = torch.arange(hits.order.shape[1], device=level.device)
    masked = (rank >= (total - n)[:, None]) & (hits.order >= 0)
    first = (total - n).long().clamp(max=len(rank) - 1)
    at = hits.times.gather(1, first[:, None])[:, 0]
    yield _Part(masked, masked, torch.where(n > 0, total / n, 0.0), at, hits.order.long())


def _time(hits: ops.HittingTimes, level: Tensor) -> Iterator[_Part]:
    """Whatever is hit below the level."""
    masked = (hits.times < level[:, None]) & (hits.order >= 0)
    yield _Part(masked, masked, 1.0 / level, level, hits.order.long())


def _any_order(hits: ops.HittingTimes, level: Tensor) -> Iterator[_Part]:
    """Each token where it is hit, given those hit before."""
    rank = torch.arange(hits.order.shape[1], device=level.device)
    for i in range(int(hits.count.max())):
        masked = (rank >= i) & (hits.order >= 0)
        weight = (hits.count > i).double()
        yield _Part(masked, masked & (rank == i), weight, hits.times[:, i], hits.order.long())


_PARTS: dict[str, Callable[[ops.HittingTimes, Tensor], Iterator[_Part]]] = {
    "mask_count": _mask_count,
    "time": _time,
    "any_order": _any_order,
}


def _sums(
    network: MaskedModel,
    tokens: Tensor,
    mask_id: int,
    part: _Part,
    schedule: MaskSchedule | None,
    attention_mask: Tensor | None,
) -> Tensor:
    """Sum of log p(token) over the part's positions, all its masks masked: float64 [B]."""
    columns = torch.where(part.masked, part.order, tokens.shape[1])
    hidden = torch.nn.functional.pad(tokens, (0, 1)).scatter(1, columns, mask_id)[:, :-1].contiguous()
    m = int(part.summed.sum(1).max())
    if m == 0:
        return torch.zeros_like(part.weight)
    place = part.summed.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :m]
    valid = part.summed.gather(1, place)
    positions = part.order.gather(1, place).masked_fill(~valid, -1)
    condition = None
    if schedule is not None and network.time != "none":
        condition = schedule.conditioning(part.mask_prob, network.time).float()
    out = network(hidden, positions.int(), condition=condition, attention_mask=attention_mask)
    rows = Evaluation(out.values, None, out.gathered).rows(positions)
    targets = tokens.gather(1, positions.clamp(min=0)).masked_fill(~valid, 0).flatten()
    vocab = out.values.shape[2]
    if targets.device.type == "cpu" and int(targets.max()) >= vocab:
        raise ValueError(f"`tokens` must be below the model's {vocab} tokens, got {int(targets.max())}")
    log_p = _log_probabilities(out.values.flatten(0, 1), rows, targets, mask_id).view(valid.shape)
    return torch.where(valid, log_p, 0.0).sum(1)


def _log_probabilities(logits: Tensor, rows: Tensor, targets: Tensor, mask_id: int) -> Tensor:
    """log p(target) in rows of the logits, the mask excluded: float64, some rows at a time."""
    step = max(1, _CHUNK // logits.shape[1])
    parts = []
    for some, target in zip(rows.split(step), targets.split(step), strict=True):
        row = logits.index_select(0, some).double()
        if mask_id < row.shape[1]:
            row[:, mask_id] = -torch.inf
        parts.append(row.gather(1, target[:, None])[:, 0] - row.logsumexp(1))
    return torch.cat(parts)


def _check(tokens: Tensor, mask_id: int, prompt_mask: Tensor | None, attention_mask: Tensor | None) -> Tensor:
    """Which tokens count, bool [B, L]."""
    if not isinstance(tokens, Tensor) or tokens.dtype != torch.int64:
        got = getattr(tokens, "dtype", type(tokens).__name__)
        raise TypeError(f"`tokens` must be an int64 Tensor, got {got}")
    if tokens.dim() != 2 or 0 in tokens.shape:
        raise ValueError(f"`tokens` must have shape [B, L], B and L at least 1, got {tuple(tokens.shape)}")
    if isinstance(mask_id, bool) or not isinstance(mask_id, int) or mask_id < 0:
        raise ValueError(f"`mask_id` must be an int of at least 0, got {mask_id!r}")
    counted = torch.ones_like(tokens, dtype=torch.bool)
    for name, value in (("prompt_mask", prompt_mask), ("attention_mask", attention_mask)):
        if value is None:
            continue
        if not isinstance(value, Tensor) or value.shape != tokens.shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"`{name}` must be a Tensor of shape {tuple(tokens.shape)}, got {got}")
        if name == "prompt_mask" and value.dtype != torch.bool:
            raise TypeError(f"`prompt_mask` must be a bool tensor, got {value.dtype}")
        counted &= ~value if name == "prompt_mask" else value != 0
    if bool((counted & (tokens == mask_id)).any()):
        raise ValueError(f"`tokens` must hold no `mask_id` ({mask_id}) outside of the prompt")
    return counted
