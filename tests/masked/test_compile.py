"""A step of first-hitting sampling under torch.compile, and samplers with compiled networks."""

from __future__ import annotations

import torch
from fastdiff_ops import ops
from fastdiff_ops.masked import first_hitting_sample
from masked.networks import MASK, VOCAB
from torch import Tensor


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = torch.nn.Parameter(torch.randn(64, VOCAB, generator=generator))

    def forward(self, tokens: Tensor) -> Tensor:
        place = torch.arange(1, tokens.shape[1] + 1)
        return self.table[((tokens * place).sum(1, keepdim=True) + 5 * place) % 64]


def test_a_compiled_step_in_one_graph() -> None:
    """Network and draw without a graph break, and without compiling again for other steps or seeds."""
    network = Network()
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    @torch.compile(fullgraph=True, backend=backend)
    def step(tokens: Tensor, positions: Tensor, rng: Tensor) -> Tensor:
        return ops.first_hitting_step(tokens, network(tokens), positions, rng=rng)

    with torch.no_grad():
        for seed in (3, 4):
            tokens = torch.full((2, 6), MASK)
            rng = ops.make_rng(seed)
            order = ops.first_hitting_times(tokens == MASK, seed=seed).order
            for k in range(6):
                tokens = step(tokens, order[:, k].contiguous(), rng)
            assert torch.equal(
                tokens, first_hitting_sample(network, torch.full((2, 6), MASK), mask_id=MASK, seed=seed)
            )
    assert len(graphs) == 1


def test_a_compiled_network_keeps_its_shapes() -> None:
    """With ragged="pad" every call has the shapes of the first."""
    shapes = set()
    network = torch.compile(Network(), backend="eager", fullgraph=True)

    def watched(tokens: Tensor) -> Tensor:
        shapes.add(tokens.shape)
        return network(tokens)

    tokens = torch.full((3, 8), MASK)
    tokens[0, 1:] = tokens[1, 3:] = 0
    padded = first_hitting_sample(watched, tokens, mask_id=MASK, seed=0, ragged="pad")
    assert shapes == {tokens.shape}
    assert torch.equal(padded, first_hitting_sample(Network(), tokens, mask_id=MASK, seed=0))
    assert not padded.requires_grad
