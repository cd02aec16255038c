"""Where an operator runs when it has no kernel, or when the user asks for the reference everywhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

_WITHOUT_KERNELS = ("MPS", "XPU")
_WITH_KERNELS = ("CPU", "CUDA")

_library = torch.library.Library("fastdiff_ops", "IMPL")


def use_reference() -> bool:
    """Return whether FASTDIFF_OPS_REFERENCE=1 routes every operator to its reference."""
    return os.environ.get("FASTDIFF_OPS_REFERENCE", "0") == "1"


def register_reference(name: str, function: Callable[..., Any]) -> None:
    """Make `function` the implementation of operator `name` on devices that have no kernel of ours."""
    for key in _WITHOUT_KERNELS + (_WITH_KERNELS if use_reference() else ()):
        _library.impl(name, function, key, allow_override=True)
