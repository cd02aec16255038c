"""The fused first-hitting step: a draw for given positions, written into the sequences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastdiff_ops import ops, reference
from fastdiff_ops.ops import make_rng
from ops.categorical_cases import DTYPES, F32, F64, STREAMS, assert_same
from torch import Tensor

MASK = 99
SHAPES = [(3, 5, 1, 40), (4, 6, 3, 300), (2, 4, 4, 17), (1, 1, 1, 5), (2, 3, 2, 4100)]  # B, L, k, V


def case(
    batch: int, length: int, k: int, vocab: int, dtype: torch.dtype = F32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, logits of all positions, and k positions of which some are skipped."""
    generator = torch.Generator().manual_seed(seed)
    logits = (2 * torch.randn(batch, length, vocab, generator=generator)).to(dtype)
    orders = [torch.randperm(length, generator=generator)[:k] for _ in range(batch)]
    positions = torch.stack(orders).int() if batch else torch.zeros(0, k).int()
    positions[torch.rand(batch, k, generator=generator) < 0.2] = -1
    return torch.full((batch, length), MASK), logits, positions


def gather(logits: Tensor, positions: Tensor) -> Tensor:
    index = positions.clamp(min=0).long()[..., None].expand(-1, -1, logits.shape[2])
    return logits.gather(1, index)


def expected(
    tokens: Tensor, logits: Tensor, positions: Tensor, temperature, state: Tensor, names: Tensor, stream: str
) -> tuple[Tensor, Tensor]:
    """One ordinary draw for each position, named (sequence id << 32) | position."""
    tokens, drawn = tokens.clone(), torch.full(positions.shape, -1)
    for b in range(positions.shape[0]):
        for j, p in enumerate(positions[b].tolist()):
            if p < 0:
                continue
            row = names[b : b + 1] << 32 | p
            seed_and_draw = state if state.dim() == 1 else state[b, :2]
            heat = temperature if isinstance(temperature, float) else temperature.view(positions.shape)[b, j]
            token = ops.gumbel_argmax(logits[b, p], heat, rng=seed_and_draw, row_ids=row, stream=stream)
            drawn[b, j] = token
            if token >= 0:
                tokens[b, p] = token
    return tokens, drawn


@pytest.mark.emulated
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(3, 5, 1, 40), (4, 6, 3, 300), (2, 4, 4, 17), (1, 1, 1, 5), (2, 3, 2, 4100)]
)
def test_each_position_is_an_ordinary_draw(backend, shape, dtype, stream) -> None:
    """Rows of all positions, of the positions alone, and of one position; in place and functionally."""
    device = backend.device
    tokens, logits, positions = case(*shape, dtype)
    batch, k = positions.shape
    heat = torch.tensor([1.0, 0.0, 0.4, 2.0, 1.0])[torch.arange(batch * k) % 5]
    names = torch.tensor([7, 2**32 - 1, 0, 5])[:batch]
    for state in (make_rng(3, 2**32 - 1), make_rng([8, 2**63, 1, 2][:batch], 4, sample_ids=names)):
        want = expected(tokens, logits, positions, heat, state, names, stream)
        options = {"rng": state.to(device), "stream": stream}
        if state.dim() == 1:
            options["sequence_ids"] = names.to(device)
        for given, is_gathered in ((logits, False), (gather(logits, positions), True)):
            written = tokens.to(device, copy=True)
            call = (given.to(device), positions.to(device), heat.to(device))
            drawn = ops.first_hitting_step_(written, *call, gathered=is_gathered, **options)
            assert_same((written, drawn), want)
            result = ops.first_hitting_step(tokens.to(device), *call, gathered=is_gathered, **options)
            assert_same((result,), want[:1])
            full = tokens.to(device, copy=True)
            drawn = ops.first_hitting_step_(full, *call, gathered=is_gathered, method="full", **options)
            assert_same((full, drawn), want)
        if k == 1:
            written = tokens.to(device, copy=True)
            flat = gather(logits, positions)[:, 0].to(device)
            drawn = ops.first_hitting_step_(
                written, flat, positions[:, 0].to(device), heat.to(device), **options
            )
            assert_same((written, drawn), (want[0], want[1][:, 0]))


