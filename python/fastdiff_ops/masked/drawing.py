"""How a row of logits becomes a token: temperature, filters, guidance, and the operators that do it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdiff_ops import ops
from fastdiff_ops.ops._rows import stream_number

Number = float | Sequence[float] | Tensor
_LAZY = 0
_SMALLEST = 2.0**-126  # normal float32


class Evaluation(NamedTuple):
    """What one evaluation of the network gave.

    Attributes
    ----------
    logits, uncond : Tensor [B, M, V]
        `uncond` is None without guidance.
    gathered : bool
        Rows belong to the positions asked for (M = k); else to all positions (M = L).
    """

    logits: Tensor
    uncond: Tensor | None
    gathered: bool

    def rows(self, positions: Tensor) -> Tensor:
        """Row of each position, sequence after sequence, int64 [B k]; some row where there is none."""
        batch, k = positions.shape
        place = torch.arange(k, device=positions.device) if self.gathered else positions.long().clamp(min=0)
        start = torch.arange(batch, device=positions.device)[:, None] * self.logits.shape[1]
        return (start + place).reshape(-1)

    def part(self, start: int, stop: int) -> Evaluation:
        """What belongs to some of the positions asked for: columns start to stop of them."""
        if not self.gathered:
            return self
        uncond = None if self.uncond is None else self.uncond[:, start:stop]
        return Evaluation(self.logits[:, start:stop], uncond, True)


@dataclass
class Draw:
    """Sampling options, checked, as tensors on the device: a number [1], or one for each sequence [B].

    Attributes
    ----------
    temperature, cfg_scale, top_k, top_p, min_p : Tensor [1] or [B], or None
    bias, suppressed : Tensor [1, V] or [B, V], or None
    forbidden : int64 Tensor [K], or None
        With the mask among them, once `fit` has seen the vocabulary.
    """

    temperature: Tensor
    cfg_scale: Tensor | None = None
    top_k: Tensor | None = None
    top_p: Tensor | None = None
    min_p: Tensor | None = None
    bias: Tensor | None = None
    suppressed: Tensor | None = None
    forbidden_ids: tuple[int, ...] = ()
    forbidden: Tensor | None = None
    mask_id: int = -1
    greedy: bool = field(default=False)  # temperature 0 throughout: filters change nothing

    @property
    def filtered(self) -> bool:
        """Whether rows are cut at a threshold."""
        return not self.greedy and not (self.top_k is None and self.top_p is None and self.min_p is None)

    def take(self, index: Tensor) -> Draw:
        """The options of some sequences."""

        def pick(value: Tensor | None) -> Tensor | None:
            return value if value is None or value.shape[0] == 1 else value[index]

        names = ("temperature", "cfg_scale", "top_k", "top_p", "min_p", "bias", "suppressed")
        picked: dict[str, Any] = {name: pick(getattr(self, name)) for name in names}
        return replace(self, **picked)

    def fit(self, vocabulary: int) -> None:
        """Check against the vocabulary, known from the first evaluation, and forbid the mask."""
        for name in ("bias", "suppressed"):
            value = getattr(self, name)
            if value is not None and value.shape[1] != vocabulary:
                raise ValueError(f"`{name}` must have {vocabulary} columns, got shape {tuple(value.shape)}")
        ids = list(self.forbidden_ids)
        if not all(0 <= number < vocabulary for number in ids):
            raise ValueError(f"`forbidden` must be in [0, {vocabulary}), got {ids}")
        if self.mask_id < vocabulary:  # it may also be a number that the network has no logit for
            ids.append(self.mask_id)
        self.forbidden = torch.tensor(ids, device=self.temperature.device) if ids else None

    def row_arguments(self, evaluation: Evaluation, k: int) -> dict[str, Any]:
        """Keyword arguments common to the categorical operators, for k rows of every sequence."""

        def per_row(value: Tensor | None) -> Tensor | None:
            return value if value is None or k == 1 or value.shape[0] == 1 else value.repeat_interleave(k, 0)

        return {
            "uncond_logits": evaluation.uncond,
            "cfg_scale": None if evaluation.uncond is None else per_row(self.cfg_scale),
            "bias": per_row(self.bias),
            "suppressed": per_row(self.suppressed),
            "forbidden": self.forbidden,
        }

    def arguments(self, evaluation: Evaluation, positions: Tensor) -> dict[str, Any]:
        """Keyword arguments with which `ops.gumbel_argmax`, `ops.sample_with_scores` or `ops.gumbel_topk`
        draw these positions from ``evaluation.logits``."""
        k = positions.shape[1]
        arguments = self.row_arguments(evaluation, k)
        arguments["rows"] = evaluation.rows(positions)
        arguments["temperature"] = _repeat(self.temperature, k)
        arguments["threshold"] = self.threshold(evaluation, positions)
        return arguments

    def threshold(self, evaluation: Evaluation, positions: Tensor) -> Tensor | None:
        """Smallest logit that top-k, top-p and min-p keep, [B k]; None without them."""
        if not self.filtered:
            return None
        k = positions.shape[1]
        arguments = self.row_arguments(evaluation, k)
        filters = {name: getattr(self, name) for name in ("top_k", "top_p", "min_p")}
        given: dict[str, Any] = {
            name: _repeat(value, k) for name, value in filters.items() if value is not None
        }
        theta: Tensor = ops.sampling_threshold(
            evaluation.logits,
            _repeat(self.temperature, k),
            rows=evaluation.rows(positions),
            **given,
            **arguments,
        )
        return theta

    def step_(self, tokens: Tensor, evaluation: Evaluation, positions: Tensor, rng: Tensor) -> Tensor:
        """Draw these positions (int32 [B, k], -1 for none) and write them; the drawn tokens [B, k]."""
        k, length = positions.shape[1], tokens.shape[1]
        if k == length > 1 and not evaluation.gathered:
            # as many positions as rows: the operator would take row j for that of positions[:, j]
            parts = (positions[:, :-1], positions[:, -1:])
            return torch.cat([self.step_(tokens, evaluation, part, rng) for part in parts], dim=1)
        arguments = self.row_arguments(evaluation, k)
        drawn: Tensor = torch.ops.fastdiff_ops.first_hitting_step_.default(
            tokens,
            evaluation.logits,
            positions.contiguous(),
            _repeat(self.temperature, k),
            rng,
            None,
            *arguments.values(),
            self.threshold(evaluation, positions),
            stream_number("auto", evaluation.logits.shape[2]),
            _LAZY,
        )
        return drawn

    def log_probabilities(self, evaluation: Evaluation, positions: Tensor) -> Tensor:
        """Logarithm of the law that a draw follows, normalised: float64 [B, k, V]."""
        batch, k = positions.shape
        arguments = self.row_arguments(evaluation, k)
        rows = evaluation.rows(positions)
        logits = evaluation.logits.flatten(0, 1)[rows]
        exact = torch.float64 if logits.dtype == torch.float64 else torch.float32
        logits = logits.to(exact)
        if evaluation.uncond is not None:
            uncond = evaluation.uncond.flatten(0, 1)[rows].to(exact)
            logits = torch.addcmul(uncond, (arguments["cfg_scale"] + 1)[:, None].to(exact), logits - uncond)
        if arguments["bias"] is not None:
            logits = logits + arguments["bias"]
        if arguments["suppressed"] is not None:
            logits = logits.masked_fill(arguments["suppressed"], -math.inf)
        if self.forbidden is not None:
            logits = logits.index_fill(1, self.forbidden, -math.inf)
        logits = logits.masked_fill(logits.isnan(), -math.inf)
        theta = self.threshold(evaluation, positions)
        if theta is not None:
            logits = logits.masked_fill(logits < theta[:, None], -math.inf)
        tempered = logits.double() / _repeat(self.temperature, k)[:, None]
        return tempered.log_softmax(1).view(batch, k, -1)


def make_draw(
    batch: int,
    device: torch.device,
    mask_id: int,
    *,
    temperature: Number = 1.0,
    top_k: Number | None = None,
    top_p: Number | None = None,
    min_p: Number | None = None,
    cfg_scale: Number = 0.0,
    bias: Tensor | None = None,
    suppressed: Tensor | None = None,
    forbidden: Sequence[int] | Tensor | int | None = None,
) -> Draw:
    """Check sampling options, and bring them to the device; see `Draw`."""

    def numbers(name: str, value: Number, low: float, high: float, what: str, dtype: torch.dtype) -> Tensor:
        if isinstance(value, bool | str):
            raise TypeError(f"`{name}` must be a number or one for each sequence, got {value!r}")
        wide = torch.float64 if dtype.is_floating_point else None  # top-p is not to be rounded to float32
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=wide)
        if tensor.dim() > 1 or (tensor.dim() == 1 and len(tensor) != batch):
            raise ValueError(
                f"`{name}` must be a number or one for each of {batch} sequences, "
                f"got shape {tuple(tensor.shape)}"
            )
        if dtype == torch.int64 and tensor.is_floating_point():
            raise TypeError(f"`{name}` must be an int, got {value!r:.80}")
        if tensor.device.type == "cpu":
            host = tensor.double()
            if not ((host >= low) & (host <= high)).all():
                raise ValueError(f"`{name}` must be {what}, got {value!r:.80}")
            if name == "temperature" and ((host > 0) & (host < _SMALLEST)).any():
                raise ValueError(f"`{name}` must be 0 or at least 2^-126, got {value!r:.80}")
        return tensor.to(device, dtype).reshape(-1)

    top, tiny = float(torch.finfo(torch.float32).max), 5e-324
    filters: dict[str, Tensor] = {}
    if top_k is not None:
        filters["top_k"] = numbers("top_k", top_k, 1, 1 << 28, "at least 1", torch.int64)
    if top_p is not None:
        filters["top_p"] = numbers("top_p", top_p, tiny, 1.0, "in (0, 1]", torch.float64)
    if min_p is not None:
        filters["min_p"] = numbers("min_p", min_p, 0.0, math.nextafter(1.0, 0.0), "in [0, 1)", torch.float64)
    heat = numbers("temperature", temperature, 0.0, top, "finite and at least 0", torch.float32)
    scale = numbers("cfg_scale", cfg_scale, -top, top, "finite", torch.float32)
    unguided = not isinstance(cfg_scale, Tensor) and not bool(scale.any())
    return Draw(
        heat,
        None if unguided else scale,
        bias=_table("bias", bias, batch, device),
        suppressed=_table("suppressed", suppressed, batch, device),
        forbidden_ids=_ids(forbidden),
        mask_id=mask_id,
        greedy=not isinstance(temperature, Tensor) and not bool(heat.any()),
        **filters,
    )


def _repeat(value: Tensor, k: int) -> Tensor:
    return value if k == 1 or value.shape[0] == 1 else value.repeat_interleave(k)


def _table(name: str, value: Tensor | None, batch: int, device: torch.device) -> Tensor | None:
    if value is None:
        return None
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a Tensor, got {type(value).__name__}")
    if value.dim() not in (1, 2) or (value.dim() == 2 and value.shape[0] not in (1, batch)):
        raise ValueError(f"`{name}` must have shape [V] or [{batch}, V], got {tuple(value.shape)}")
    if (value.dtype == torch.bool) != (name == "suppressed") or not (
        value.dtype == torch.bool or value.is_floating_point()
    ):
        wanted = "bool" if name == "suppressed" else "floating-point"
        raise TypeError(f"`{name}` must be a {wanted} tensor, got {value.dtype}")
    value = value.reshape(-1, value.shape[-1])
    return value.to(device, torch.bool if name == "suppressed" else torch.float32)


def _ids(forbidden: Sequence[int] | Tensor | int | None) -> tuple[int, ...]:
    if forbidden is None:
        return ()
    numbers = forbidden.tolist() if isinstance(forbidden, Tensor) else forbidden
    numbers = numbers if isinstance(numbers, Sequence) else [numbers]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"`forbidden` must hold ints, got {number!r:.80}")
    return tuple(numbers)
