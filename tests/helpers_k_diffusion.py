"""k-diffusion's samplers and noise levels, loaded without the rest of that package.

``import k_diffusion`` pulls in torchvision, training code and feature extractors. The samplers need one
helper of all that, so `load` puts the installed ``sampling.py`` into a package that has only this.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch

_PACKAGE = "_k_diffusion_samplers"


def _append_dims(x: torch.Tensor, target_dims: int) -> torch.Tensor:
    return x.reshape(x.shape + (1,) * (target_dims - x.ndim))


@cache
def load() -> ModuleType:
    """The module ``k_diffusion.sampling``; ImportError where it or what it imports is not installed."""
    spec = importlib.util.find_spec("k_diffusion")  # finds the package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("k_diffusion is not installed")
    path = Path(spec.submodule_search_locations[0]) / "sampling.py"
    package, utils = ModuleType(_PACKAGE), ModuleType(f"{_PACKAGE}.utils")
    package.__path__ = []
    utils.append_dims = _append_dims
    package.utils = utils
    sampling_spec = importlib.util.spec_from_file_location(f"{_PACKAGE}.sampling", path)
    assert sampling_spec is not None and sampling_spec.loader is not None
    module = importlib.util.module_from_spec(sampling_spec)
    sys.modules |= {_PACKAGE: package, f"{_PACKAGE}.utils": utils, sampling_spec.name: module}
    sampling_spec.loader.exec_module(module)
    return module


def sampling() -> ModuleType:
    """The same for tests, which are skipped without it."""
    try:
        return load()
    except ImportError as error:
        pytest.skip(f"k-diffusion cannot be loaded: {error}")


@contextmanager
def float64_default() -> Iterator[None]:
    """Makes k-diffusion compute its noise levels in float64: it builds them in torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
