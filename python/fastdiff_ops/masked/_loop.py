"""What every sampler shares: checked arguments, the state of a run, evaluation, commitment.

A sampler decides which positions to reveal from which evaluation; `Run` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import torch
from torch import Tensor

from fastdiff_ops.ops.random import PhiloxState, Seed, make_rng

from .adapters import MaskedModel, as_model
from .drawing import Draw, Evaluation, Number, make_draw

if TYPE_CHECKING:
    from typing_extensions import Unpack

Model = Callable[..., Any] | MaskedModel
Callback = Callable[[int, Tensor], Any]


class CommonOptions(TypedDict, total=False):
    """Keyword arguments that all samplers take.

    Attributes
    ----------
    temperature : float or [B]
        Of the draw, default 1: logits are divided by it. 0 takes the largest.
    top_k, top_p, min_p : number or [B], optional
        Keep the k largest logits (ties included); the smallest set with at least this probability; those with
        at least this fraction of the largest probability. All at once: what every one of them keeps.
    cfg_scale : float or [B]
        Guidance: logits u + (w + 1) (c - u), u with the prompt masked out (LLaDA's convention, arXiv
        2502.09992). Default 0: none, and no second evaluation.
    unconditional : Tensor [B, L], optional
        With `cfg_scale`, what the network sees instead of the prompt: int64 tokens, or bool True for
        what is masked out. Default: everything that is not generated is masked.
    bias : Tensor [V] or [B, V], optional
        Added to the logits.
    suppressed : bool Tensor [V] or [B, V], optional
        True for tokens that are never drawn.
    forbidden : int or ints, optional
        Tokens that are never drawn. The mask never is.
    seed : int, torch.Generator, PhiloxState, None, or one int for each sequence
        Of all draws. None draws a seed. With a seed per sequence no result depends on the batch.
    sequence_ids : ints [B], optional
        Names of the sequences in the random stream, each once; default their places in the batch. The same id
        gives the same result in any batch. With a seed per sequence: default 0.
    attention_mask : Tensor [B, L], optional
        Passed on to the network; nothing is generated where it is 0.
    frozen : bool Tensor [B, L], optional
        True for masks that stay.
    eos_id, pad_id : int, optional
        A sequence in which a finished block contains `eos_id` is complete: the rest of what was to be
        generated is filled with `pad_id` (default `eos_id`). Reads the tokens once a block.
    callback : callable, optional
        Called with (step, tokens [B, L]) after each step; a true return value ends the run there. The tokens
        are the run's own, which it goes on to change: clone what is to be kept.
    progress : bool
        Show a tqdm bar.
    """

    temperature: Number
    top_k: Number | None
    top_p: Number | None
    min_p: Number | None
    cfg_scale: Number
    unconditional: Tensor | None
    bias: Tensor | None
    suppressed: Tensor | None
    forbidden: Sequence[int] | Tensor | int | None
    seed: Seed | Sequence[int] | Tensor
    sequence_ids: Sequence[int] | Tensor | None
    attention_mask: Tensor | None
    frozen: Tensor | None
    eos_id: int | None
    pad_id: int | None
    callback: Callback | None
    progress: bool


_DRAW_OPTIONS = ("temperature", "top_k", "top_p", "min_p", "cfg_scale", "bias", "suppressed", "forbidden")


class SampleStats(NamedTuple):
    """What a run did.

    Attributes
    ----------
    nfe : int
        Evaluations of the network; both branches of guidance are one.
    reveals : int64 Tensor [steps, B], on the host
        Tokens revealed by each step.
    times : float64 Tensor [steps, B]
        Times at which the network was evaluated for each sequence, NaN where it revealed nothing; mask
        probabilities where no schedule was given. Empty for samplers without times.
    trace : int32 Tensor [B, L]
        Step in which a position was last revealed; -1 elsewhere: the order of unmasking.
    failed_rows : int64 Tensor [B]
        Positions without a token that could be drawn (every logit -inf). On a CPU that is a RuntimeError.
    """

    nfe: int
    reveals: Tensor
    times: Tensor
    trace: Tensor
    failed_rows: Tensor


@dataclass
class Run:
    """The state of a run. `tokens`, `todo`, `rng`, ... hold the sequences that are still being worked on.

    Attributes
    ----------
    tokens : int64 Tensor [A, L]
        Mutated; the caller's tensor is not.
    todo : bool Tensor [A, L]
        What was to be generated at the start.
    counts : list of int, for all B sequences
        How many positions that is.
    rng : int64 Tensor [A, 3]
        (seed, offset, sequence id): the operators' random stream at draw 0.
    index : int64 Tensor [A] or None
        Places of these sequences in the batch; None for all.
    """

    model: MaskedModel
    mask_id: int
    draw: Draw
    tokens: Tensor
    todo: Tensor
    counts: list[int]
    rng: Tensor
    attention_mask: Tensor | None
    unconditional: Tensor | None
    eos_id: int | None
    pad_id: int
    callback: Callback | None
    seed: Any
    result: Tensor
    required: Tensor  # bool [B, L]: where a token must be in the end
    index: Tensor | None = None
    bar: Any = None
    nfe: int = 0
    step: int = 0
    streams: dict[int, Tensor] = field(default_factory=dict)  # made once each: no transfer in the loop

    @property
    def batch(self) -> int:
        """Number of sequences still in work."""
        return self.tokens.shape[0]

    def expect(self, steps: int, progress: bool) -> None:
        """Open the progress bar, now that the number of steps is known."""
        if progress:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=steps, unit="step")

    # -- what a step consists of

    def evaluate(self, positions: Tensor | None = None, condition: Tensor | None = None) -> Evaluation:
        """Evaluate the network, with guidance both branches in one call.

        `positions` int [A, k] are the rows needed (-1: none), `condition` float32 [A] what it is told.
        """
        self.nfe += 1
        tokens, attention = self.tokens, self.attention_mask
        if self.unconditional is not None:
            tokens = torch.cat([tokens, torch.where(self.todo, tokens, self.unconditional)])
            attention = None if attention is None else attention.repeat(2, 1)
            condition = None if condition is None else condition.repeat(2)
            positions = None if positions is None else positions.repeat(2, 1)
        values, gathered = self.model(tokens, positions, condition=condition, attention_mask=attention)
        if values.shape[2] > 1 and values.stride(2) != 1:
            raise ValueError(
                f"the model must return logits dense along their last axis, got stride {values.stride(2)}: "
                "make them contiguous first"
            )
        if self.nfe == 1:
            self.draw.fit(values.shape[2])
        if self.unconditional is None:
            return Evaluation(values, None, gathered)
        logits, uncond = values.chunk(2)
        return Evaluation(logits, uncond, gathered)

    def reveal_(self, evaluation: Evaluation, positions: Tensor, draw: int = 0) -> Tensor:
        """Draw tokens for `positions` (int32 [A, k], -1: none), write them, and return them [A, k]."""
        return self.draw.step_(self.tokens, evaluation, positions, self.at_draw(draw))

    def at_draw(self, draw: int) -> Tensor:
        """The random stream of the sequences' `draw`-th draw; each position may be drawn once in each."""
        if draw not in self.streams:
            self.streams[draw] = self.rng + torch.tensor([0, draw, 0], device=self.rng.device)
        return self.streams[draw]

    def row_ids(self, positions: Tensor) -> Tensor:
        """Row keys of positions [A, k] for `ops.gumbel_argmax` and its like, int64 [A k]."""
        return ((self.rng[:, 2:] << 32) | positions.long().clamp(min=0)).reshape(-1)

    def done(self) -> bool:
        """Count a step, tell whoever watches; true if the callback wants the run to end."""
        self.step += 1
        if self.bar is not None:
            self.bar.update()
        return self.callback is not None and bool(self.callback(self.step - 1, self.current()))

    # -- sequences that are complete

    def keep(self, places: Tensor) -> None:
        """Go on with some of the sequences in work (int64 places among them) and put the others away."""
        self._write_back()
        self.index = places if self.index is None else self.index[places]
        self.tokens, self.todo = self.tokens[places], self.todo[places]
        self.rng, self.draw = self.rng[places], self.draw.take(places)
        self.streams.clear()
        if self.attention_mask is not None:
            self.attention_mask = self.attention_mask[places]
        if self.unconditional is not None:
            self.unconditional = self.unconditional[places]

    def stop_at_eos(self, block: Tensor) -> Tensor | None:
        """Complete the sequences with an EOS in `block` (bool [A, L], generated positions).

        Fills what is still masked with `pad_id` and returns bool [A], which sequences these are; None if EOS
        ends nothing.
        """
        if self.eos_id is None:
            return None
        ended = (block & (self.tokens == self.eos_id)).any(1)
        unfinished = self.todo & (self.tokens == self.mask_id)
        self.tokens.masked_fill_(unfinished & ended[:, None], self.pad_id)
        return ended

    def current(self) -> Tensor:
        """All sequences as they are now, int64 [B, L]."""
        if self.index is None:
            return self.tokens
        self._write_back()
        return self.result

    def _write_back(self) -> None:
        if self.index is None:
            self.result = self.tokens
        else:
            self.result[self.index] = self.tokens

    def finish(self, draws: int = 1, ended: bool = False) -> tuple[Tensor, Tensor]:
        """The result and how many positions of each sequence could not be drawn, [B].

        Moves a `PhiloxState` given as seed on by the number of draws. `ended` early, masks may remain.
        """
        self.close()
        tokens = self.current()
        if isinstance(self.seed, PhiloxState):
            self.seed.advance(draws)
        if ended:
            return tokens, torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device)
        failed = (self.required & (tokens == self.mask_id)).sum(1)
        if tokens.device.type == "cpu" and bool(failed.any()):
            b = int(failed.nonzero()[0])
            where = (self.required[b] & (tokens[b] == self.mask_id)).nonzero().flatten().tolist()
            raise RuntimeError(
                f"no token can be drawn at positions {where} of sequence {b}: all logits are -inf"
            )
        return tokens, failed

    def close(self) -> None:
        """Close the progress bar."""
        if self.bar is not None:
            self.bar.close()


