"""Masked diffusion that may take tokens back: ReMDM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdiff_ops import ops
from fastdiff_ops.schedules._checks import check_count

from ._loop import CommonOptions, Model, Run, SampleStats, start
from ._scored import Record, draw_scored, gather, write
from .schedule import LogLinear, MaskSchedule, check_schedule

if TYPE_CHECKING:
    from typing_extensions import Unpack

Rule = Literal["cap", "rescale"]
Grid = NDArray[np.float64]


@overload
def remdm_sample(
    model: Model,
    tokens: Tensor,
    *,
    mask_id: int,
    num_steps: int,
    return_stats: Literal[True],
    schedule: MaskSchedule | None = ...,
    rule: Rule = ...,
    eta: float = ...,
    by_confidence: bool = ...,
    loop: tuple[float, float, float] | None = ...,
    **options: Unpack[CommonOptions],
) -> tuple[Tensor, SampleStats]: ...
@overload
def remdm_sample(
    model: Model,
    tokens: Tensor,
    *,
    mask_id: int,
    num_steps: int,
    return_stats: Literal[False] = ...,
    schedule: MaskSchedule | None = ...,
    rule: Rule = ...,
    eta: float = ...,
    by_confidence: bool = ...,
    loop: tuple[float, float, float] | None = ...,
    **options: Unpack[CommonOptions],
) -> Tensor: ...
@torch.no_grad()
def remdm_sample(
    model: Model,
    tokens: Tensor,
    *,
    mask_id: int,
    num_steps: int,
    schedule: MaskSchedule | None = None,
    rule: Rule = "cap",
    eta: float = 0.02,
    by_confidence: bool = False,
    loop: tuple[float, float, float] | None = None,
    return_stats: bool = False,
    **options: Unpack[CommonOptions],
) -> Tensor | tuple[Tensor, SampleStats]:
    """Fill in masked tokens along a time grid, masking generated ones again now and then to redraw them.

    Parameters
    ----------
    model, tokens, mask_id
        As in `first_hitting_sample`. Only positions that are masked in `tokens` are ever masked again.
    num_steps : int
        Steps of the uniform grid from t = 1 to 0; the last one leaves no mask.
    schedule : MaskSchedule, optional
        Default: log-linear, m(t) = t.
    rule : "cap" or "rescale"
        Probability sigma that a step masks a token again: min(eta, sigma_max), or eta sigma_max.
    eta : float in [0, 1]
        With 0 the sampler is the ancestral one.
    by_confidence : bool
        Divide sigma among the tokens of a sequence by softmax(-p), p the probability a token had when it was
        drawn: unsure ones are masked more often. Each then gets a small part of sigma.
    loop : (t_on, t_off, alpha_on), optional
        Remask only for t in (t_off, t_on], where the mask probability is held at 1 - alpha_on; what comes
        before and after is squeezed into the time that is left, without remasking. The paper's is (0.55,
        0.05, 0.9).
    return_stats : bool
        Return a `SampleStats` too. Its `reveals` count what was drawn in each step, so their sum may exceed
        the number of positions.
    **options
        See `CommonOptions`; there are no blocks for `eos_id` to end.

    Returns
    -------
    int64 Tensor [B, L]
    SampleStats
        Only with `return_stats`.

    Raises
    ------
    ValueError, TypeError
        A bad argument; the message names it.
    RuntimeError
        On a CPU, if there is a position where no token can be drawn.

    Notes
    -----
    Wang et al., "Remasking Discrete Diffusion Models with Inference-Time Scaling", arXiv 2503.00307. A step
    from t to s masks a token with probability sigma <= sigma_max = min(1, m(s) / (1 - m(t))) and reveals a
    mask with probability (m(t) - m(s) + sigma (1 - m(t))) / m(t). The probability of being masked at s is
    then m(s), for every sigma; by confidence this holds on average over a sequence's positions.

    A step that reveals nothing makes no network call. Whether it does is asked of the device, once a step. By
    confidence, sigma is the number of a sequence's tokens that a step masks, on average.

    Examples
    --------
    >>> import torch
    >>> def model(tokens):
    ...     return torch.zeros(*tokens.shape, 3)
    >>> masks = torch.full((1, 40), 3)
    >>> text, stats = remdm_sample(
    ...     model, masks, mask_id=3, num_steps=50, eta=0.1, seed=0, return_stats=True
    ... )
    >>> bool((text < 3).all()), bool(stats.reveals.sum() > 40)
    (True, True)
    """
    check_count("num_steps", num_steps, 1)
    if rule not in ("cap", "rescale"):
        raise ValueError(f"`rule` must be 'cap' or 'rescale', got {rule!r}")
    if isinstance(eta, bool) or not isinstance(eta, (int, float)):
        raise TypeError(f"`eta` must be a number, got {eta!r:.80}")
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"`eta` must be in [0, 1], got {eta}")
    if options.get("eos_id") is not None:
        raise ValueError("`eos_id` ends blocks, which this sampler does not have")
    check_schedule(schedule)
    schedule = LogLinear() if schedule is None else schedule
    grid, looping = _grid(schedule, num_steps, loop)
    sigma, reveal = transition(grid, eta * looping, rule)
    run = start(model, tokens, mask_id, **options)
    condition: Tensor | None = None
    if run.model.time != "none":
        if run.model.time == "sigma" and grid[0] == 1.0:
            raise ValueError(
                "`schedule` must stay below mask probability 1: the model takes sigma, infinite there"
            )
        told = schedule.conditioning(grid[:-1], run.model.time)
        condition = torch.from_numpy(told).to(tokens.device, torch.float32)
    progress = options.get("progress", False)
    result, stats = _run(run, grid, sigma, reveal, condition, by_confidence, progress)
    times = torch.from_numpy(schedule.inverse(grid[:-1]))[: run.step, None]
    stats = stats._replace(times=times.to(tokens.device).expand(-1, len(tokens)))
    return (result, stats) if return_stats else result


def _grid(
    schedule: MaskSchedule, num_steps: int, loop: tuple[float, float, float] | None
) -> tuple[Grid, Grid]:
    """Mask probabilities at the grid's times, the last one 0; and in which steps tokens are masked again."""
    t = np.linspace(1.0, 0.0, num_steps + 1)
    looping = np.ones(num_steps)
    if loop is not None:
        if not isinstance(loop, tuple) or len(loop) != 3:
            raise TypeError(f"`loop` must be a tuple (t_on, t_off, alpha_on), got {loop!r:.80}")
        t_on, t_off, alpha_on = loop
        if not (0.0 <= t_off < t_on <= 1.0 and 0.0 < alpha_on < 1.0):
            raise ValueError(f"`loop` must be (t_on, t_off, alpha_on), 0 <= t_off < t_on <= 1, got {loop}")
        tiny = 1e-12  # the grid's own rounding
        looping = ((t[:-1] <= t_on + tiny) & (t[1:] >= t_off - tiny)).astype(np.float64)
        held = float(schedule.inverse(1.0 - alpha_on))
        before = held + (1.0 - held) * (t - t_on) / max(1.0 - t_on, 1e-300)
        after = held * t / max(t_off, 1e-300)
        t = np.where(t > t_on, before, np.where(t >= t_off, held, after))
    grid = np.asarray(schedule.mask_prob(np.clip(t, 0.0, 1.0)), dtype=np.float64).copy()
    grid[-1] = 0.0
    if not (np.diff(grid) <= 0).all() or not (grid[:-1] > 0).all():
        raise ValueError("`schedule` must decrease along the grid of times, and be above 0 before its end")
    return grid, looping


