"""What the package says of itself, at every SIMD level and without its compiled library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fastdiff_ops
import pytest
import torch
from fastdiff_ops.show_versions import versions

PACKAGE = Path(fastdiff_ops.__file__).parent
NEEDS = {"avx2": {"avx2", "fma", "f16c"}, "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}}


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


def test_versions_hold_what_a_bug_report_needs() -> None:
    found = json.loads(json.dumps(versions()))
    assert found["fastdiff_ops"] == fastdiff_ops.__version__
    assert found["torch"]["version"] == torch.__version__
    assert found["build"]["built"], found["build"]
    assert found["build"]["simd"] in ("scalar", "avx2", "avx512")
    assert found["build"]["compiler"].split()[0] in ("g++", "clang")
    assert bool(found["build"]["cuda_archs"]) == bool(found["build"]["cuda_toolkit"])
    assert len(found["gpus"]) == torch.cuda.device_count()


def test_show_versions_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    fastdiff_ops.show_versions()
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {"fastdiff_ops", "python", "torch", "compiler", "SIMD", "CUDA", "GPU", "numpy"} <= rows.keys()
    assert rows["fastdiff_ops"] == fastdiff_ops.__version__


@pytest.mark.parametrize("cap", ["scalar", "avx2", "avx512"])
def test_simd_level_is_capped(cap: str) -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    levels = ["scalar", "avx2", "avx512"]
    expected = "scalar"
    for level in levels[1 : levels.index(cap) + 1]:
        if not flags >= NEEDS[level]:
            break
        expected = level
    done = python("import fastdiff_ops; fastdiff_ops.show_versions()", FASTDIFF_OPS_SIMD=cap)
    assert f"{expected} (capped by FASTDIFF_OPS_SIMD={cap})" in done.stdout, done.stdout + done.stderr


def test_unknown_simd_level_is_an_error() -> None:
    done = python("import fastdiff_ops.ops", FASTDIFF_OPS_SIMD="sse9")
    assert done.returncode != 0
    assert "FASTDIFF_OPS_SIMD must be one of scalar, avx2, avx512, got 'sse9'" in done.stderr


def test_an_unbuilt_package_says_how_to_build_and_keeps_its_reference(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "fastdiff_ops", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    at = {"PYTHONPATH": str(tmp_path)}

    done = python("import fastdiff_ops.ops", **at)
    assert done.returncode != 0
    assert "ImportError: fastdiff_ops is not built" in done.stderr
    assert "python setup.py build_ext --inplace" in done.stderr

    done = python(
        "import fastdiff_ops; fastdiff_ops.reference.solver_step; fastdiff_ops.show_versions()", **at
    )
    assert done.returncode == 0, done.stderr
    assert "not built" in done.stdout


def test_a_torch_too_old_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastdiff_ops import _load

    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    with pytest.raises(ImportError, match=r"needs torch >= 2\.10, found 2\.9\.1\+cu128"):
        _load.load_ops.__wrapped__()


def test_unknown_names_of_the_package() -> None:
    assert set(fastdiff_ops.__all__) <= set(dir(fastdiff_ops))
    with pytest.raises(AttributeError, match="has no attribute 'smaple'"):
        _ = fastdiff_ops.smaple
