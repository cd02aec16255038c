"""Reading what callers pass: numbers of any kind become detached tensors, or an error that names them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = Tensor | NDArray[Any]
_TORCH_FLOATS = (np.float16, np.float32, np.float64)


def read_numbers(name: str, value: object) -> Tensor:
    """Return real numbers as a detached tensor on their own device, floats in their own dtype.

    Raises
    ------
    TypeError
        If they are no real numbers.
    """
    if isinstance(value, Tensor):
        tensor = value.detach()
        if tensor.layout != torch.strided:
            raise TypeError(f"`{name}` must be a dense tensor, got layout {tensor.layout}")
    else:
        if not isinstance(value, (np.ndarray, list, tuple)) and not hasattr(value, "__array__"):
            raise TypeError(f"`{name}` must be a Tensor or an ndarray, got {type(value).__name__}")
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise TypeError(f"`{name}` must be a rectangular array of numbers: {error}") from None
        if array.dtype.kind not in "biuf":
            raise TypeError(f"`{name}` must hold real numbers, got dtype {array.dtype}")
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            array = array.astype(np.float64 if array.dtype.itemsize > 4 else np.int64)
        elif array.dtype.kind == "f" and array.dtype.type not in _TORCH_FLOATS:
            array = array.astype(np.float64)
        tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    if tensor.dtype.is_complex:
        raise TypeError(f"`{name}` must hold real numbers, got {tensor.dtype}")
    return tensor


def read_integers(name: str, value: object) -> Tensor:
    """Return integers as a detached int64 tensor on their own device.

    Raises
    ------
    TypeError
        If they are no integers.
    """
    tensor = read_numbers(name, value)
    if tensor.dtype.is_floating_point or tensor.dtype == torch.bool:
        if tensor.numel() == 0:
            return tensor.long()
        raise TypeError(f"`{name}` must hold integers, got {tensor.dtype}")
    return tensor.long()


def check_finite(name: str, tensor: Tensor, first: tuple[int, ...] = ()) -> None:
    """Raise ValueError that names the first entry that is not finite; `tensor` begins at index `first`."""
    if not tensor.dtype.is_floating_point or tensor.numel() == 0:
        return
    # the sum is finite in nearly every good input, and much cheaper than an array of answers
    if bool(torch.isfinite(tensor.sum(dtype=torch.float64))) or bool(torch.isfinite(tensor).all()):
        return
    raise_first(name, tensor, ~torch.isfinite(tensor), "be finite", first)


def raise_first(
    name: str, tensor: Tensor, bad: Tensor, wanted: str, first: tuple[int, ...] = (), hint: str = ""
) -> None:
    """Raise ValueError for the first entry of `tensor` that is `bad`."""
    index = tuple(int(i) for i in bad.nonzero()[0])
    value = tensor[index].item()
    place = tuple(i + f for i, f in zip(index, (*first, *[0] * len(index)), strict=False))
    raise ValueError(f"`{name}` must {wanted}, got {value} at index {list(place)}{hint}")
