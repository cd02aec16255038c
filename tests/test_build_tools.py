"""The build's decisions and the tools that check its products, each against a planted mistake."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import check_library
import gpu_check
import list_archs
import ptxas_report
import pytest
from fastdiff_ops.show_versions import versions

ROOT = Path(__file__).parent.parent
x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="looks for x86 instructions")


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """setup.py as a module, on a machine without CUDA."""
    spec = importlib.util.spec_from_file_location("setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("CUDA_HOME", "CUDA_PATH", "FASTDIFF_OPS_CUDA", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "USUAL_CUDA_HOME", "/nonexistent")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    return module


def library() -> Path:
    return Path(importlib.util.find_spec("fastdiff_ops._ops").origin)


def fake_toolkit(folder: Path) -> Path:
    (folder / "bin").mkdir()
    nvcc = folder / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\nprintf 'sm_80\\nsm_90\\nsm_100\\nsm_100a\\n'\n")
    nvcc.chmod(0o755)
    return folder


def test_cuda_is_optional_unless_asked_for(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert setup.find_cuda() is None
    monkeypatch.setenv("FASTDIFF_OPS_CUDA", "1")
    with pytest.raises(SystemExit, match=r"no nvcc was found.*set CUDA_HOME.*FASTDIFF_OPS_CUDA=0"):
        setup.find_cuda()
    monkeypatch.setenv("FASTDIFF_OPS_CUDA", "yes")
    with pytest.raises(SystemExit, match="must be 0, 1 or auto, got 'yes'"):
        setup.find_cuda()


def test_cuda_can_be_switched_off(setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_HOME", str(fake_toolkit(tmp_path)))
    assert setup.find_cuda() == tmp_path
    monkeypatch.setenv("FASTDIFF_OPS_CUDA", "0")
    assert setup.find_cuda() is None


def test_architectures(setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nvcc = fake_toolkit(tmp_path) / "bin" / "nvcc"
    flags, names = setup.gencode(nvcc)
    assert names == "8.0;9.0;10.0+PTX"  # the default list shrinks to what the toolkit knows
    assert flags[-1] == "-gencode=arch=compute_100,code=compute_100"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0 10.0a")
    assert setup.gencode(nvcc)[1] == "8.0;10.0a"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.0;9.0")
    with pytest.raises(SystemExit, match=r"names 7\.0.*it knows \['80', '90', '100'\]"):
        setup.gencode(nvcc)


def test_headers_are_followed(setup: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.h").write_text('#pragma once\n#include "b.h"\n')
    (tmp_path / "b.h").write_text('#include "a.h"\n#include <vector>\n')
    (tmp_path / "k.cu").write_text('  #  include "a.h"\n#include "common/portable.h"\n')
    found = setup.headers_of(tmp_path / "k.cu")
    assert {tmp_path / "a.h", tmp_path / "b.h", ROOT / "csrc" / "common" / "portable.h"} <= found


def entry(kind: int, arch: int, payload: bytes) -> bytes:
    return struct.pack("<HHIQ12xI32x", kind, 0, 64, len(payload), arch) + payload


def test_architectures_of_a_fat_binary() -> None:
    body = entry(2, 80, b"x" * 24) + entry(2, 90, b"y" * 8) + entry(1, 100, b"z" * 40)
    fat = list_archs.MAGIC + struct.pack("<HHQ", 1, 16, len(body)) + body
    chance = list_archs.MAGIC + b"\xff" * 40
    assert list_archs.architectures(b"\0" * 13 + fat + chance + fat) == {"ptx": [100], "elf": [80, 90]}
    assert list_archs.architectures(b"no code" + list_archs.MAGIC) == {"ptx": [], "elf": []}


def test_the_library_holds_the_architectures_it_reports() -> None:
    wanted = versions()["build"]["cuda_archs"]
    found = list_archs.architectures(library().read_bytes())
    assert found["elf"] == sorted(int(a.removesuffix("+PTX").replace(".", "")) for a in wanted)
    if wanted and "TORCH_CUDA_ARCH_LIST" not in os.environ:
        assert {80, 90} <= set(found["elf"])


@pytest.mark.slow
def test_the_library_is_sound() -> None:
    assert check_library.problems(library()) == []


def shared_library(folder: Path, source: str, *flags: str) -> Path:
    (folder / "planted.cpp").write_text(source)
    out = folder / "planted.so"
    subprocess.run(["c++", "-O1", "-shared", "-fPIC", folder / "planted.cpp", "-o", out, *flags], check=True)
    return out


@x86
def test_planted_avx_is_found(tmp_path: Path) -> None:
    body = "(float* x) { for (int i = 0; i < 8; ++i) x[i] += x[i]; }\n"
    target = '__attribute__((target("avx2"))) void '
    planted = shared_library(tmp_path, target + "leak" + body + target + "run_avx2" + body, "-O3")
    assert [name.split("(")[0] for name in check_library.leaked_simd(planted)] == ["leak"]


def test_planted_linkage_is_found(tmp_path: Path) -> None:
    source = """extern "C" void torch_c10_cuda_check_msg(); extern "C" void aoti_torch_abi_version();
        extern "C" __attribute__((weak)) void aoti_torch_get_current_cuda_stream();
        void f() {
            torch_c10_cuda_check_msg(); aoti_torch_abi_version();
            if (aoti_torch_get_current_cuda_stream) aoti_torch_get_current_cuda_stream();
        }"""
    planted = shared_library(tmp_path, source, "-Wl,-rpath,/home/builder")
    assert check_library.unresolved(planted) == ["torch_c10_cuda_check_msg"]
    assert "does not link libtorch.so" in check_library.linkage(planted)
    assert "searches /home/builder" in check_library.linkage(planted)


@pytest.mark.parametrize(
    "folder", [check_library.TORCH / "include", check_library.ROOT], ids=["torch", "project"]
)
def test_planted_folders_are_found(folder: Path, setup: ModuleType, tmp_path: Path) -> None:
    """A header's own name is in the library unless the build's flags take its folder off."""
    source = f'#line 1 "{folder}/deep/header.h"\nconst char* where() {{ return __FILE__; }}\n'
    planted = shared_library(tmp_path, source)
    assert f"names {folder}" in check_library.embedded_folders(planted)
    assert check_library.embedded_folders(shared_library(tmp_path, source, *setup.NAMELESS)) == []
    assert all(flag in setup.CXX_FLAGS and flag in setup.NVCC_FLAGS[-1] for flag in setup.NAMELESS)


LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z1kPf' for 'sm_90'
ptxas info    : Function properties for _Z1kPf
    {stack} bytes stack frame, {stack} bytes spill stores, 8 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers, 8 bytes cumulative stack size
"""


