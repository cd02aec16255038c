"""What every test shares: the backends.

A test that asks for `backend` runs on the CPU kernels and, where there is one, on a GPU: its tensors go to
`backend.device`. Marked `emulated` as well, it also runs on the CUDA kernels as the host emulates them
(tests/cuda_emulation), and all of that again under AddressSanitizer (test_cuda_emulation.py). So mark what
has small shapes and goes through branches and dtypes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import cpp_build
import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")


@dataclasses.dataclass(frozen=True)
class Backend:
    """Where the operators of a test run: `cpu`, `emulated` (CUDA kernels on CPU tensors) or `cuda`."""

    name: str

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.name == "cuda" else "cpu")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test its backends."""
    emulated = metafunc.definition.get_closest_marker("emulated") is not None
    if "backend" not in metafunc.fixturenames:
        if emulated:
            raise pytest.UsageError(f"{metafunc.definition.nodeid}: `emulated` tests must use `backend`")
        return
    names = ["cpu", "emulated"] if emulated else ["cpu"]
    metafunc.parametrize("backend", [*names, pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Run every operator of the test on one backend."""
    import fastdiff_ops.ops  # noqa: F401  the operators must exist before their kernels are exchanged

    chosen = Backend(request.param)
    if chosen.name == "emulated":
        cpp_build.library("fastdiff_ops_emulated")
        with cpp_build.cpu_kernels_from("fastdiff_ops_emulated"):
            yield chosen
    elif chosen.name == "cpu" and cpp_build.SANITIZED:
        cpp_build.library("fastdiff_ops_cpu")
        with cpp_build.cpu_kernels_from("fastdiff_ops_cpu_asan"):
            yield chosen
    else:
        yield chosen


@pytest.fixture
def count_launches() -> Callable[[Callable[[], object]], int]:
    """How many kernels a call launches, for tests on the `emulated` backend."""

    def count(call: Callable[[], object]) -> int:
        before = cpp_build.emulated_launches()
        call()
        return cpp_build.emulated_launches() - before

    return count
