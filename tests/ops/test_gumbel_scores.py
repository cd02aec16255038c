"""What is measured beside a draw, against float64, and how each option changes the logits that are drawn."""

from __future__ import annotations

import pytest
import torch
from fastdiff_ops import ops
from fastdiff_ops.ops import make_rng
from fastdiff_ops.reference.categorical import draw_statistics, perturbed_logits, processed_logits
from fastdiff_ops.reference.exact import fma
from ops.categorical_cases import (
    BF16,
    DTYPES,
    F16,
    F32,
    F64,
    FAMILIES,
    STREAMS,
    assert_same,
    family,
)
from torch import Tensor

SCORES = ("logprob", "entropy", "margin", "logsumexp", "residual")


def check_scores(drawn: ops.SampledTokens, logits: Tensor, scale: Tensor) -> None:
    want = draw_statistics(logits, drawn.tokens.cpu(), scale)
    for i, name in enumerate(SCORES):
        got = getattr(drawn, name)
        assert got.dtype == F64
        # the entropy of a near certainty and the margin of a near tie are differences
        atol = 1e-6 if name in ("entropy", "margin") else 1e-9
        torch.testing.assert_close(
            got.cpu(), want[:, i], rtol=2e-6, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


def plain_statistics(logits: Tensor, tokens: Tensor, scale: float) -> list[Tensor]:
    """The same from torch's softmax: for rows of ordinary numbers."""
    logp = torch.log_softmax(logits.double() / scale, 1)
    p = logp.exp()
    top = p.topk(2, 1).values
    own = logp.gather(1, tokens[:, None])[:, 0]
    entropy = torch.special.entr(p).sum(1)
    lse = torch.logsumexp(logits.double() / scale, 1)
    return [own, entropy, top[:, 0] - top[:, 1], lse, torch.expm1(-own)]


@pytest.mark.emulated
@pytest.mark.parametrize("scale", [1.0, 0.3, 4.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", [2, 40, 4099])
def test_scores_of_ordinary_rows(backend, vocab, dtype, scale) -> None:
    logits = (2 * torch.randn(6, vocab, generator=torch.Generator().manual_seed(vocab))).to(dtype)
    drawn = ops.sample_with_scores(logits.to(backend.device), 0.8, score_temperature=scale, seed=2)
    want = plain_statistics(logits, drawn.tokens.cpu(), float(torch.tensor(scale)))
    for name, b in zip(SCORES, want, strict=True):
        torch.testing.assert_close(getattr(drawn, name).cpu(), b, rtol=2e-6, atol=1e-9)
    plain = ops.gumbel_argmax(logits.to(backend.device), 0.8, seed=2, return_score=True)
    assert_same(plain, drawn[:2])


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", [1, 3, 257, 5000])
def test_scores_of_hard_rows(backend, vocab, dtype) -> None:
    """Every family, against the definition: infinities share the mass, rows of -inf have no entropy."""
    logits = torch.stack([family(name, vocab, dtype, 1.0, torch.zeros(vocab)) for name in FAMILIES])
    value = logits.to(F64 if dtype == F64 else F32).masked_fill(logits.isnan(), -torch.inf)
    scale = torch.full((len(logits),), 0.75)
    for temperature in (0.0, 1.0, 50.0):
        drawn = ops.sample_with_scores(logits.to(backend.device), temperature, score_temperature=0.75, seed=3)
        check_scores(drawn, value, scale)


@pytest.mark.emulated
def test_residual_tells_near_certainties_apart(backend) -> None:
    """p = 1 - 1e-12 ... 1 - 1e-30 are all 1 in float32, and their odds are known to 1e-6."""
    gap = torch.tensor([27.6, 40.0, 55.0, 69.0])
    logits = torch.zeros(4, 9).index_fill(1, torch.tensor([2]), 0.0)
    logits[:, 2] = gap
    drawn = ops.sample_with_scores(logits.to(backend.device), 0.0)
    torch.testing.assert_close(drawn.residual.cpu(), 8 * torch.exp(-gap.double()), rtol=2e-6, atol=0.0)
    assert (drawn.logprob.cpu() <= 0).all()


@pytest.mark.emulated
def test_scores_are_of_all_that_is_not_filtered(backend) -> None:
    """A threshold bounds the draw and not what is measured; forbidden tokens are not part of either."""
    device = backend.device
    logits = torch.randn(5, 300, generator=torch.Generator().manual_seed(0)).to(device)
    options = {"seed": 1, "forbidden": [7], "bias": torch.randn(300).to(device), "score_temperature": 0.6}
    free = ops.sample_with_scores(logits, 0.0, **options)
    bound = ops.sample_with_scores(logits, 1.0, threshold=1.0, **options)
    for name in ("entropy", "margin", "logsumexp"):
        assert torch.equal(getattr(free, name), getattr(bound, name))
    value = (logits + options["bias"]).index_fill(1, torch.tensor([7], device=device), -torch.inf).cpu()
    check_scores(bound, value, torch.full((5,), 0.6))
    nothing = ops.sample_with_scores(logits, 1.0, threshold=99.0, **options)
    assert (nothing.tokens == -1).all() and (nothing.logprob == -torch.inf).all()
    assert (nothing.residual == torch.inf).all()
    assert torch.equal(nothing.entropy, free.entropy)


# ---- options


@pytest.mark.emulated
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_options_change_the_logits(backend, dtype, stream) -> None:
    """Each option alone equals drawing from logits that were changed beforehand."""
    device, vocab = backend.device, 700
    generator = torch.Generator().manual_seed(1)
    logits, uncond = ((3 * torch.randn(4, vocab, generator=generator)).to(dtype) for _ in range(2))
    kind = F64 if dtype == F64 else F32
    wide = logits.to(kind)
    mask = torch.rand(4, vocab, generator=generator) < 0.7
    bias = torch.randn(4, vocab, generator=generator)
    numbers = torch.tensor([3, 699, 5])
    floor = torch.tensor([0.5, -1.0, 2.0, 1e9], dtype=kind)
    w = torch.tensor([0.0, 1.0, 2.5, -1.0])
    guided = torch.addcmul(uncond.double(), w.double()[:, None] + 1, logits.double() - uncond.double())
    names = torch.arange(4)
    cases = [
        ({"suppressed": mask}, wide.masked_fill(mask, -torch.inf)),
        ({"suppressed": mask[0]}, wide.masked_fill(mask[0], -torch.inf)),
        ({"bias": bias}, wide + bias.to(kind)),
        ({"bias": bias[:1]}, wide + bias[:1].to(kind)),
        ({"bias": bias[0]}, wide + bias[0].to(kind)),
        ({"forbidden": numbers}, wide.index_fill(1, numbers, -torch.inf)),
        ({"forbidden": [3, 699, 5]}, wide.index_fill(1, numbers, -torch.inf)),
        ({"forbidden": 3}, wide.index_fill(1, numbers[:1], -torch.inf)),
        ({"threshold": floor}, wide.masked_fill(wide < floor[:, None], -torch.inf)),
        ({"threshold": 0.5}, wide.masked_fill(wide < 0.5, -torch.inf)),
    ]
    for options, changed in cases:
        options = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in options.items()}
        got = ops.gumbel_argmax(logits.to(device), seed=1, stream=stream, return_score=True, **options)
        assert_same(got, ops.gumbel_argmax(changed.to(device), seed=1, stream=stream, return_score=True))
    got = ops.gumbel_argmax(
        logits.to(device), seed=1, stream=stream, return_score=True, uncond_logits=uncond.to(device),
        cfg_scale=w.to(device),
    )  # fmt: skip
    z = (guided.to(kind).double() + ops.gumbel_noise(names, vocab, seed=1, stream=stream)).max(1).values
    torch.testing.assert_close(got[1].cpu(), z, rtol=1e-6, atol=1e-6)
    plain = ops.gumbel_argmax(logits.to(device), seed=1, stream=stream, return_score=True)
    assert_same((got[0][:1], got[1][:1]), (plain[0][:1], plain[1][:1]))


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_guidance_reads_no_unconditional_logits(backend, dtype) -> None:
    """w = 0 is c bit for bit: NaN in the other logits is not looked at, and -0.0 stays what it is."""
    logits = torch.randn(3, 50).to(dtype).to(backend.device)
    nan = torch.full_like(logits, torch.nan)
    drawn = ops.gumbel_argmax(logits, seed=1, uncond_logits=nan, cfg_scale=0.0, return_score=True)
    assert_same(drawn, ops.gumbel_argmax(logits, seed=1, return_score=True))
    assert (ops.gumbel_argmax(logits, seed=1, uncond_logits=nan, cfg_scale=0.1) == -1).all()


@pytest.mark.emulated
def test_which_values_win(backend) -> None:
    device, inf, nan = backend.device, torch.inf, torch.nan
    logits = torch.tensor(
        [
            [nan, 1.0, nan, 0.0],
            [nan, nan, nan, nan],
            [-inf, -inf, -inf, -inf],
            [0.0, inf, inf, nan],
            [-inf, -5.0, -inf, -inf],
            [2.0, 2.0, 2.0, 2.0],
        ],
        device=device,
    )
    for dtype in DTYPES:
        for method in ("lazy", "full"):
            tokens, z = ops.gumbel_argmax(logits.to(dtype), 0, method=method, return_score=True)
            assert tokens.tolist() == [1, -1, -1, 1, 1, 0]
            assert z.tolist() == [1.0, -inf, -inf, inf, -5.0, 2.0]
            for seed in range(20):
                drawn = ops.gumbel_argmax(logits.to(dtype), seed=seed, method=method).tolist()
                assert drawn[0] in (1, 3)
                assert drawn[1:5] == [-1, -1, 1, 1]
    tokens, z = ops.gumbel_topk(logits, 3, 0)
    assert tokens.tolist() == [[1, 3, -1], [-1] * 3, [-1] * 3, [1, 2, 0], [1, -1, -1], [0, 1, 2]]
    assert (z[tokens == -1] == -inf).all()


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", [BF16, F16])
def test_half_precision_logits_are_drawn_as_their_numbers(backend, dtype) -> None:
    logits = torch.randn(20, 400).to(dtype).to(backend.device)
    half = ops.gumbel_argmax(logits, seed=1, return_score=True)
    assert_same(half, ops.gumbel_argmax(logits.float(), seed=1, return_score=True))
    assert_same(half, ops.gumbel_argmax(logits.double(), seed=1, return_score=True))


def test_seeds() -> None:
    logits = torch.zeros(3, 50)
    state = ops.PhiloxState(5, 2)
    by_state = ops.gumbel_argmax(logits, seed=state, offset=1)
    assert torch.equal(by_state, ops.gumbel_argmax(logits, seed=5, offset=3))
    assert state.offset == 2, "only read"
    assert torch.equal(by_state, ops.gumbel_argmax(logits, rng=make_rng(5, 3)))
    torch.manual_seed(0)
    one, two = ops.gumbel_argmax(logits), ops.gumbel_argmax(logits)
    assert not torch.equal(one, two)
    torch.manual_seed(0)
    assert torch.equal(one, ops.gumbel_argmax(logits))


def test_a_draw_has_no_gradient() -> None:
    logits = torch.randn(2, 9, requires_grad=True)
    drawn = ops.sample_with_scores(logits, seed=0)
    assert not any(x.requires_grad for x in drawn)
    assert not ops.gumbel_topk(logits, 2, seed=0)[1].requires_grad
    warm = torch.ones(2, requires_grad=True)
    assert not any(x.requires_grad for x in ops.sample_with_scores(logits, warm, score_temperature=warm))


@pytest.mark.emulated
@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5), (0, 0, 1)])
def test_empty(backend, shape) -> None:
    logits = torch.zeros(shape, device=backend.device)
    assert ops.gumbel_argmax(logits, seed=1).shape == shape[:-1]
    assert ops.gumbel_topk(logits, 1, seed=1)[0].shape == (*shape[:-1], 1)
    assert ops.sample_with_scores(logits, seed=1).entropy.shape == shape[:-1]
    none = torch.empty(0, dtype=torch.int64, device=backend.device)
    assert ops.gumbel_argmax(torch.zeros(4, 5, device=backend.device), seed=1, rows=none).shape == (0,)


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES)
def test_guidance_is_rounded_once(backend, dtype) -> None:
    """l = fma(w + 1, c - u, u) to the last bit, in float32 (float64 for float64): z is l where T = 0."""
    generator = torch.Generator().manual_seed(2)
    logits, uncond = ((3 * torch.randn(400, 3, generator=generator, dtype=F64)).to(dtype) for _ in range(2))
    w = 4 * torch.randn(400, generator=generator)
    kind = F64 if dtype == F64 else F32
    c, u = logits.to(kind), uncond.to(kind)
    factor = (w.to(kind) + 1)[:, None]
    want = fma(factor, c - u, u)
    if dtype in (F32, F64):
        assert (want != factor * (c - u) + u).double().mean() > 0.1, "these rows can tell"
    assert_same((processed_logits(logits, None, uncond, w, None, None, None),), (want,))
    x, other, scale = (t.to(backend.device) for t in (logits, uncond, w))
    for method in ("lazy", "full"):
        options = {"uncond_logits": other, "cfg_scale": scale, "method": method, "return_score": True}
        _, z = ops.gumbel_argmax(x, 0, **options)
        assert_same((z,), (want.double().max(1).values,))


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", [3, 300, 4100])
def test_what_equals_the_threshold_is_drawn(backend, dtype, vocab) -> None:
    """Logits 0, 1, 2, 0, ... with thresholds 0, 1, 2 and just above them."""
    logits = (torch.arange(vocab) % 3).to(dtype).expand(30, vocab).to(backend.device)
    kind = F64 if dtype == F64 else F32
    level = torch.tensor([0.0, 1.0, 2.0], dtype=kind).repeat(10)
    above = torch.nextafter(level, torch.full_like(level, torch.inf))
    for floor, lowest in ((level, level), (above, level + 1)):
        kept = perturbed_logits(logits.cpu().to(kind), floor, torch.zeros(30), torch.zeros(())) > -torch.inf
        assert torch.equal(kept, logits.cpu().to(kind) >= lowest[:, None])
        for method in ("lazy", "full"):
            tokens = ops.gumbel_argmax(
                logits, 30.0, seed=3, threshold=floor.to(backend.device), method=method
            ).cpu()
            drawn = torch.where(tokens < 0, 9, tokens % 3)
            least = drawn.view(10, 3).min(0).values
            assert torch.equal(least, torch.where(lowest[:3] > 2, 9.0, lowest[:3]).long())
