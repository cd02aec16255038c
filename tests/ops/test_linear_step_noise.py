"""Noise drawn inside the step: the library's one stream, element by element, whatever the call looks like."""

from __future__ import annotations

import pytest
import torch
from fastdiff_ops import ops
from ops.step_cases import DTYPES, F32, F64, Case, random_case, run, run_in_place, same, table

SHAPES = [(3,), (2, 1), (2, 5), (3, 4, 8), (2, 3, 7, 5), (1, 3, 17, 31), (2, 2, 3, 2, 5)]


def normals(case: Case, shape: tuple[int, ...]) -> torch.Tensor:
    rng = case.options["rng"].clone()
    rng[..., 1] += case.step
    return torch.ops.fastdiff_ops.random_normal(shape, rng, F32)


@pytest.mark.emulated
@pytest.mark.parametrize("kind", ["rng", "rngs"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_drawn_noise_is_random_normal(backend, dtype, kind):
    """Draw number offset + step; one float32 normal for every dtype."""
    for seed, shape in enumerate(SHAPES):
        case = random_case(seed, shape, dtypes=(dtype,) * 4, noise=kind, per_sample=seed % 2 == 1)
        case = case.to(backend.device)
        given = case.changed(noise=normals(case, shape), rng=None)
        assert same(run(case), run(given))
        assert same([run_in_place(case)["history"]], [run_in_place(given)["history"]])


@pytest.mark.emulated
def test_noise_alone_is_the_stream(backend):
    """X = z, nothing else: a step is `random_normal`, and every step and offset is a fresh draw."""
    x = torch.full((2, 9), torch.nan, device=backend.device)
    coef = table(*[{"X": ops.Row(noise=1.0)}] * 3).to(backend.device)
    draws = {}
    for step in range(3):
        for offset in range(3):
            rng = torch.tensor([-5, offset], device=backend.device)
            z = ops.solver_step(x, [x], coef, torch.tensor(step, device=backend.device), rng=rng)[0]
            key = torch.tensor([-5, offset + step], device=backend.device)
            assert torch.equal(z, torch.ops.fastdiff_ops.random_normal((2, 9), key, F32))
            draws.setdefault(offset + step, z)
            assert torch.equal(draws[offset + step], z)
    assert len({tuple(z.flatten().tolist()) for z in draws.values()}) == 5


@pytest.mark.emulated
def test_offsets_reach_32_bits(backend):
    x = torch.zeros(1, 6, device=backend.device)
    coef = table(*[{"X": ops.Row(noise=1.0)}] * 2).to(backend.device)
    step = torch.tensor(1, device=backend.device)
    last = ops.solver_step(x, [x], coef, step, rng=torch.tensor([3, 2**32 - 2], device=backend.device))[0]
    same_draw = ops.solver_step(
        x, [x], coef, step - 1, rng=torch.tensor([3, 2**32 - 1], device=backend.device)
    )[0]
    assert torch.equal(last, same_draw)


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 7, 5), (2, 3, 4, 4), (1, 3, 17, 31), (2, 5, 3, 2, 3)], ids=str)
def test_channels_last_changes_nothing(backend, shape, dtype):
    case = random_case(1, shape, dtypes=(dtype,) * 4, noise="rng").to(backend.device)
    last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    turned = case.changed(
        x=case.x.contiguous(memory_format=last),
        outs=[o.contiguous(memory_format=last) for o in case.outs],
        anchor=case.options["anchor"].contiguous(memory_format=last),
        history=torch.stack([h.contiguous(memory_format=last) for h in case.options["history"]]),
    )
    results = run(turned)
    assert results[0].is_contiguous(memory_format=last)
    assert same(results, run(case))


@pytest.mark.emulated
def test_a_sample_is_the_same_alone_permuted_and_elsewhere(backend):
    case = random_case(2, (4, 3, 5), noise="rngs").to(backend.device)
    rng = case.options["rng"]
    together = run(case)
    # in any order
    order = torch.tensor([2, 0, 3, 1], device=backend.device)
    parts = {name: case.options[name][order] for name in ("anchor", "rng")}
    parts["history"] = case.options["history"][:, order]
    permuted = run(case.changed(x=case.x[order], outs=[case.outs[0][order]], **parts))
    assert same(permuted, [t[order] if t.numel() else t for t in together])
    # alone
    for b in range(4):
        one = slice(b, b + 1)
        parts = {
            "anchor": case.options["anchor"][one],
            "history": case.options["history"][:, one],
            "rng": rng[one],
        }
        alone = run(case.changed(x=case.x[one], outs=[case.outs[0][one]], **parts))
        assert same(alone, [t[one] if t.numel() else t for t in together])


@pytest.mark.emulated
def test_one_seed_numbers_its_samples(backend):
    """[2] is [B, 3] with sample ids 0 .. B-1; ids are taken as they are, up to 2^32 - 1."""
    case = random_case(3, (3, 6), noise="rng").to(backend.device)
    seed, offset = case.options["rng"].tolist()
    rows = torch.tensor([[seed, offset, b] for b in range(3)], device=backend.device)
    assert same(run(case), run(case.changed(rng=rows)))
    far = rows.clone()
    far[:, 2] += 2**32 - 3
    x_next = run(case.changed(rng=far))[0]
    given = case.changed(rng=None, noise=normals(case.changed(rng=far), (3, 6)))
    assert same([x_next], [run(given)[0]])
    assert not torch.equal(x_next, run(case)[0])


@pytest.mark.emulated
def test_given_noise_comes_first_and_unused_noise_is_not_drawn(backend):
    case = random_case(4, (2, 8), noise="rng").to(backend.device)
    noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(0)).to(backend.device)
    assert same(run(case.changed(noise=noise)), run(case.changed(noise=noise, rng=None)))
    case.coef[..., [11, 24, 37, 50]] = 0
    assert same(run(case), run(case.changed(rng=None)))


def test_moments_of_a_million_normals(backend):
    """Mean, variance, skewness, kurtosis within five standard errors; neighbours uncorrelated."""
    n = 1 << 20
    x = torch.zeros(1, n, device=backend.device)
    coef = table({"X": ops.Row(noise=1.0)}).to(backend.device)
    rng = torch.tensor([1, 0], device=backend.device)
    z = ops.solver_step(x, [x], coef, torch.tensor(0, device=backend.device), rng=rng)[0][0].to(F64)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((z**power).mean()) - moment) < 5 * (variance / n) ** 0.5
    for lag in (1, 2, 3, 4, 8):
        assert abs(float((z[:-lag] * z[lag:]).mean())) < 5 / n**0.5