@pytest.mark.emulated
@pytest.mark.parametrize("k", [1, 2, 4])
def test_options(backend, k) -> None:
    """Every option, per row, with logits of all positions that lie apart in memory; against the reference."""
    device = backend.device
    tokens, logits, positions = case(3, 4, k, 60)
    generator = torch.Generator().manual_seed(5)
    wide = torch.randn(3, 9, 64, generator=generator)
    uncond = wide[:, 2:6, 1:61]
    n = 3 * k
    per_row = {
        "temperature": torch.rand(n, generator=generator),
        "cfg_scale": torch.tensor([0.0, 1.5, -0.5])[torch.arange(n) % 3],
        "threshold": torch.randn(n, generator=generator) - 1,
        "bias": torch.randn(n, 60, generator=generator),
        "suppressed": torch.rand(n, 60, generator=generator) < 0.3,
    }
    for one in (False, True):
        rows = {name: value[:1] if one else value for name, value in per_row.items()}
        forbidden, names = torch.tensor([3, 59]), torch.tensor([4, 0, 9])
        given, other = (gather(x, positions) for x in (logits, uncond))
        want = tokens.clone()
        drawn = reference.first_hitting_step_(
            want, given, positions, rows["temperature"], make_rng(1), names, other, rows["cfg_scale"],
            rows["bias"], rows["suppressed"], forbidden, rows["threshold"], 0, 0,
        )  # fmt: skip
        moved = {name: value.to(device) for name, value in rows.items()}
        written = tokens.to(device, copy=True)
        got = ops.first_hitting_step_(
            written, logits.to(device), positions.to(device), seed=1, sequence_ids=names.to(device),
            uncond_logits=wide.to(device)[:, 2:6, 1:61], forbidden=forbidden.to(device), gathered=False,
            **moved,
        )  # fmt: skip
        assert_same((written, got), (want, drawn))


@pytest.mark.emulated
def test_what_is_not_drawn_keeps_its_token(backend) -> None:
    device = backend.device
    tokens, logits, _ = case(3, 4, 2, 20)
    logits[1] = -torch.inf
    logits[2, 1] = torch.nan
    positions = torch.tensor([[-1, -1], [0, 3], [1, 2]], dtype=torch.int32)
    written = tokens.to(device, copy=True)
    drawn = ops.first_hitting_step_(written, logits.to(device), positions.to(device), seed=0)
    assert drawn[:2].eq(-1).all() and drawn[2, 0] == -1 and drawn[2, 1] >= 0
    changed = (written.cpu() != MASK).nonzero().tolist()
    assert changed == [[2, 2]]


@pytest.mark.emulated
def test_a_sequence_does_not_depend_on_its_batch(backend) -> None:
    device = backend.device
    tokens, logits, positions = (x.to(device) for x in case(7, 6, 2, 200))
    ids = torch.arange(7, device=device)
    want = ops.first_hitting_step(tokens, logits, positions, seed=3)
    order = torch.tensor([5, 0, 6], device=device)
    got = ops.first_hitting_step(
        tokens[order], logits[order], positions[order], seed=3, sequence_ids=ids[order]
    )
    assert torch.equal(got, want[order])
    one_by_one = tokens
    for j in range(2):
        one_by_one = ops.first_hitting_step(one_by_one, logits, positions[:, j], seed=3)
    assert torch.equal(one_by_one, want), "positions together or one after another"


@pytest.mark.emulated
@pytest.mark.parametrize("batch", [0, 2])
def test_nothing_to_do(backend, batch) -> None:
    tokens, logits, positions = (x.to(backend.device) for x in case(batch, 3, 1, 9))
    ops.first_hitting_step_(tokens, logits, positions[:, :1].fill_(-1), seed=1)
    assert (tokens == MASK).all()
    none = positions[:, :0]
    assert ops.first_hitting_step_(tokens, logits[:, :0], none, seed=1).shape == (batch, 0)


def test_tokens_are_a_view() -> None:
    """The row stride is kept: what lies between the sequences is not written."""
    wide = torch.full((3, 10), MASK)
    _, logits, positions = case(3, 4, 4, 9)
    positions = torch.arange(4).expand(3, 4).int()
    ops.first_hitting_step_(wide[:, 3:7], logits, positions, seed=1, gathered=False)
    assert (wide[:, 3:7] < 9).all()
    assert (wide[:, :3] == MASK).all() and (wide[:, 7:] == MASK).all()


def test_law_of_a_step() -> None:
    """2 x 10^5 sequences, one draw each: chi-square within 4 standard deviations of its mean."""
    n, vocab = 200_000, 12
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(0))
    tokens = torch.full((n, 3), MASK)
    drawn = ops.first_hitting_step_(
        tokens, logits.expand(n, vocab), torch.full((n,), 1, dtype=torch.int32), 0.8, seed=5
    )
    p = torch.softmax(logits.to(F64) / float(torch.tensor(0.8)), 0).numpy() * n
    seen = np.bincount(drawn.numpy(), minlength=vocab)
    chi2 = ((seen - p) ** 2 / p).sum()
    assert abs(chi2 - (vocab - 1)) < 4 * (2 * (vocab - 1)) ** 0.5
    assert torch.equal(tokens[:, 1], drawn)


def test_two_equal_sequence_ids_draw_the_same() -> None:
    tokens, logits, positions = case(1, 4, 1, 100)
    twice = [x.expand(2, *x.shape[1:]).contiguous() for x in (tokens, logits, positions)]
    same = ops.first_hitting_step(*twice, seed=1, sequence_ids=torch.tensor([3, 3]))
    assert torch.equal(same[0], same[1])
