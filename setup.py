"""Builds the two extension modules.

* ``fastdiff_ops._ops``: every operator, on the LibTorch stable ABI. One binary serves every torch >= 2.10.
* ``fastdiff_ops._host``: pybind11; build information and host objects with state.

CUDA kernels are compiled whenever a CUDA compiler is found, also when torch itself is a CPU build: they know
no torch, the runtime is linked statically, and on such a torch they are simply never called.

Environment: FASTDIFF_OPS_CUDA=0|1 (never, always), TORCH_CUDA_ARCH_LIST, CUDA_HOME, MAX_JOBS.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from torch.utils import cpp_extension as ce

ROOT = Path(__file__).parent.resolve()
USUAL_CUDA_HOME = "/usr/local/cuda"
DEFAULT_ARCHS = "8.0;8.6;8.9;9.0;10.0+PTX"
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020a000000000000"
# Only fd::fma may fuse (-ffp-contract=off, -fmad=false): SIMD levels and CUDA would differ in the last bit.
CXX_FLAGS = ["-O3", "-g0", "-std=c++20", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno"]
CXX_FLAGS += ["-fno-trapping-math", "-Wall", "-Wextra", "-Wno-unused-parameter"]
# Errors name source files, and should not tell users in which folders they lay when the library was built.
# The last that fits wins: torch may be installed inside the project.
NAMELESS = [f"-fmacro-prefix-map={folder}/=" for folder in (ROOT, ce.include_paths()[0])]
CXX_FLAGS += NAMELESS
NVCC_FLAGS = ["-O3", "-std=c++20", "-fmad=false", "-cudart=static", "--expt-relaxed-constexpr", STABLE_ABI]
NVCC_FLAGS += ["-Xcompiler=" + ",".join(["-fvisibility=hidden", "-ffp-contract=off", *NAMELESS])]


def find_cuda() -> Path | None:
    """Return the root of the CUDA toolkit to compile with, or None for a build without CUDA kernels."""
    want = os.environ.get("FASTDIFF_OPS_CUDA", "auto")
    if want not in ("0", "1", "auto"):
        raise SystemExit(f"FASTDIFF_OPS_CUDA must be 0, 1 or auto, got {want!r}")
    if want == "0":
        return None
    for home in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), nvcc_on_path(), USUAL_CUDA_HOME):
        if home and (Path(home) / "bin" / "nvcc").exists():
            return Path(home)
    if want == "1":
        raise SystemExit(
            "FASTDIFF_OPS_CUDA=1 asks for the CUDA kernels, but no nvcc was found. Install the CUDA toolkit, "
            "put nvcc on PATH or set CUDA_HOME; or build without CUDA: FASTDIFF_OPS_CUDA=0"
        )
    return None


def nvcc_on_path() -> str | None:
    """Return the toolkit that `nvcc` on PATH belongs to; the command may be a wrapper, so it is asked."""
    exe = shutil.which("nvcc")
    if not exe:
        return None
    dryrun = subprocess.run(
        [exe, "--dryrun", "-x", "cu", "-c", os.devnull], capture_output=True, text=True
    ).stderr
    top = re.search(r"^#\$ TOP=(.+)$", dryrun, re.M)
    return os.path.normpath(top.group(1).strip()) if top else str(Path(exe).resolve().parent.parent)


def gencode(nvcc: Path) -> tuple[list[str], str]:
    """Return nvcc's architecture flags and the list of architectures they compile."""
    codes = subprocess.check_output([str(nvcc), "--list-gpu-code"], text=True)
    known = set(re.findall(r"sm_(\d+)", codes))
    asked = os.environ.get("TORCH_CUDA_ARCH_LIST")
    flags, names = [], []
    for arch in re.split(r"[;\s]+", (asked or DEFAULT_ARCHS).strip("; ")):
        number, ptx = arch.removesuffix("+PTX").replace(".", ""), arch.endswith("+PTX")
        if number.rstrip("af") not in known:
            if asked:  # the default list shrinks to what the toolkit knows, an explicit one must not
                raise SystemExit(
                    f"TORCH_CUDA_ARCH_LIST names {arch}, which {nvcc} does not know; "
                    f"it knows {sorted(known, key=int)}"
                )
            continue
        names.append(arch)
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        flags += [f"-gencode=arch=compute_{number},code=compute_{number}"] * ptx
    return flags, ";".join(names)


