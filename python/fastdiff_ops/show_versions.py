"""What a bug report needs to know about the machine and the build."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

from ._version import __version__

EXTRAS = (
    "numpy",
    "safetensors",
    "tqdm",
    "matplotlib",
    "scipy",
    "scikit-learn",
    "diffusers",
    "k-diffusion",
    "tsplib95",
    "optuna",
    "elkai",
    "fast-tsp",
    "ortools",
    "triton",
    "pytest",
)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _build() -> dict[str, Any]:
    """Describe the compiled modules, or say why there are none."""
    from ._load import load_ops

    try:
        load_ops()
        from . import _host
    except ImportError as error:
        return {"built": False, "reason": str(error)}
    return {
        "built": True,
        "compiler": _host.compiler(),
        "simd": _host.simd_level(),
        "cuda_archs": _host.cuda_archs().split(";") if _host.cuda_archs() else [],
        "cuda_toolkit": _host.cuda_toolkit() or None,
    }


def _gpus() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return []
    properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [
        {"name": p.name, "capability": f"{p.major}.{p.minor}", "memory_gib": round(p.total_memory / 2**30, 1)}
        for p in properties
    ]


def versions() -> dict[str, Any]:
    """Return what `show_versions` prints, as nested dictionaries that JSON can hold.

    Returns
    -------
    dict
        `fastdiff_ops`, `python`, `platform`, `torch`, `build`, `gpus`, `environment` and `packages`. What is
        absent is None or empty, never missing.

    Examples
    --------
    >>> from fastdiff_ops.show_versions import versions
    >>> sorted(versions())
    ['build', 'environment', 'fastdiff_ops', 'gpus', 'packages', 'platform', 'python', 'torch']
    """
    import torch

    return {
        "fastdiff_ops": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "torch": {
            "version": torch.__version__,
            "cuda": torch.version.cuda,
            "threads": torch.get_num_threads(),
        },
        "build": _build(),
        "gpus": _gpus(),
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith("FASTDIFF_OPS_")},
        "packages": {name: _installed(name) for name in EXTRAS},
    }


def show_versions() -> None:
    """Print versions, compiler, SIMD level in use, CUDA architectures compiled and GPUs present.

    Works without the compiled library too, and then says what is missing.

    Examples
    --------
    >>> import fastdiff_ops
    >>> fastdiff_ops.show_versions()  # doctest: +ELLIPSIS
    fastdiff_ops  ...
    """
    v = versions()
    build, torch = v["build"], v["torch"]
    rows = [
        ("fastdiff_ops", v["fastdiff_ops"]),
        ("python", v["python"]),
        ("platform", v["platform"]),
        ("torch", f"{torch['version']} (CUDA {torch['cuda'] or 'none'}, {torch['threads']} threads)"),
    ]
    if build["built"]:
        cap = v["environment"].get("FASTDIFF_OPS_SIMD")
        archs = " ".join(build["cuda_archs"])
        rows += [
            ("compiler", build["compiler"]),
            ("SIMD in use", build["simd"] + (f" (capped by FASTDIFF_OPS_SIMD={cap})" if cap else "")),
            ("CUDA kernels", f"{archs} (toolkit {build['cuda_toolkit']})" if archs else "not compiled"),
        ]
    else:
        rows.append(("library", build["reason"]))
    gpus = [f"{g['name']} (sm_{g['capability'].replace('.', '')}, {g['memory_gib']} GiB)" for g in v["gpus"]]
    rows.append(("GPU", "; ".join(gpus) or "none"))
    rows += [(name, value or "not installed") for name, value in v["packages"].items()]
    rows += [(name, value) for name, value in v["environment"].items()]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
