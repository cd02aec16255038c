"""Exact, reproducible sampling inside of Hugging Face transformers' `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from fastdiff_ops.ops import PhiloxState, categorical_sample, make_rng, resolve_seed
from fastdiff_ops.ops.random import Seed


class GumbelSampler(LogitsProcessor):
    """Draws the next token of `model.generate` itself, with float64 noise from the library's stream.

    It returns scores that are -inf except at the drawn token, so whatever `generate` does next (its own
    temperature, top-k, softmax and multinomial, or an argmax with ``do_sample=False``) can only take that
    token. What comes before it in `generate`, such as repetition penalties, stays in force.

    Parameters
    ----------
    seed : int, torch.Generator, PhiloxState, None, or B ints
        One seed for the batch, whose row b is drawn from stream b; or one seed for each row, and then a
        request gets the tokens it would get alone, whatever else is in its batch.
    temperature, top_k, top_p, min_p : number or Tensor [B]
        As in `fastdiff_ops.ops.categorical_sample`. Give them here, not to `generate`.
    return_logprob : bool
        Keep the log-probabilities of the drawn tokens, see `logprobs`.

    Raises
    ------
    ValueError, TypeError
        When called, if there is not a seed for each row, or a setting is out of range.
    RuntimeError
        When called, if a row allows no token (on a GPU `generate` raises it).

    Notes
    -----
    Call i of the object uses draw i (of a PhiloxState: its next draw): make a new object for each `generate`,
    or keep one to continue its stream. A row's noise depends on its seed and draw alone, not on padding, so
    left-padded batches change nothing but the logits themselves.

    Beam search is not sampling token by token, and with `num_return_sequences` each returned sequence is a
    row.

    Examples
    --------
    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> _ = torch.manual_seed(0)
    >>> config = GPT2Config(vocab_size=50, n_positions=32, n_embd=8, n_layer=1, n_head=1, bos_token_id=0,
    ...                     eos_token_id=0)
    >>> model, prompts = GPT2LMHeadModel(config), torch.ones(3, 4, dtype=torch.int64)
    >>> def generate(prompts, seeds):
    ...     sampler = GumbelSampler(seeds, temperature=0.8, top_p=0.95)
    ...     return model.generate(prompts, logits_processor=[sampler], do_sample=True, max_new_tokens=6)
    >>> batch, alone = generate(prompts, [11, 12, 13]), generate(prompts[1:2], [12])
    >>> bool((batch[1:2] == alone).all())
    True
    """

    # It keeps a draw counter and per-row seeds, which batches of changing composition would mix up.
    supports_continuous_batching = False

    def __init__(
        self,
        seed: Seed | Sequence[int] | Tensor = None,
        *,
        temperature: float | Tensor = 1.0,
        top_k: int | Tensor | None = None,
        top_p: float | Tensor | None = None,
        min_p: float | Tensor | None = None,
        return_logprob: bool = False,
    ) -> None:
        self._state: PhiloxState | None = None
        self._rng: Tensor | None = None
        if isinstance(seed, Sequence) or (isinstance(seed, Tensor) and seed.dim() > 0):
            self._rng = make_rng(seed)
        else:
            self._state = resolve_seed(int(seed) if isinstance(seed, Tensor) else seed)
        self._settings: dict[str, Any] = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
        }
        self._logprobs: list[Tensor] | None = [] if return_logprob else None

    @property
    def logprobs(self) -> Tensor:
        """Log-probabilities of the tokens drawn so far, float64 [B, draws], with `return_logprob`.

        Of the distribution that was drawn from: at this temperature, after top-k, top-p and min-p.
        """
        if self._logprobs is None:
            raise ValueError("`logprobs` are kept with return_logprob=True only")
        if not self._logprobs:
            return torch.empty(0, 0, dtype=torch.float64)
        return torch.stack(self._logprobs, 1)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return `scores` [B, V] with -inf everywhere but at the token drawn in each row."""
        rng = self._next(scores)
        if self._logprobs is None:
            tokens = categorical_sample(scores, rng=rng, **self._settings)
        else:
            tokens, logprob, _ = categorical_sample(scores, rng=rng, return_logprob=True, **self._settings)
            self._logprobs.append(logprob)
        if tokens.device.type == "cpu" and bool((tokens < 0).any()):
            row = int(torch.nonzero(tokens < 0)[0])
            raise RuntimeError(f"row {row} of `scores` allows no token: all are -inf or NaN")
        only = torch.full_like(scores, -torch.inf)
        chosen = torch.where(tokens < 0, -torch.inf, 0.0).to(scores.dtype)
        return only.scatter_(1, tokens.clamp(min=0)[:, None], chosen[:, None])

    def _next(self, scores: Tensor) -> Tensor:
        """The stream of this call."""
        if self._state is not None:
            rng = make_rng(self._state, device=scores.device)
            self._state.advance(1)
            return rng
        assert self._rng is not None
        if self._rng.shape[0] != scores.shape[0]:
            raise ValueError(
                f"`seed` must have an entry for each row: {scores.shape[0]}, got {self._rng.shape[0]}"
            )
        self._rng = self._rng.to(scores.device)
        rng = self._rng.clone()
        self._rng[:, 1] += 1
        return rng
