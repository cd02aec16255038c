"""The array-namespace switch: schedule formulas are written once and run in numpy or torch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
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


def quiet(xp: Any) -> AbstractContextManager[Any]:
    """No numpy warnings: ln 0 and 1/0 at the ends of a path are the right infinities, not accidents."""
    if xp is np:
        return np.errstate(divide="ignore", over="ignore", invalid="ignore")
    return nullcontext()


def log_alpha_from_lam(xp: Any, lam: Any) -> Any:
    """ln(alpha) of a variance-preserving path, -ln(1 + exp(-2 lambda)) / 2, at any lambda."""
    return -0.5 * xp.logaddexp(-2.0 * lam, xp.zeros_like(lam))


def combine(a: Any, b: Any, x: torch.Tensor, y: torch.Tensor, names: tuple[str, str]) -> torch.Tensor:
    """a x + b y for coefficients of a time of shape () or [B], computed in at least float32, in y's dtype."""
    for name, value in zip(names, (x, y), strict=True):
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise TypeError(
                f"`{name}` must be a floating-point tensor, got {getattr(value, 'dtype', type(value))}"
            )
    if x.shape != y.shape:
        raise ValueError(f"`{names[1]}` must have {names[0]}'s shape {tuple(x.shape)}, got {tuple(y.shape)}")
    if a.ndim and a.shape != x.shape[:1]:
        raise ValueError(f"`t` must have shape () or {tuple(x.shape[:1])}, got {tuple(a.shape)}")
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    a, b = (_factor(c, x, dtype) for c in (a, b))
    result: torch.Tensor = a * x.to(dtype) + b * y.to(dtype)
    return result.to(y.dtype)


def _factor(coefficient: Any, x: torch.Tensor, dtype: torch.dtype) -> Any:
    if not isinstance(coefficient, torch.Tensor):
        if coefficient.ndim == 0:
            return float(coefficient)  # a number needs no copy to the device
        coefficient = torch.from_numpy(coefficient)
    factor = coefficient.to(x.device, dtype, non_blocking=True)
    return factor.reshape(factor.shape + (1,) * (x.ndim - 1)) if factor.ndim else factor
