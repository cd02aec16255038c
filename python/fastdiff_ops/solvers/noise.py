"""Which random numbers a sampling run uses, and for what.

Draw numbers relative to the caller's offset: 0 for the initial latents, 1 + e for evaluation e whether it
draws or not (so changing `eta` moves nothing), 2^25 + e for the known region of an inpainting run.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastdiff_ops.ops.random import PhiloxState, Seed, make_rng

from .validation import MAX_EVALUATIONS

Seeds = Seed | Sequence[int] | Tensor
LATENTS, FIRST_EVALUATION, INPAINTING = 0, 1, 1 << 25
_DRAWS = 1 << 32


def check_draws(seed: Seeds, offset: int, evaluations: int, inpainting: bool) -> None:
    """Raise for a run that has no numbers for all its draws, before the first of them."""
    if evaluations > MAX_EVALUATIONS:
        raise ValueError(f"`table` must make at most 2^24 - 2 evaluations, got {evaluations}")
    if not isinstance(offset, int) or torch.compiler.is_compiling():
        return
    first = seed.offset if isinstance(seed, PhiloxState) else 0
    last = first + offset + evaluations + FIRST_EVALUATION + (INPAINTING if inpainting else 0)
    if last >= _DRAWS:
        start = f"{offset} on top of {first} in `seed`" if first else str(offset)
        raise ValueError(
            f"`offset` must leave numbers below 2^32 for {last - first - offset + 1} draws, got {start}"
        )


def run_rng(seed: Seeds, offset: int, sample_ids: Tensor | Sequence[int] | None, like: Tensor) -> Tensor:
    """The operators' `rng` at draw 0 of the run: int64 [2] or [B, 3]."""
    batch, device = like.shape[0], like.device
    if torch.compiler.is_compiling() and isinstance(seed, Tensor) and seed.shape == (batch,):
        ids = torch.zeros_like(seed) if sample_ids is None else torch.as_tensor(sample_ids, device=device)
        return torch.stack([seed, torch.full_like(seed, offset), ids], dim=-1)  # without reading values
    return make_rng(seed, offset, batch=batch, sample_ids=sample_ids, device=device)


def check_seed(seed: Seeds, offset: int, sample_ids: Tensor | Sequence[int] | None, like: Tensor) -> None:
    """Raise for what `run_rng` would refuse, where nothing is drawn; no generator is touched."""
    if not torch.compiler.is_compiling():
        silent = 0 if seed is None or isinstance(seed, torch.Generator) else seed
        make_rng(silent, offset, batch=like.shape[0], sample_ids=sample_ids)


def at_draw(rng: Tensor, draw: int) -> Tensor:
    """`rng` moved on by `draw` draws."""
    return rng + torch.tensor([0, draw, 0][: rng.shape[-1]], device=rng.device)


def normals(rng: Tensor, draw: int, like: Tensor) -> Tensor:
    """Standard normals, contiguous, with the shape and dtype of `like`."""
    z: Tensor = torch.ops.fastdiff_ops.random_normal.default(like.shape, at_draw(rng, draw), like.dtype)
    return z


def advance(seed: Seeds, evaluations: int) -> None:
    """Move the caller's `PhiloxState`, if it gave one, past the draws of a run."""
    if isinstance(seed, PhiloxState):
        seed.advance(FIRST_EVALUATION + evaluations)
