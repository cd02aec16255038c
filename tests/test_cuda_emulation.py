"""The C++ tests, the CUDA kernels emulated on the host, and the operators under sanitizers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cpp_build
import pytest
import torch
from conftest import Backend
from fastdiff_ops import ops

TESTS = Path(__file__).parent
MARKED = sorted(
    str(path.relative_to(TESTS))
    for path in TESTS.glob("**/test_*.py")
    if re.search(r"^\s*(@|pytestmark = )pytest\.mark\.emulated", path.read_text(), re.M)
)


def sanitized(*command: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run Python with AddressSanitizer preloaded, which then watches the memory of torch's tensors too."""
    environment = {
        **os.environ,
        "LD_PRELOAD": ":".join(map(cpp_build.compiler_library, ("libasan.so", "libubsan.so"))),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "FASTDIFF_OPS_TEST_SANITIZED": "1",
        "OMP_NUM_THREADS": "2",
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
    }
    options = {"capture_output": True, "text": True, "timeout": timeout, "cwd": TESTS.parent}
    return subprocess.run([sys.executable, *command], env=environment, **options)


@pytest.mark.parametrize("mode", ["plain", "ucontext", "asan", "tsan"])
def test_cpp(mode: str) -> None:
    """Stand-alone programs: clean kernels pass in two orders of execution, each planted bug is reported."""
    command = [cpp_build.tool("ctest"), "--test-dir", str(cpp_build.build()), "-R", rf"^{mode}\."]
    done = subprocess.run(
        [*command, "--no-tests=error", "--output-on-failure"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no CUDA compiler")
def test_what_runs_here_compiles_with_nvcc(tmp_path: Path) -> None:
    """The emulation takes no more than CUDA does: its own kernels are CUDA."""
    includes = [
        f"-I{folder}" for folder in (TESTS.parent / "csrc", TESTS, Path(torch.__file__).parent / "include")
    ]
    options = ["-std=c++20", "-arch=sm_80", "--ptx", "-o", str(tmp_path / "kernels.ptx")]
    command = ["nvcc", *options, *includes, str(TESTS / "cuda_emulation" / "kernels.cu")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", MARKED)
def test_operators_under_sanitizers(path: str) -> None:
    """Every test marked `emulated`: CPU kernels and emulated CUDA kernels, compiled with ASan and UBSan."""
    for name in ("fastdiff_ops_emulated_asan", "fastdiff_ops_cpu_asan"):
        cpp_build.build(name)
    plugins = ["-p", "no:xdist", "-p", "no:cacheprovider"]
    # -s: a report that aborts the process must not be swallowed
    done = sanitized("-m", "pytest", "-q", "-s", *plugins, "-m", "emulated and not gpu", f"tests/{path}")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    assert re.search(r"\d+ passed", done.stdout), done.stdout


def test_a_tensor_overrun_is_reported() -> None:
    cpp_build.build("fastdiff_ops_emulated_asan")
    code = """
import ctypes, torch, cpp_build
x, out = torch.zeros(100), torch.zeros(100)
read = cpp_build.library("fastdiff_ops_emulated").fastdiff_ops_emulation_read_past_end
read(ctypes.c_void_p(out.data_ptr()), ctypes.c_void_p(x.data_ptr()), ctypes.c_int64(99))
print("99 are fine", flush=True)
read(ctypes.c_void_p(out.data_ptr()), ctypes.c_void_p(x.data_ptr()), ctypes.c_int64(100))
print("not reached")
"""
    done = sanitized("-c", code, timeout=120)
    assert "99 are fine" in done.stdout, done.stderr[-4000:]
    assert "not reached" not in done.stdout
    assert re.search(r"heap-buffer-overflow(.|\n)*kernels\.cu", done.stderr), done.stderr[-4000:]


@pytest.mark.emulated
@pytest.mark.parametrize("in_place", [False, True])
def test_one_launch_per_step(
    backend: Backend, count_launches: Callable[[Callable[[], object]], int], in_place: bool
) -> None:
    """The wrappers run on the backend that the test asked for, and a solver step is one kernel."""
    x, out, x_next = (torch.full((2, 3, 4), float(i), device=backend.device) for i in range(3))
    rows = ops.Row(state=2.0, output=0.5).to_array().reshape(1, 1, 13).repeat(4, axis=1)
    rows[:, 1:] = 0
    coef = torch.from_numpy(ops.pack_coef(rows, [[0.0, 1.0]])).to(backend.device)
    step = torch.tensor(0, device=backend.device)

    def call() -> None:
        if in_place:
            ops.solver_step_(x, [out], x_next, coef, step)
        else:
            x_next.copy_(ops.solver_step(x, [out], coef, step)[0])

    assert count_launches(call) == (1 if backend.name == "emulated" else 0)
    assert torch.equal(x_next, torch.full_like(x, 0.5))
