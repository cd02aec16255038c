"""The next token of every request: what a decoding loop or a serving engine calls once per step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict, overload

import torch
from torch import Tensor

from .._load import load_ops
from . import _rows
from ._rows import Seeds
from .categorical import MAX_DRAWS
from .inverse_cdf import inverse_cdf
from .random import _integer
from .threshold import row_filters, threshold_of_rows

if TYPE_CHECKING:
    from typing_extensions import Unpack

load_ops()

_argmax = torch.ops.fastdiff_ops.gumbel_argmax.default
_topk = torch.ops.fastdiff_ops.gumbel_topk.default
_ENTROPY, _LOGSUMEXP = 1, 3  # columns of gumbel_argmax's statistics

Rows = tuple[Tensor | None, ...]  # arguments of the operators from logits to forbidden
Noise = tuple[Tensor, Tensor | None, int]  # rng, row ids, stream
_LAZY = _rows.METHODS["lazy"]


class CategoricalSample(NamedTuple):
    """Tokens, and their log-probabilities in nats: float64 of the tokens' shape, to about 1e-6.

    -inf where there is no token.
    """

    tokens: Tensor
    """int64; -1 where no token is left."""
    logprob: Tensor
    """Of the distribution that was drawn from, softmax(l / temperature) over what top-k, top-p and min-p keep
    of the processed logits l. 0 at temperature 0. Without replacement: of a first draw."""
    raw_logprob: Tensor
    """Of softmax(l): the model's own, whatever the temperature and the filters."""


class SampleOptions(TypedDict, total=False):
    """The options of `categorical_sample`, which explains them."""

    temperature: float | Tensor
    top_k: int | Tensor | None
    top_p: float | Tensor | None
    min_p: float | Tensor | None
    num_samples: int | None
    replacement: bool
    seed: Seeds
    offset: int | Tensor
    rng: Tensor | None
    row_ids: Tensor | None
    bias: Tensor | None
    suppressed: Tensor | None
    forbidden: Tensor | Sequence[int] | int | None
    stream: str
    is_logits: bool