def test_ptxas_output_is_read() -> None:
    kernels = ptxas_report.parse(LOG.format(stack=8) + LOG.format(stack=0))
    assert kernels[0] == ("sm_90", 40, 8, 8, 8, "_Z1kPf")
    assert kernels[0].spills
    assert not ptxas_report.parse(LOG.replace("8 bytes spill loads", "0 bytes spill loads").format(stack=0))[
        0
    ].spills


@pytest.mark.parametrize(
    ("python", "cxx", "message"),
    [
        ("no-such-python", "c++", "no Python: 'no-such-python' was not found"),
        ("{old}", "c++", "Python 3.6.9 is too old"),
        (None, "no-such-compiler", "no C++ compiler: 'no-such-compiler' was not found"),
        (None, "false", "does not compile C++20"),
    ],
)
def test_bootstrap_says_what_is_missing(python: str | None, cxx: str, message: str, tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'Python 3.6.9' && exit\nexit 1\n")
    old.chmod(0o755)
    venv = sys.prefix if python is None else str(tmp_path / "venv")
    command = [ROOT / "tools" / "bootstrap.sh", venv, (python or sys.executable).format(old=old), "", "build"]
    done = subprocess.run(command, env={**os.environ, "CXX": cxx}, capture_output=True, text=True)
    assert done.returncode == 1
    assert message in done.stderr
    assert " make" in done.stderr or "apt-get" in done.stderr


def test_gpu_check_says_why_it_checks_nothing() -> None:
    found = versions()
    found["build"] = {"built": True, "cuda_archs": ["8.0"]}
    found["torch"] = {"version": "2.13.0", "cuda": "13.0"}
    found["gpus"] = []
    assert "sees no CUDA device" in gpu_check.obstacle(found)
    assert gpu_check.obstacle({**found, "gpus": [{"name": "a GPU"}]}) is None
    assert "is a CPU build" in gpu_check.obstacle({**found, "torch": {"version": "2.13.0+cpu", "cuda": None}})
    assert "has no CUDA kernels" in gpu_check.obstacle({**found, "build": {"built": True, "cuda_archs": []}})
    assert gpu_check.obstacle({**found, "build": {"built": False, "reason": "not built"}}) == "not built"


@pytest.mark.parametrize(
    ("code", "status", "detail"),
    [
        ("def test_a(): pass\ndef test_b(): pass", "passed", "2 run, 0 failed, 0 skipped"),
        ("def test_a(): assert False", "failed", "1 run, 1 failed, 0 skipped; exit code 1"),
        ("import pytest\ndef test_a(): pytest.skip('none')", "failed", "0 run, 0 failed, 1 skipped"),
        ("import time\ndef test_a(): time.sleep(60)", "failed", "stopped after 3 s"),
    ],
)
def test_gpu_check_judges_a_stage(
    code: str, status: str, detail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "OUT", tmp_path)
    (tmp_path / "test_it.py").write_text(code)
    stage = gpu_check.run_pytest("stage", [], ["-q", str(tmp_path)], 3.0 if "sleep" in code else 60.0)
    assert (stage.status, stage.detail[: len(detail)]) == (status, detail)
    assert status in gpu_check.table([stage], [{"name": "b", "median_us": 1.5, "gb_s": 3}])


def test_gpu_check_judges_draws() -> None:
    draw = {"name": "d", "job": "draw", "shape": "1024x126464 flat", "dtype": "bfloat16", "median_us": 100.0}
    results = [{**draw, "competitor": "block16", "times_reading": times} for times in (1.2, 1.5)]
    results += [{**draw, "competitor": "element", "times_reading": 1.0}, {"name": "b", "median_us": 1.5}]
    first, second = gpu_check.judge_draws(results)
    assert first == "draw 1024x126464 bfloat16 flat: 1.2 x reading, aim 1.4: reached"
    assert second.endswith("missed")
    assert first in gpu_check.table([], results)