def start(model: Model, tokens: Tensor, mask_id: int, **options: Unpack[CommonOptions]) -> Run:
    """Check what is common to all samplers and make the state of a run. Waits for the device once."""
    unknown = options.keys() - CommonOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown keyword arguments: {', '.join(sorted(unknown))}")
    adapted = as_model(model)
    if not isinstance(tokens, Tensor) or tokens.dtype != torch.int64:
        got = getattr(tokens, "dtype", type(tokens).__name__)
        raise TypeError(f"`tokens` must be an int64 Tensor, got {got}")
    if tokens.dim() != 2 or 0 in tokens.shape:
        raise ValueError(f"`tokens` must have shape [B, L], B and L at least 1, got {tuple(tokens.shape)}")
    if mask_id is None or not isinstance(mask_id, int) or isinstance(mask_id, bool):
        raise ValueError(f"`mask_id` must be an int, got {mask_id!r}")
    if mask_id < 0:
        raise ValueError(f"`mask_id` must be at least 0, got {mask_id}")
    callback = options.get("callback")
    if callback is not None and not callable(callback):
        raise TypeError(f"`callback` must be callable, got {type(callback).__name__}")
    batch, device = tokens.shape[0], tokens.device
    todo = tokens == mask_id
    frozen, attention = options.get("frozen"), options.get("attention_mask")
    if frozen is not None:
        _like("frozen", frozen, tokens, torch.bool)
        todo &= ~frozen
    counts = [todo.sum(1)]
    if attention is not None:
        _like("attention_mask", attention, tokens, None)
        counts.append((todo & (attention == 0)).sum(1))
    host = torch.stack(counts).tolist()  # the one synchronisation
    if attention is not None and any(host[1]):
        b = next(b for b, n in enumerate(host[1]) if n)
        raise ValueError(f"`attention_mask` must not be 0 at masks that are to be filled: sequence {b}")
    draw = make_draw(batch, device, mask_id, **{k: options[k] for k in _DRAW_OPTIONS if k in options})  # type: ignore[literal-required]
    unconditional = _unconditional(options.get("unconditional"), tokens, mask_id, draw)
    eos_id, pad_id = options.get("eos_id"), options.get("pad_id")
    if pad_id is not None and eos_id is None:
        raise ValueError("`pad_id` needs `eos_id`")
    for name, token in (("eos_id", eos_id), ("pad_id", pad_id)):
        if token is None:
            continue
        if isinstance(token, bool) or not isinstance(token, int) or token < 0 or token == mask_id:
            raise ValueError(f"`{name}` must be an int of at least 0 other than `mask_id`, got {token!r}")
    seed = options.get("seed")
    work = tokens.clone(memory_format=torch.contiguous_format)
    return Run(
        model=adapted,
        mask_id=mask_id,
        draw=draw,
        tokens=work,
        todo=todo,
        counts=host[0],
        rng=_sequence_rng(seed, options.get("sequence_ids"), batch, device),
        attention_mask=attention,
        unconditional=unconditional,
        eos_id=eos_id,
        pad_id=eos_id if pad_id is None and eos_id is not None else pad_id or 0,
        callback=callback,
        seed=seed,
        result=work,
        required=todo,
    )


