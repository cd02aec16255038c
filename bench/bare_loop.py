"""The hand-written loop of bare_loop.c, compiled for this processor when it is first used."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

_NAMES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}


@cache
def library() -> ctypes.CDLL:
    """Compile and load bare_loop.c.

    Raises
    ------
    RuntimeError
        There is no C compiler, or it fails.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise RuntimeError("no C compiler: install one, or name one with CC=")
    with tempfile.TemporaryDirectory() as folder:
        built, shared = f"{folder}/bare_loop.o", f"{folder}/bare_loop.so"
        source = str(Path(__file__).with_name("bare_loop.c"))
        _run(compiler, "-O3", "-march=native", "-fopenmp", "-fPIC", "-c", source, "-o", built)
        try:
            # OpenMP left undefined is torch's: one pool of threads, not two that spin against each other
            _run(compiler, "-shared", built, "-o", shared)
            loaded = ctypes.CDLL(shared)
        except OSError:
            _run(compiler, "-shared", "-fopenmp", built, "-o", shared)
            loaded = ctypes.CDLL(shared)
    loaded.simd_level.restype = ctypes.c_char_p
    return loaded


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def update(
    x: Tensor,
    out: Tensor,
    h: Tensor,
    x_next: Tensor,
    m: Tensor,
    weights: tuple[float, float, float, float, float],
    *,
    stream: bool,
) -> Callable[[], object]:
    """A call of the loop on contiguous CPU tensors of one shape and dtype; weights (c_x, c_o, a, b, c)."""
    function = getattr(library(), f"update_{_NAMES[x.dtype]}")
    aligned = all(tensor.data_ptr() % 64 == 0 for tensor in (x_next, m))
    tensors = (x, out, h, x_next, m)
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors)
    # a thread that gets less than this costs more than it saves
    threads = max(1, min(torch.get_num_threads(), x.numel() // (1 << 16)))
    coefficients = (ctypes.c_float * 5)(*weights)
    arguments = (ctypes.c_int64(x.numel()), *pointers, coefficients, int(stream and aligned), threads)
    return _holding(tensors, lambda: function(*arguments))


def copy(source: Tensor, target: Tensor) -> Callable[[], object]:
    """A call of the C library's memcpy, always on one thread."""
    memcpy = ctypes.CDLL(None).memcpy
    memcpy.restype = None
    arguments = (
        ctypes.c_void_p(target.data_ptr()),
        ctypes.c_void_p(source.data_ptr()),
        ctypes.c_size_t(source.nbytes),
    )
    return _holding((source, target), lambda: memcpy(*arguments))


def _holding(tensors: tuple[Tensor, ...], call: Callable[[], object]) -> Callable[[], object]:
    """The call, which knows addresses only, together with what lies there."""
    call.tensors = tensors  # type: ignore[attr-defined]
    return call
