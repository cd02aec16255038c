"""Semi-autoregressive generation: consecutive blocks of positions, one after the other.

Later blocks stay masked while an earlier one is decoded, but are in the network's context (LLaDA, arXiv
2502.09992; block diffusion, arXiv 2503.09573).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastdiff_ops.schedules._checks import check_count


def block_index(todo: Tensor, block_length: int | None) -> Tensor:
    """Return the block of every position to generate.

    Parameters
    ----------
    todo : bool Tensor [B, L]
    block_length : int or None
        Blocks are that many consecutive positions, from the sequence's first position to generate, so that
        they do not depend on padding or batch. None is one block.

    Returns
    -------
    int64 Tensor [B, L]
        -1 where nothing is generated.

    Examples
    --------
    >>> todo = torch.tensor([[False, True, True, False, True, True]])
    >>> block_index(todo, 2)
    tensor([[-1,  0,  0, -1,  1,  2]])
    """
    if block_length is None:
        return todo.long() - 1
    check_count("block_length", block_length, 1)
    first = todo.to(torch.uint8).argmax(1, keepdim=True)
    place = torch.arange(todo.shape[1], device=todo.device) - first
    return torch.where(todo, place.div(block_length, rounding_mode="floor"), -1)


def block_counts(blocks: Tensor) -> list[list[int]]:
    """Return how many positions each block of each sequence has, [B][n_blocks], empty ones included."""
    n_blocks = blocks.max() + 1  # stays on the device: one transfer below
    length = blocks.shape[1]
    counts = torch.zeros(blocks.shape[0], length + 1, dtype=torch.int64, device=blocks.device)
    counts.scatter_add_(1, blocks + 1, torch.ones_like(blocks))
    host = torch.cat([counts, n_blocks.expand(counts.shape[0], 1)], dim=1).tolist()
    return [row[1 : 1 + row[-1]] for row in host]
