"""Compiles every CUDA kernel and reports registers, stack and spills; fails if a kernel spills.

python tools/ptxas_report.py     # writes build/ptxas.txt
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.resolve()
ARCHS = ("sm_80", "sm_90")
KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\S+)' for '(?P<arch>\w+)'"
    r".*?(?P<stack>\d+) bytes stack frame"
    r", (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers",
    re.S,
)


class Kernel(NamedTuple):
    """What ptxas says of one kernel, in registers and bytes."""

    arch: str
    registers: int
    stack: int
    stores: int
    loads: int
    name: str

    @property
    def spills(self) -> bool:
        return self.stores + self.loads > 0


def parse(log: str) -> list[Kernel]:
    """Read the output of `nvcc -Xptxas -v`."""
    return [
        Kernel(m["arch"], int(m["registers"]), int(m["stack"]), int(m["stores"]), int(m["loads"]), m["name"])
        for m in KERNEL.finditer(log)
    ]


def compile_verbosely(nvcc: Path, flags: list[str], source: Path, arch: str) -> list[Kernel]:
    command = [
        str(nvcc),
        *flags,
        f"-I{ROOT / 'csrc'}",
        f"-arch={arch}",
        "-Xptxas=-v",
        "-cubin",
        "-o",
        os.devnull,
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{source} does not compile for {arch}:\n{done.stderr}")
    return parse(done.stderr)


def main() -> int:
    spec = importlib.util.spec_from_file_location("setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    setup = importlib.util.module_from_spec(spec)  # the flags are written there, once
    spec.loader.exec_module(setup)
    cuda = setup.find_cuda()
    if cuda is None:
        print("no CUDA compiler: put nvcc on PATH or set CUDA_HOME")
        return 2
    jobs = [(source, arch) for source in sorted(ROOT.glob("csrc/*/*_cuda.cu")) for arch in ARCHS]
    includes = [f"-I{path}" for path in setup.ce.include_paths()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reports = list(
            pool.map(
                lambda job: compile_verbosely(cuda / "bin" / "nvcc", [*setup.NVCC_FLAGS, *includes], *job),
                jobs,
            )
        )
    kernels = sorted(kernel for report in reports for kernel in report)
    names = subprocess.run(
        ["c++filt"], input="\n".join(k.name for k in kernels), capture_output=True, text=True
    ).stdout
    lines = ["arch   registers  stack  spill stores  spill loads  kernel"]
    for k, name in zip(kernels, names.splitlines(), strict=True):
        lines.append(f"{k.arch}  {k.registers:9}  {k.stack:5}  {k.stores:12}  {k.loads:11}  {name}")
    spilling = sum(k.spills for k in kernels)
    lines.append(f"{len(kernels)} kernels from {len(jobs) // len(ARCHS)} files, {spilling} with spills")
    text = "\n".join(lines) + "\n"
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "ptxas.txt").write_text(text)
    print(text, end="")
    return int(spilling > 0 or not kernels)


if __name__ == "__main__":
    sys.exit(main())
