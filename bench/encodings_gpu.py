"""The libraries for encodings that run on a GPU only, where they can be imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from .encodings import BASE, BOTH, CUBIC, FINEST, FORWARD, LEVELS, LOG2_ENTRIES, SIMPLEX, Job
from .interleave import Competitor

TINY, PERMUTOHEDRAL = f"{CUBIC}, tiny-cuda-nn", f"{SIMPLEX}, permutohedral_encoding"
GPU_NOTES = {
    TINY: "HashGrid, float32 parameters, the same levels",
    PERMUTOHEDRAL: "PermutoEncoding, 2^19 entries a level, cells as large as ours",
}


def tiny_cuda_nn(job: Job) -> torch.nn.Module:
    """The cubic grid of tiny-cuda-nn."""
    import tinycudann

    config = {
        "otype": "HashGrid",
        "n_levels": LEVELS,
        "n_features_per_level": 2,
        "log2_hashmap_size": LOG2_ENTRIES,
        "base_resolution": BASE,
        "per_level_scale": job.growth,
    }
    encoding: torch.nn.Module = tinycudann.Encoding(job.n, config, dtype=torch.float32)
    return encoding


def permutohedral(job: Job) -> torch.nn.Module:
    """The lattice of permutohedral_encoding, whose scales are lengths."""
    import permutohedral_encoding

    scales = [1 / (BASE * (FINEST / BASE) ** (i / (LEVELS - 1))) for i in range(LEVELS)]
    encoding: torch.nn.Module = permutohedral_encoding.PermutoEncoding(
        job.n, 1 << LOG2_ENTRIES, LEVELS, 2, scales
    )
    return encoding.cuda()


MAKERS: dict[str, Callable[[Job], torch.nn.Module]] = {TINY: tiny_cuda_nn, PERMUTOHEDRAL: permutohedral}


def gpu_competitors(job: Job) -> Iterator[Competitor]:
    """Those that are installed."""
    x = torch.rand(job.points, job.n, generator=torch.Generator().manual_seed(job.n)).to(job.device)
    for name, make in MAKERS.items():
        try:
            encoding = make(job)
        except ImportError:
            continue
        parameters = list(encoding.parameters())
        grad = torch.rand_like(encoding(x))

        def forward(encoding: Any = encoding) -> object:
            return encoding(x)

        def both(encoding: Any = encoding, parameters: Any = parameters, grad: Any = grad) -> object:
            with torch.enable_grad():
                return torch.autograd.grad(encoding(x), parameters, grad)

        yield Competitor(f"{name}, {FORWARD}", forward)
        yield Competitor(f"{name}, {BOTH}", both)