@overload
def categorical_sample(
    logits: Tensor, *, return_logprob: Literal[False] = ..., **options: Unpack[SampleOptions]
) -> Tensor: ...
@overload
def categorical_sample(
    logits: Tensor, *, return_logprob: Literal[True], **options: Unpack[SampleOptions]
) -> CategoricalSample: ...
@overload
def categorical_sample(
    logits: Tensor, *, return_logprob: bool, **options: Unpack[SampleOptions]
) -> Tensor | CategoricalSample: ...
def categorical_sample(
    logits: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    top_k: int | Tensor | None = None,
    top_p: float | Tensor | None = None,
    min_p: float | Tensor | None = None,
    num_samples: int | None = None,
    replacement: bool = True,
    seed: Seeds = None,
    offset: int | Tensor = 0,
    rng: Tensor | None = None,
    row_ids: Tensor | None = None,
    bias: Tensor | None = None,
    suppressed: Tensor | None = None,
    forbidden: Tensor | Sequence[int] | int | None = None,
    stream: str = "auto",
    is_logits: bool = True,
    return_logprob: bool = False,
) -> Tensor | CategoricalSample:
    """Draw tokens for a batch of requests, each with its own seed, draw number and parameters.

    With a seed per request, its tokens depend on its own logits, seed and offset alone: not on the batch it
    is served in, threads or device. Nothing of the logits' size is allocated, and no argument that is a
    tensor is looked at by the host.

    Parameters
    ----------
    logits : Tensor [..., V]
        float16, bfloat16, float32 or float64, one row per request; the last axis dense. NaN is never drawn.
    temperature : float or Tensor [R]
        T >= 0; 0 takes the largest logit, the first of equal ones.
    top_k, top_p, min_p : number or Tensor [R], optional
        Filters on softmax(l / T): see `sampling_threshold`. 0, 1 and 0 mean off.
    num_samples : int, optional
        Draws per request, in a last axis. Default: one, without that axis.
    replacement : bool
        True: the draws are independent; draw j is that of offset + j, so a next call goes on at offset +
        num_samples. False: they are different tokens, the first drawn first (see `gumbel_topk`).
    seed : see `make_rng`
        One seed for all requests, or R of them: ints, or an int64 Tensor on the logits' device. A
        PhiloxState is read, not advanced.
    offset : int, or int64 Tensor [R]
        How many draws of the request came before: below 2^32. The same seed and offset give the same noise.
    rng : int64 Tensor [2] or [R, 3], instead of `seed` and `offset`
        (seed, offset), or (seed, offset, row id) of each request.
    row_ids : int64 Tensor [R], optional
        Names of the requests in the stream. Default: with one seed 0..R-1, with a seed each 0.
    bias, suppressed, forbidden, stream
        See `gumbel_argmax`.
    is_logits : bool
        False: `logits` are probabilities, not normalised, drawn from as they are (see `inverse_cdf`).
    return_logprob : bool
        Return log-probabilities as well. This reads the logits once or twice more.

    Returns
    -------
    int64 Tensor, the leading shape of `logits`, or [..., num_samples]
        -1 where no token is left.
    CategoricalSample
        (tokens, logprob, raw_logprob), with `return_logprob`.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, dtype, device or range; if probabilities come with options for
        logits.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0]])
    >>> categorical_sample(logits, temperature=torch.tensor([0.0, 1.0]), top_k=2, seed=[7, 8]).shape
    torch.Size([2])
    >>> drawn = categorical_sample(logits, top_k=1, seed=[7, 8], offset=3, return_logprob=True)
    >>> drawn.tokens, drawn.logprob.exp().round(decimals=3), drawn.raw_logprob.exp().round(decimals=3)
    (tensor([3, 0]), tensor([1., 1.], dtype=torch.float64), tensor([0.6440, 0.6440], dtype=torch.float64))
    >>> categorical_sample(logits[1:], num_samples=4, replacement=False, seed=1).sort().values
    tensor([[0, 1, 2, 3]])
    """
    _rows.check_logits("logits", logits)
    shape, width = logits.shape[:-1], logits.shape[-1]
    n_rows, n = shape.numel(), _number_of_draws(num_samples, replacement, width)
    state = _request_rng(seed, offset, rng, n_rows, logits)
    names = None if row_ids is None else _rows.ids("row_ids", row_ids, n_rows, logits)
    logprob = raw = None
    if is_logits:
        row, _ = _rows.row_arguments(
            logits, temperature, None, None, None, bias, suppressed, forbidden, width
        )
        theta = share = None
        filters = row_filters(top_k, top_p, min_p, n_rows, logits)
        if any(f is not None for f in filters):
            theta, share = threshold_of_rows(row, filters, kept=return_logprob)
        noise = (state, names, _rows.stream_number(stream, width))
        tokens = _draws(row, theta, noise, n) if replacement else _distinct(row, theta, noise, n)
        if return_logprob:
            logprob, raw = _log_probabilities(row, tokens, share, not _is_one(temperature))
    else:
        plain = replacement and _is_one(temperature)
        if not plain or any(x is not None for x in (top_k, top_p, min_p, bias, suppressed, forbidden)):
            raise ValueError(
                "probabilities (`is_logits=False`) are drawn from as they are, with replacement: "
                "`temperature`, `top_k`, `top_p`, `min_p`, `bias`, `suppressed`, `forbidden` are for logits"
            )
        draws = [inverse_cdf(logits, rng=_advanced(state, j), row_ids=names) for j in range(n)]
        tokens = torch.stack([d.reshape(-1) for d in draws], 1)
        if return_logprob:
            logprob = raw = _log_of_probabilities(logits, tokens)
    wanted = shape if num_samples is None else (*shape, n)
    if logprob is None or raw is None:
        return tokens.view(wanted)
    return CategoricalSample(tokens.view(wanted), logprob.view(wanted), raw.view(wanted))


def _is_one(temperature: float | Tensor) -> bool:
    return not isinstance(temperature, Tensor) and temperature == 1


def _number_of_draws(num_samples: int | None, replacement: bool, width: int) -> int:
    if num_samples is None:
        return 1
    if isinstance(num_samples, bool) or not isinstance(num_samples, int):
        raise TypeError(f"`num_samples` must be an int, got {type(num_samples).__name__}")
    most = None if replacement else min(MAX_DRAWS, width)
    if num_samples < 1 or (most is not None and num_samples > most):
        wanted = "at least 1" if most is None else f"in [1, {most}] without replacement"
        raise ValueError(f"`num_samples` must be {wanted}, got {num_samples}")
    return num_samples


def _request_rng(
    seed: Seeds, offset: int | Tensor, rng: Tensor | None, n_rows: int, logits: Tensor
) -> Tensor:
    """Return `rng` [2] or [R, 3]; seeds and offsets that are tensors on the device stay there."""
    offsets = _rows.ids("offset", offset, n_rows, logits) if isinstance(offset, Tensor) else None
    if rng is None and isinstance(seed, Tensor) and seed.dim() > 0 and seed.device == logits.device:
        seeds = _rows.ids("seed", seed, n_rows, logits)
        assert seeds is not None
        number = 0 if isinstance(offset, Tensor) else _integer("offset", offset, 0, 1 << 32)
        zero = torch.zeros_like(seeds)
        state = torch.stack([seeds, zero + number, zero], 1)
    else:
        number = 0 if isinstance(offset, Tensor) else offset
        state = _rows.rng_of(seed, rng, number, n_rows, logits, "requests")
        if rng is not None and offsets is not None:
            raise ValueError("give `rng`, or `seed` and `offset`, not both")
    return state if offsets is None else _advanced(_of_rows(state, n_rows), offsets)


