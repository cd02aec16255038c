"""What is shipped: source distribution, wheel in an environment of its own, and the build's own decisions."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import fastdiff_ops
import pytest

ROOT = Path(__file__).parent.parent
SHIPPED = {".c", ".py", ".pyi", ".so", ".typed", ".safetensors", ".json"}


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | environment
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, cwd=ROOT)
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the CPU kernels, from the objects that an in-place build has left, or else a full build."""
    out = tmp_path_factory.mktemp("wheel")
    for stale in (ROOT / "build").glob("lib*"):  # it may hold modules that are gone
        shutil.rmtree(stale)
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out)
    run(*command, cwd=ROOT, FASTDIFF_OPS_CUDA="0")
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a second environment that has the wheel, and torch from the first."""
    home = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    python = home / "bin" / "python"
    purelib = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip()
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (Path(purelib) / "first_environment.pth").write_text("\n".join(others) + "\n")
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=home
    )
    return python


@pytest.mark.slow
@pytest.mark.xdist_group("packaging")
def test_sdist_holds_the_sources_and_nothing_built(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"setup.py", "pyproject.toml", "LICENSE", "csrc/host.cpp", "csrc/common/simd.h"} <= names
    tracked = run("git", "ls-files", "csrc", "python", cwd=ROOT).split()
    wanted = {name for name in tracked if (ROOT / name).exists()}
    assert wanted <= names, sorted(wanted - names)
    assert not [
        name for name in names if name.endswith((".so", ".o")) or name.startswith(("build/", ".venv"))
    ]


@pytest.mark.slow
@pytest.mark.xdist_group("packaging")
def test_wheel_holds_the_package_and_no_sources(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith(".dist-info/METADATA"))).decode()
    package = [name for name in names if ".dist-info/" not in name]
    assert all(name.startswith("fastdiff_ops/") for name in package), package
    assert {Path(name).suffix for name in package} <= SHIPPED, package
    assert {"fastdiff_ops/_ops.abi3.so", "fastdiff_ops/py.typed"} <= set(package)
    assert [name for name in package if re.match(r"fastdiff_ops/_host\.cpython-.*\.so$", name)]
    assert f"\nVersion: {fastdiff_ops.__version__}\n" in metadata
    assert any(name.endswith("licenses/LICENSE") for name in names)
    sources = {p.relative_to(ROOT / "python").as_posix() for p in ROOT.glob("python/fastdiff_ops/**/*.py")}
    assert {name for name in package if name.endswith(".py")} == sources


@pytest.mark.slow
@pytest.mark.xdist_group("packaging")
def test_wheel_works_in_another_environment(installed: Path, tmp_path: Path) -> None:
    code = """
import json, pathlib, sys, torch, fastdiff_ops
from fastdiff_ops import _load
from fastdiff_ops.show_versions import versions
assert pathlib.Path(fastdiff_ops.__file__).is_relative_to(sys.prefix), fastdiff_ops.__file__
_load.load_ops()
torch.ops.fastdiff_ops.solver_step
from fastdiff_ops.schedules import VPCosine
start = torch.ones(2, 4)
how = {"prediction_type": "x0", "schedule": VPCosine(), "num_steps": 4}
x = fastdiff_ops.sample(lambda x, t: x, start, "dpmpp_2m", **how)
assert x.isfinite().all() and x.shape == (2, 4)
print(json.dumps(versions()))
"""
    found = json.loads(run(installed, "-c", code, cwd=tmp_path).splitlines()[-1])
    assert found["build"]["built"]
    assert found["build"]["cuda_archs"] == []
    assert "plan" in run(installed.parent / "fastdiff-ops", "--help", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.xdist_group("packaging")
@pytest.mark.parametrize("level", ["scalar", "avx2", "avx512"])
def test_wheel_steps_at_every_simd_level(installed: Path, level: str, tmp_path: Path) -> None:
    """Same numbers, to the last bit, whatever the processor can do."""
    code = """
import hashlib, torch
from fastdiff_ops import ops
generator = torch.Generator().manual_seed(3)
x, out = (torch.randn(3, 1001, generator=generator) for _ in range(2))
row = ops.Row(state=0.7, output=-0.4, noise=0.2).to_array()
import numpy as np
rows = np.zeros((1, 4, 13)); rows[0, 0] = row
coef = torch.as_tensor(ops.pack_coef(rows, np.array([[1.0, -0.5]])))
result = ops.solver_step(x, [out], coef, torch.tensor(0), rng=torch.tensor([5, 1]))
print(hashlib.sha256(result[0].numpy().tobytes()).hexdigest())
"""
    here = [run(installed, "-c", code, cwd=tmp_path, FASTDIFF_OPS_SIMD=cap) for cap in ("scalar", level)]
    assert here[0] == here[1]
