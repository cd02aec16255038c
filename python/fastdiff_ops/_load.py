"""Loads the operator library, once."""

from __future__ import annotations

import functools
import importlib.util
import os

import torch

MINIMUM_TORCH = (2, 10)
SIMD_LEVELS = ("scalar", "avx2", "avx512")

BUILD_HINT = (
    "Install the package with `pip install --no-build-isolation .`, or, in a checkout, compile in place with "
    "`python setup.py build_ext --inplace`. `fastdiff_ops.reference` works without it."
)


@functools.cache
def load_ops() -> None:
    """Register the operators of `fastdiff_ops._ops` under `torch.ops.fastdiff_ops`.

    Raises
    ------
    ImportError
        If torch is too old, FASTDIFF_OPS_SIMD is no level, or the library was not built or does not load; the
        message says what to do.
    """
    version = torch.__version__.split("+")[0]
    if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM_TORCH:
        wanted = ".".join(map(str, MINIMUM_TORCH))
        raise ImportError(f"fastdiff_ops needs torch >= {wanted}, found {torch.__version__}")
    cap = os.environ.get("FASTDIFF_OPS_SIMD")
    if cap is not None and cap not in SIMD_LEVELS:  # the library reads it too, but cannot complain
        raise ImportError(f"FASTDIFF_OPS_SIMD must be one of {', '.join(SIMD_LEVELS)}, got {cap!r}")
    spec = importlib.util.find_spec("fastdiff_ops._ops")
    if spec is None or spec.origin is None:
        raise ImportError(f"fastdiff_ops is not built: its library `_ops` is missing. {BUILD_HINT}")
    try:
        torch.ops.load_library(spec.origin)
    except OSError as error:
        raise ImportError(f"fastdiff_ops could not load {spec.origin}: {error}. {BUILD_HINT}") from error