def transition(grid: Grid, eta: float | Grid, rule: Rule) -> tuple[Grid, Grid]:
    """Return the probabilities of each step of the grid: of masking a token, and of revealing a mask.

    Parameters
    ----------
    grid : float64 [N + 1]
        Mask probabilities, falling.
    eta : float or float64 [N]
    rule : "cap" or "rescale"
    """
    now, after = grid[:-1], grid[1:]
    shown = 1.0 - now
    largest = np.divide(after, shown, out=np.ones_like(now), where=shown > after)
    sigma = np.minimum(eta, largest) if rule == "cap" else eta * largest
    return sigma, np.minimum(1.0, (now - after + sigma * shown) / now)


def _run(
    run: Run,
    grid: Grid,
    sigma: Grid,
    reveal: Grid,
    condition: Tensor | None,
    by_confidence: bool,
    progress: bool,
) -> tuple[Tensor, SampleStats]:
    record = Record(run)
    confidence = torch.zeros(run.tokens.shape, dtype=torch.float64, device=run.tokens.device)
    ended = False
    run.expect(len(sigma), progress)
    try:
        for step in range(len(sigma)):
            masked = run.todo & (run.tokens == run.mask_id)
            shown = run.todo & ~masked
            if by_confidence:
                prob = _by_confidence(confidence, masked, shown, sigma[step], grid[step], grid[step + 1])
            else:
                prob = torch.where(masked, float(reveal[step]), float(sigma[step])).double()
            # one number says for every position whether it changes: a mask is revealed, or a token masked
            changes = ops.remask_(
                torch.zeros_like(run.tokens), prob, 1, eligible=run.todo, rng=run.at_draw(step)
            )
            opened = changes & masked
            columns = gather(opened, int(opened.sum(1).max()))
            revealed = columns.valid
            if columns.order.shape[1]:
                told = None if condition is None else condition[step].expand(run.batch)
                evaluation = run.evaluate(columns.positions, told)
                if by_confidence:
                    drawn = draw_scored(run, evaluation, columns, step, 1.0)
                    write(run, columns, revealed, drawn.tokens)
                    kept = confidence.gather(1, columns.order)
                    confidence.scatter_(1, columns.order, torch.where(revealed, drawn.logprob.exp(), kept))
                    tokens = drawn.tokens
                else:  # the same tokens, without their probabilities
                    tokens = run.reveal_(evaluation, columns.positions, step)
                revealed = revealed & (tokens >= 0)
            run.tokens.masked_fill_(changes & shown, run.mask_id)
            record.step(run, columns, revealed)
            ended = run.done()
            if ended:
                break
        tokens, failed = run.finish(len(sigma), ended)
    finally:
        run.close()
    return tokens, record.stats(run, failed)


def _by_confidence(
    confidence: Tensor, masked: Tensor, shown: Tensor, sigma: float, now: float, after: float
) -> Tensor:
    """Probabilities of change where a sequence's tokens share sigma, the unsure ones more of it.

    sigma of n positions are masked on average, and masks are revealed accordingly.
    """
    share = (-confidence).masked_fill(~shown, -torch.inf).softmax(1).nan_to_num()
    n = (masked | shown).sum(1, keepdim=True).clamp(min=1)
    lost = sigma * shown.any(1, keepdim=True) / n
    return torch.where(masked, (now - after + lost) / now, sigma * share).clamp(max=1.0)
