"""Builds the C++ side of the tests (CMakeLists.txt) and loads the operator libraries that come out of it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import itertools
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "cmake"
# Set for the subprocesses that run operator tests with AddressSanitizer preloaded.
SANITIZED = os.environ.get("FASTDIFF_OPS_TEST_SANITIZED") == "1"


def tool(name: str) -> str:
    """Return the path of a program of this environment, else of the machine."""
    path = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if path is None:
        raise RuntimeError(f"the C++ tests need `{name}`: pip install {name}")
    return path


@functools.cache
def build(target: str = "all") -> Path:
    """Build `target`, or wait for the process that is building; return the build folder."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    configure = [tool("cmake"), "-S", str(ROOT), "-B", str(FOLDER), "-G", "Ninja"]
    configure += [f"-DPython3_EXECUTABLE={sys.executable}", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"]
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (configure, [tool("cmake"), "--build", str(FOLDER), "--target", target]):
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}{done.stderr[-6000:]}"
    return FOLDER


def compiler_library(name: str) -> str:
    """Return the path of a run-time library of the compiler that CMake chose."""
    cache = (build("machine_asan") / "CMakeCache.txt").read_text()
    compiler = re.search(r"^CMAKE_CXX_COMPILER:.*=(.+)$", cache, re.M)[1]
    return subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()


@functools.cache
def library(kind: str) -> ctypes.CDLL:
    """Load `fastdiff_ops_emulated` or `fastdiff_ops_cpu` (that one exists under AddressSanitizer only)."""
    name = f"{kind}_{'asan' if SANITIZED else 'plain'}"
    path = build(name) / f"lib{name}.so"
    torch.ops.load_library(path)
    return ctypes.CDLL(str(path))


@contextlib.contextmanager
def cpu_kernels_from(namespace: str) -> Iterator[None]:
    """Make torch.ops.fastdiff_ops, its wrappers and autograd run the CPU kernels of another namespace."""
    everything = map(str.partition, torch._C._dispatch_get_all_op_names(), itertools.repeat("::"))
    names = [name for owner, _, name in everything if owner == namespace]
    assert names, f"no operators in {namespace}"
    with torch.library._scoped_library("fastdiff_ops", "IMPL") as overrides:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Warning only once for all operators")
            for name in names:
                overrides.impl(name, _kernel(namespace, name), "CPU", allow_override=True)
        yield


def _kernel(namespace: str, name: str):
    operator, _, overload = name.partition(".")
    if torch._C._dispatch_has_kernel_for_dispatch_key(f"{namespace}::{name}", "CPU"):
        return getattr(getattr(getattr(torch.ops, namespace), operator), overload or "default")

    def missing(*args, **kwargs):
        raise NotImplementedError(f"{namespace} has no kernel for {name}")

    return missing


def emulated_launches() -> int:
    """Return how many kernels were launched by the emulation since it was loaded."""
    count = library("fastdiff_ops_emulated").fastdiff_ops_emulation_launches
    count.restype = ctypes.c_uint64
    return int(count())
