"""Run the benchmarks and write bench/results/<device>-<date>-<commit>.{json,md,png}.

python -m bench            # all of it, about half an hour
python -m bench --quick    # about 4 minutes
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import cpuinfo
import pytest
import torch

from .report import write

ROOT = Path(__file__).parent.parent


def main() -> int:
    """Return pytest's exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure against peers, side by side."
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds, about 4 minutes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=default, help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results", help="folder of the results"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    quick = "-quick" if arguments.quick else ""
    path = (
        arguments.out / f"{device_name(arguments.device)}-{date.today().isoformat()}-{commit()}{quick}.json"
    )
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--benchmark-disable-gc",
        "--benchmark-columns=median,iqr,rounds",
    ]
    options += ["-W", "ignore::DeprecationWarning", "-m", "gpu" if arguments.device == "cuda" else "not gpu"]
    options += ["--quick"] if arguments.quick else []
    code = pytest.main(
        [*options, f"--rootdir={ROOT}", f"--benchmark-json={path}", str(Path(__file__).parent)]
    )
    if path.exists() and path.stat().st_size > 0:
        print(write(path))
    return int(code)


def device_name(device: str) -> str:
    """Model of the GPU or the processor, as a part of a file name."""
    model = (
        torch.cuda.get_device_name() if device == "cuda" else cpuinfo.get_cpu_info().get("brand_raw", "cpu")
    )
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(\w+\)", "", model).lower()).strip("-")


def commit() -> str:
    """Short hash of the checked-out commit; "-dirty" after it when files have been changed."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unversioned"


if __name__ == "__main__":
    sys.exit(main())
