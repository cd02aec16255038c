"""Buffers in the memory order of the state."""

from __future__ import annotations

import torch
from torch import Tensor

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def order(x: Tensor) -> torch.memory_format:
    """Channels-last if x is (and not contiguous as well), else contiguous."""
    candidate = _CHANNELS_LAST.get(x.dim())
    if candidate is not None and not x.is_contiguous() and x.is_contiguous(memory_format=candidate):
        return candidate
    return torch.contiguous_format


def dense(x: Tensor) -> Tensor:
    """x itself where it is dense in one of the orders, else a contiguous copy."""
    return x.contiguous(memory_format=order(x))


def empty_like(x: Tensor) -> Tensor:
    """A buffer for another state."""
    return torch.empty_like(x, memory_format=order(x))


def ring_like(x: Tensor, ring: Tensor) -> Tensor:
    """A copy of a history ring, with slots in the order of x."""
    copy = empty_ring(x, ring.shape[0], ring.dtype)
    return copy.copy_(ring)


def empty_ring(x: Tensor, slots: int, dtype: torch.dtype) -> Tensor:
    """A history ring [slots, B, *S] whose slots have the order of x."""
    shape = (slots * x.shape[0], *x.shape[1:])
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=order(x)).view(slots, *x.shape)
