"""End to end on data: a small network trained on binarised digits, sampled in both ways."""

from __future__ import annotations

import pytest
import torch
from fastdiff_ops.masked import ancestral_sample, first_hitting_sample
from sklearn.datasets import load_digits
from torch import Tensor

MASK, PIXELS, SAMPLES = 2, 64, 2000


@pytest.fixture(scope="module")
def data() -> Tensor:
    images = torch.from_numpy(load_digits().images).flatten(1)
    return (images >= 8).long()


@pytest.fixture(scope="module")
def network(data: Tensor) -> torch.nn.Module:
    """Two layers, trained on the time-agnostic objective: a uniform number n of masks, weight L / n."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(2 * PIXELS, 256),
        torch.nn.GELU(),
        torch.nn.Linear(256, 256),
        torch.nn.GELU(),
        torch.nn.Linear(256, 2 * PIXELS),
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    steps = 1000
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x = data[torch.randint(len(data), (256,))]
        n = torch.randint(1, PIXELS + 1, (256, 1))
        masked = torch.rand(256, PIXELS).argsort(1).argsort(1) < n
        logits = _logits(net, torch.where(masked, MASK, x))
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), x, reduction="none")
        loss = (losses * masked / n).sum() / 256
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return net.eval()


def _logits(net: torch.nn.Module, tokens: Tensor) -> Tensor:
    known = (tokens != MASK).float()
    return net(torch.cat([known * (2.0 * tokens - 1.0), known], dim=1)).view(len(tokens), PIXELS, 2)


@pytest.mark.slow
@pytest.mark.xdist_group("digits")
def test_first_hitting_is_ancestral_with_sixteen_times_fewer_calls(network, data) -> None:
    """64 calls against 1000.

    Other seeds for the two, so nothing is coupled: marginals of 2000 samples each differ with a standard
    error of up to 0.016; their mean over 64 pixels is held to less than that, the largest to 0.06.
    """

    def model(tokens: Tensor) -> Tensor:
        return _logits(network, tokens)

    masks = torch.full((SAMPLES, PIXELS), MASK)
    ours, fast = first_hitting_sample(model, masks, mask_id=MASK, seed=1, return_stats=True)
    grid, slow = ancestral_sample(model, masks, mask_id=MASK, num_steps=1000, seed=2, return_stats=True)
    assert fast.nfe == PIXELS
    assert slow.nfe > 15 * PIXELS
    a, b, truth = (x.double() for x in (ours, grid, data))
    assert (a.mean(0) - b.mean(0)).abs().max() < 0.06
    assert (a.mean(0) - b.mean(0)).abs().mean() < 0.015
    assert (a.mean(0) - truth.mean(0)).abs().mean() < 0.05
    pairs = [(x.T @ x / len(x)) for x in (a, b, truth)]
    assert (pairs[0] - pairs[1]).abs().max() < 0.07
    assert (pairs[0] - pairs[1]).abs().mean() < 0.015
    assert (pairs[0] - pairs[2]).abs().mean() < 0.05
    # the same seed: the same pixels, but where a step of the grid holds two hits
    coupled = ancestral_sample(model, masks[:200], mask_id=MASK, num_steps=1000, seed=1)
    assert (coupled == ours[:200]).double().mean() > 0.85
    both = (coupled.double().mean(0) - ours[:200].double().mean(0)).abs()
    assert both.max() < 0.1 and both.mean() < 0.03