def _like(name: str, value: Any, tokens: Tensor, dtype: torch.dtype | None) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a Tensor, got {type(value).__name__}")
    if dtype is not None and value.dtype != dtype:
        raise TypeError(f"`{name}` must be {dtype}, got {value.dtype}")
    if value.shape != tokens.shape:
        raise ValueError(
            f"`{name}` must have the shape of `tokens`, {tuple(tokens.shape)}, got {tuple(value.shape)}"
        )
    if value.device != tokens.device:
        raise ValueError(f"`{name}` must be on the device of `tokens`, {tokens.device}, got {value.device}")


def _unconditional(given: Tensor | None, tokens: Tensor, mask_id: int, draw: Draw) -> Tensor | None:
    """What the unconditional branch sees outside of the generated positions; None without guidance."""
    if draw.cfg_scale is None:
        if given is not None:
            raise ValueError("`unconditional` needs `cfg_scale`")
        return None
    if given is None:
        return torch.full_like(tokens, mask_id)
    if isinstance(given, Tensor) and given.dtype not in (torch.bool, torch.int64):
        raise TypeError(f"`unconditional` must be bool or int64, got {given.dtype}")
    _like("unconditional", given, tokens, None)
    return tokens.masked_fill(given, mask_id) if given.dtype == torch.bool else given