def _of_rows(state: Tensor, n_rows: int) -> Tensor:
    """Return `rng` [R, 3], in which one state numbers its rows from 0."""
    if state.dim() == 2:
        return state
    ids = torch.arange(n_rows, device=state.device)
    return torch.cat([state.expand(n_rows, 2), ids[:, None]], 1)


def _advanced(state: Tensor, draws: int | Tensor) -> Tensor:
    """Return a state whose offsets are `draws` further on."""
    if isinstance(draws, int) and draws == 0:
        return state
    state = state.clone()
    state[..., 1] += draws
    return state


def _draws(row: Rows, theta: Tensor | None, noise: Noise, n: int) -> Tensor:
    """Return n independent draws of every row [R, n], of consecutive offsets."""
    logits, heat, rows, base, scale, bias, suppressed, forbidden = row
    state, names, stream = noise
    assert logits is not None and heat is not None
    if n > 1 and any(table is not None and table.shape[0] > 1 for table in (bias, suppressed)):
        # tables of every row would have to be repeated
        steps = [_draws(row, theta, (_advanced(state, j), names, stream), 1) for j in range(n)]
        return torch.cat(steps, 1)
    n_rows, width = (logits if rows is None else rows).shape[0], logits.shape[1]
    if n > 1:
        state = _of_rows(state, n_rows).repeat_interleave(n, 0)
        state[:, 1] += torch.arange(n, device=state.device).repeat(n_rows)
        rows = torch.arange(n_rows, device=state.device) if rows is None else rows
        rows, names = (x if x is None else x.repeat_interleave(n) for x in (rows, names))
        heat, theta = (
            x if x is None or x.shape[0] != n_rows else x.repeat_interleave(n) for x in (heat, theta)
        )
    tokens: Tensor = _argmax(
        logits, heat, state, names, rows, base, scale, bias, suppressed, forbidden, theta, None, 0, width,
        stream, _LAZY,
    )[0]  # fmt: skip
    return tokens.view(n_rows, n)


def _distinct(row: Rows, theta: Tensor | None, noise: Noise, n: int) -> Tensor:
    """Return n draws without replacement of every row, [R, n]."""
    logits, heat, *processing = row
    state, names, stream = noise
    assert logits is not None
    tokens: Tensor = _topk(logits, heat, state, names, *processing, theta, 0, logits.shape[1], stream, n)[0]
    return tokens


def _log_probabilities(
    row: Rows, tokens: Tensor, share: Tensor | None, tempered: bool
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities [R, n] of the filtered, tempered distribution and of the raw one."""
    logits, heat, rows, _, _, bias, *_ = row
    assert logits is not None and heat is not None
    n_rows, width = tokens.shape[0], logits.shape[1]
    place = torch.arange(n_rows, device=tokens.device) if rows is None else rows
    at = tokens.clamp(min=0)
    value = logits[place[:, None], at].to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    if bias is not None:
        value = value + bias.expand(n_rows, -1).gather(1, at)
    value = value.double()
    state = torch.zeros(2, dtype=torch.int64, device=tokens.device)

    def of_softmax(scale: Tensor) -> Tensor:
        greedy = torch.zeros_like(scale[:1])
        measured = (logits, greedy, state, None, *row[2:], None, scale, 0, width, 0, _LAZY)
        stats = _argmax(*measured)[2]
        normaliser, entropy = stats[:, _LOGSUMEXP, None], stats[:, _ENTROPY, None]
        infinite = torch.where(value == torch.inf, -entropy, -torch.inf)  # these share the mass
        finite = value / scale.double()[:, None] - normaliser
        logprob = torch.where(normaliser == torch.inf, infinite, finite).clamp(max=0.0)
        return torch.where(tokens < 0, -torch.inf, logprob)

    raw = of_softmax(torch.ones_like(heat[:1]))
    logprob = of_softmax(torch.where(heat == 0, 1.0, heat)) if tempered else raw
    if share is not None:
        logprob = (logprob - share.log()[:, None]).clamp(max=0.0)
    return torch.where((heat == 0)[:, None] & (tokens >= 0), 0.0, logprob), raw


def _log_of_probabilities(probs: Tensor, tokens: Tensor) -> Tensor:
    flat = probs.reshape(-1, probs.shape[-1]) if probs.dim() != 2 else probs
    flat = flat.detach()
    chosen = flat.gather(1, tokens.clamp(min=0)).double()
    logprob = chosen.log() - flat.sum(1, keepdim=True, dtype=torch.float64).log()
    return torch.where(tokens < 0, -torch.inf, logprob)
