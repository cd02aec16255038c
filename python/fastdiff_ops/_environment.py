"""What this machine has: devices, and libraries that only some features need."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["pick_device", "require_matplotlib", "require_pillow"]


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is the GPU when there is one, else the CPU.

    Raises
    ------
    ValueError
        If there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"`device` {name!r} is not available here: {error}") from error
    return device


def require_matplotlib() -> Any:
    """Return ``matplotlib.pyplot`` on a backend that needs no screen.

    Raises
    ------
    ImportError
        If matplotlib is not installed; the message says how to get it.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'fastdiff-ops[plot]'") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def require_pillow() -> Any:
    """Return ``PIL.Image``.

    Raises
    ------
    ImportError
        If Pillow is not installed; the message says how to get it.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("pictures need Pillow: pip install 'fastdiff-ops[fields]'") from error
    return Image, ImageOps
