"""The array-namespace switch: schedule formulas are written once and run in numpy or torch."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

FloatArray: TypeAlias = npt.NDArray[np.float64]
#: What a time (or lambda) argument may be.
ArrayLike: TypeAlias = float | FloatArray | torch.Tensor


def as_float64(name: str, value: Any, *, integer_tensors: bool = False) -> tuple[Any, Any]:
    """Return ``(xp, array)``: the namespace (numpy or torch) and ``value`` in float64.

    A tensor stays on its device and in its autograd graph; everything else becomes a numpy array. Whole
    *numbers* convert exactly and are welcome, but an integer *tensor* is refused unless the caller's time is
    an index: on a continuous schedule it is nearly always a training index that was passed by mistake.
    """
    if isinstance(value, torch.Tensor):
        if not value.is_floating_point() and not (integer_tensors and is_integer_tensor(value)):
            raise TypeError(f"`{name}` must be a floating-point tensor, got dtype {value.dtype}")
        return torch, value.to(torch.float64)
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"`{name}` must be real numbers (float, numpy array or tensor), got {value!r:.80}")
    return np, array.astype(np.float64)


def is_integer_tensor(value: torch.Tensor) -> bool:
    """True for the signed and unsigned integer dtypes (bool is none)."""
    return not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)


def common_namespace(*pairs: tuple[Any, Any]) -> tuple[Any, list[Any]]:
    """Bring the results of several `as_float64` calls together: all torch (on one device) if any is torch."""
    device = next((a.device for xp, a in pairs if xp is torch), None)
    if device is None:
        return np, [a for _, a in pairs]
    # as_tensor of a number is a fill, never a synchronisation; a tensor is returned as it is
    return torch, [a if xp is torch else torch.as_tensor(a, device=device) for xp, a in pairs]


def is_host(xp: Any) -> bool:
    """Whether values may be inspected: numpy yes, tensors never (it would synchronise or break a graph)."""
    return xp is np


def log_alpha_from_lam(xp: Any, lam: Any) -> Any:
    """ln(alpha) of a variance-preserving path, -ln(1 + exp(-2 lambda)) / 2, at any lambda."""
    return -0.5 * xp.logaddexp(-2.0 * lam, xp.zeros_like(lam))


def expand_to(coefficient: Any, x: Any) -> Any:
    """Append axes so that a coefficient of shape () or [B] multiplies ``x`` of shape [B, ...]."""
    return coefficient.reshape(tuple(coefficient.shape) + (1,) * (x.ndim - coefficient.ndim))
