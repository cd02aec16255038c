"""Small random networks, deterministic to the last bit whatever the batch."""

from __future__ import annotations

import torch
from torch import Tensor

VOCAB, MASK = 12, 12


class Mixer:
    """Logits that depend on all tokens, by tables and integer sums: equal in every batch, bit for bit."""

    def __init__(self, vocab: int = VOCAB, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.vocab = vocab
        self.table = (2.0 * torch.randn(64, vocab, generator=generator)).to(dtype)
        self.calls = 0
        self.rows = 0

    def hidden(self, tokens: Tensor) -> Tensor:
        """int64 [B, L] in [0, 64): what position and context select."""
        self.calls += 1
        place = torch.arange(1, tokens.shape[1] + 1)
        total = (tokens * place).sum(1, keepdim=True)
        return (total + 3 * tokens.roll(1, 1) + 5 * place) % 64

    def head(self, hidden: Tensor) -> Tensor:
        self.rows += hidden[..., 0].numel()
        return self.table[hidden[..., 0].long()]

    def __call__(self, tokens: Tensor) -> Tensor:
        return self.table[self.hidden(tokens)]

    def backbone(self, tokens: Tensor) -> Tensor:
        return self.hidden(tokens)[..., None].double()


def ragged_batch(batch: int = 7, length: int = 10, seed: int = 1, mask: int = MASK) -> Tensor:
    """Sequences with 0 to `length` masks."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, VOCAB, (batch, length), generator=generator)
    share = torch.linspace(0, 1, batch)[:, None]
    return tokens.masked_fill(torch.rand(batch, length, generator=generator) < share, mask)
