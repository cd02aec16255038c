"""Blocks in which nothing is to be generated."""

from __future__ import annotations

import pytest
import torch
from fastdiff_ops.masked import decode, first_hitting_sample
from masked.networks import MASK, VOCAB, Mixer


@pytest.mark.parametrize("sampler", [first_hitting_sample, decode])
def test_eos_before_a_block_without_masks(sampler) -> None:
    """Block 1 is context: nothing happens in it, which must not make the run forget the EOS in block 0."""
    tokens = torch.tensor([[MASK, MASK, 1, 1, MASK, MASK, MASK, MASK]])
    logits = 50.0 * torch.nn.functional.one_hot(torch.zeros(1, 8, dtype=torch.int64), VOCAB).float()
    result, stats = sampler(
        lambda x: logits.expand(len(x), -1, -1),
        tokens,
        mask_id=MASK,
        block_length=2,
        eos_id=0,
        pad_id=9,
        return_stats=True,
    )
    assert result.tolist() == [[0, 0, 1, 1, 9, 9, 9, 9]]
    assert stats.nfe == 2


@pytest.mark.parametrize("sampler", [first_hitting_sample, decode])
def test_blocks_of_sequences_without_masks(sampler) -> None:
    tokens = torch.zeros(2, 5, dtype=torch.int64)
    for steps in (None, 3):
        result, stats = sampler(
            Mixer(), tokens, mask_id=MASK, block_length=2, num_steps=steps, return_stats=True
        )
        assert torch.equal(result, tokens) and stats.nfe == 0


@pytest.mark.parametrize("options", [{"order": 2, "tokens_per_step": 2}, {"corrector_steps": 1}], ids=str)
def test_blocks_of_sequences_without_masks_in_detail(options) -> None:
    tokens = torch.zeros(2, 5, dtype=torch.int64)
    assert torch.equal(first_hitting_sample(Mixer(), tokens, mask_id=MASK, block_length=2, **options), tokens)
