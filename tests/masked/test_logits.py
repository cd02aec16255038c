"""Logits are read where they lie, and options are not rounded on the way to the operators."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from fastdiff_ops.masked import ancestral_sample, decode, first_hitting_sample, remdm_sample
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

V, MASK = 500, 500
SAMPLERS = {
    "first_hitting": partial(first_hitting_sample, tokens_per_step=3),
    "ancestral": partial(ancestral_sample, num_steps=4),
    "decode": partial(decode, num_steps=4, temperature=1.0),
    "remdm": partial(remdm_sample, num_steps=4),
}
OPTIONS = [{}, {"top_p": 0.9}, {"cfg_scale": 1.5, "min_p": 0.01}]
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)


class Allocations(TorchDispatchMode):
    """Operators that returned new tensors with at least `size` elements."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, Tensor)}
        for value in result if isinstance(result, (tuple, list)) else [result]:
            large = isinstance(value, Tensor) and value.numel() >= self.size
            if large and value.untyped_storage().data_ptr() not in given:
                self.found.append(str(function))
        return result


@each_sampler
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_views_of_logits_are_not_copied(sampler, options) -> None:
    """Networks hand out slices of a longer or wider output."""
    table = torch.randn(6, 11, V + 3, generator=torch.Generator().manual_seed(0))
    tokens = torch.full((3, 10), MASK)

    def sliced(x: Tensor) -> Tensor:
        return table[: len(x), :10, :V]

    dense = {n: table[:n, :10, :V].contiguous() for n in (1, 2, 3, 4, 6)}
    expected = sampler(lambda x: dense[len(x)], tokens, mask_id=MASK, seed=1, **options)
    with Allocations(10 * V) as allocations:
        result = sampler(sliced, tokens, mask_id=MASK, seed=1, **options)
    assert torch.equal(result, expected)
    assert allocations.found == []


def test_top_p_is_not_rounded() -> None:
    """In float32 0.6 - 1e-9 is above 0.6, and would ask for more than the first token has."""
    logits = torch.tensor([0.6, 0.25, 0.15], dtype=torch.float64).log().expand(1, 200, 3)
    result = first_hitting_sample(
        lambda x: logits, torch.full((1, 200), 3), mask_id=3, top_p=0.6 - 1e-9, tokens_per_step=200, seed=0
    )
    assert not result.any()


@each_sampler
def test_one_forbidden_token(sampler) -> None:
    table = torch.zeros(2, 10, V).index_fill(2, torch.tensor([3]), 50.0)
    tokens = torch.full((2, 10), MASK)
    result = sampler(lambda x: table[: len(x)], tokens, mask_id=MASK, seed=1, forbidden=3)
    assert not (result == 3).any()
    again = sampler(lambda x: table[: len(x)], tokens, mask_id=MASK, seed=1, forbidden=[3])
    assert torch.equal(again, result)