def find_cudart(cuda: Path) -> Path:
    """Return the folder of the static CUDA runtime."""
    target = {"aarch64": "sbsa-linux"}.get(platform.machine(), f"{platform.machine()}-linux")
    for folder in ("lib64", "lib", f"targets/{target}/lib"):
        if (cuda / folder / "libcudart_static.a").exists():
            return cuda / folder
    raise SystemExit(
        f"{cuda} has nvcc but no libcudart_static.a: install the CUDA runtime's development files"
    )


def relative(pattern: str) -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for p in ROOT.glob(pattern))


def headers_of(source: Path, seen: set[Path] | None = None) -> set[Path]:
    """Return the project's headers that a source includes, directly or not."""
    seen = set() if seen is None else seen
    for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', source.read_text(), re.M):
        for path in (source.parent / name, ROOT / "csrc" / name):
            if path.exists() and path not in seen:
                seen.add(path)
                headers_of(path, seen)
    return seen


class BuildExt(ce.BuildExtension):
    """torch's builder, incremental where it is not."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.editable_mode:  # otherwise `pip install -e` compiles everything again in a temporary folder
            tag = f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
            self.build_temp = str(ROOT / "build" / f"temp.{tag}")  # where build_ext --inplace has its objects

    def build_extensions(self) -> None:
        # ninja knows the headers of a .cu only when torch is a CUDA build
        for source in ROOT.glob("csrc/*/*_cuda.cu"):
            inputs = {source, *headers_of(source)}
            for obj in Path(self.build_temp).glob(f"**/{source.parent.name}/{source.stem}.o"):
                if obj.stat().st_mtime < max(p.stat().st_mtime for p in inputs):
                    obj.unlink()
        super().build_extensions()


def extensions() -> list[Extension]:
    """Describe both modules; a build without CUDA merely lacks the CUDA sources."""
    sources = ["csrc/ops.cpp", *relative("csrc/*/*_cpu.cpp")]
    # libtorch.so must stay NEEDED: with a CUDA torch it brings libtorch_cuda's symbols. The flag comes first.
    link = ["-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10"]
    arch_flags: list[str] = []
    archs = toolkit = ""
    cuda = find_cuda()
    if cuda:
        arch_flags, archs = gencode(cuda / "bin" / "nvcc")
        sources += relative("csrc/*/*_cuda.cu") + relative("csrc/*/*_cuda_bind.cpp")
        banner = subprocess.check_output([str(cuda / "bin" / "nvcc"), "--version"], text=True)
        toolkit = re.findall(r"release (\d+\.\d+)", banner)[0]
        link += [f"-L{find_cudart(cuda)}", "-lcudart_static", "-lrt", "-lpthread", "-ldl"]
        # torch's own checks assume that torch was built with this toolkit; nothing here depends on that
        ce.CUDA_HOME, ce._check_cuda_version = str(cuda), lambda *_: None

    ops = ce.CppExtension(
        "fastdiff_ops._ops",
        sources,
        py_limited_api=True,
        include_dirs=[str(ROOT / "csrc")],
        extra_compile_args={
            "cxx": [STABLE_ABI, *CXX_FLAGS],
            "nvcc": [*NVCC_FLAGS, "--threads=2", *arch_flags],
        },
        extra_link_args=link,
    )
    module = ce.CppExtension(
        "fastdiff_ops._host",
        ["csrc/host.cpp", "csrc/build_info.cpp", *relative("csrc/*/*_host.cpp")],
        include_dirs=[str(ROOT / "csrc"), pybind11.get_include()],
        # in the command, not in a generated header: ninja compiles again whenever a command changes
        extra_compile_args={
            "cxx": [*CXX_FLAGS, f'-DFD_CUDA_ARCHS="{archs}"', f'-DFD_CUDA_TOOLKIT="{toolkit}"']
        },
    )
    ops.libraries = module.libraries = []
    return [ops, module]


if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