def _sequence_rng(
    seed: Seed | Sequence[int] | Tensor, ids: Sequence[int] | Tensor | None, batch: int, device: torch.device
) -> Tensor:
    """(seed, offset, id) of every sequence."""
    ids = None if ids is None else _checked_ids(ids, batch)
    rng = make_rng(seed, batch=batch if ids is not None else None, sample_ids=ids)
    if rng.dim() == 1:
        rng = torch.cat([rng.expand(batch, 2), torch.arange(batch)[:, None]], dim=1)
    elif len(rng) != batch:
        raise ValueError(f"`seed` must be one seed or {batch}, one for each sequence, got {len(rng)}")
    elif ids is not None and len(torch.unique(rng, dim=0)) < batch:
        raise ValueError(
            "`sequence_ids` must differ, or sequences get the same noise; to share it on purpose, give each "
            "sequence its own `seed`, all of them equal"
        )
    return rng.to(device)


def _checked_ids(ids: Sequence[int] | Tensor, batch: int) -> list[int]:
    numbers = ids.tolist() if isinstance(ids, Tensor) else ids
    if isinstance(numbers, str | bytes) or not isinstance(numbers, Sequence):
        raise TypeError(f"`sequence_ids` must be a Tensor or a sequence of ints, got {type(ids).__name__}")
    if len(numbers) != batch:
        raise ValueError(f"`sequence_ids` must have an entry for each sequence: {batch}, got {len(numbers)}")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"`sequence_ids` must hold ints, got {number!r:.80}")
        if not 0 <= number < 1 << 32:
            raise ValueError(f"`sequence_ids` must be in [0, 2^32), got {number}")
    return list(numbers)
