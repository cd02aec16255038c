"""Checks a compiled `_ops` library for what no test of its results can see.

    python tools/check_library.py python/fastdiff_ops/_ops.abi3.so

* Every symbol it needs from torch is in the CPU-only torch library, or weak: all symbols are resolved when it
  is loaded, so one call into CUDA libraries would make it unloadable where torch has no CUDA.
* It links no CUDA library, searches no folder, and names neither torch's headers nor the project by the place
  where they were when it was built: error messages would show it.
* AVX instructions occur only in functions named after their SIMD level: elsewhere they crash old processors.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent.resolve()
TORCH = Path(torch.__file__).parent
LINKED = {"libtorch.so", "libtorch_cpu.so", "libc10.so"}


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def unresolved(library: Path) -> list[str]:
    """Return the symbols that neither the system nor a CPU-only torch defines."""
    needed = re.findall(r"^\s+U (\S+)$", run("nm", "-D", "--undefined-only", str(library)), re.M)
    wanted = {
        name for name in needed if "@" not in name
    }  # versioned symbols come from the C and C++ libraries
    for name in ("libtorch_cpu.so", "libc10.so"):
        defined = run("nm", "-D", "--defined-only", str(TORCH / "lib" / name))
        wanted -= set(re.findall(r"^\S+ \w (\S+?)(?:@.*)?$", defined, re.M))
    system = (
        "_Z",
        "__cxa",
        "_Unwind",
        "__gxx",
        "aoti_",
        "torch_",
    )  # what is checked; libc may be unversioned elsewhere
    return sorted(name for name in wanted if name.startswith(system))


def linkage(library: Path) -> list[str]:
    """Return what is wrong with the libraries it names and the folders it searches."""
    dynamic = run("readelf", "-d", str(library))
    linked = set(re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic))
    problems = [f"does not link {name}" for name in sorted(LINKED - linked)]
    problems += [
        f"links {name}"
        for name in sorted(linked)
        if re.match(r"lib(cud|nv|c10_cuda|torch_cuda|torch_python)", name)
    ]
    return problems + [f"searches {path}" for path in re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.+)\]", dynamic)]


def embedded_folders(library: Path) -> list[str]:
    """Return which folders of this machine its bytes name: they come from ``__FILE__``."""
    content = library.read_bytes()
    return [f"names {folder}" for folder in (TORCH / "include", ROOT) if f"{folder}/".encode() in content]


def leaked_simd(library: Path) -> list[str]:
    """Return the functions with AVX instructions whose names do not say so."""
    leaks: set[str] = set()
    function = ""
    process = subprocess.Popen(
        ["objdump", "-d", "-C", "--no-show-raw-insn", str(library)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.endswith(">:\n"):
            function = line.split("<", 1)[1][:-3]
        elif re.search(r":\tv[a-z]+|%[yz]mm", line) and not re.search(r"avx2|avx512", function):
            leaks.add(function)
    if process.wait() != 0:
        raise RuntimeError(f"objdump failed on {library}")
    return sorted(leaks)


def problems(library: Path) -> list[str]:
    """Return everything wrong with a library, one line each."""
    found = [f"needs {name}, which a CPU-only torch does not define" for name in unresolved(library)]
    found += linkage(library) + embedded_folders(library)
    if platform.machine() == "x86_64":
        found += [f"AVX outside the SIMD dispatch: {name}" for name in leaked_simd(library)]
    return found


def main() -> int:
    library = Path(sys.argv[1])
    found = problems(library)
    for line in found:
        print(f"{library.name}: {line}")
    print(
        f"{library.name}: {len(found)} problems"
        if found
        else f"{library.name}: symbols, linkage, paths and SIMD dispatch are sound"
    )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
