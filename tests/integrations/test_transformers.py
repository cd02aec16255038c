"""Sampling in transformers' `generate`, and its masked language models as networks to decode with."""

from __future__ import annotations

import pytest
import torch
from fastdiff_ops.masked import as_model, decode, first_hitting_sample, log_likelihood
from fastdiff_ops.ops import PhiloxState, categorical_sample, sampling_threshold

transformers = pytest.importorskip("transformers")
from fastdiff_ops.integrations.transformers import GumbelSampler  # noqa: E402

V = 40


@pytest.fixture(scope="module")
def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=V, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=None
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    torch.nn.init.normal_(model.transformer.wte.weight, std=0.4)  # logits that differ
    return model


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=V,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    model = transformers.AutoModelForMaskedLM.from_config(config).eval()
    torch.nn.init.normal_(model.bert.embeddings.word_embeddings.weight, std=1.0)
    return model


def prompts(n: int = 3) -> torch.Tensor:
    return torch.randint(V, (n, 5), generator=torch.Generator().manual_seed(1))


def generate(model, tokens, sampler, **options):
    settings = {"do_sample": True, "max_new_tokens": 7, "pad_token_id": 0, **options}
    return model.generate(tokens, logits_processor=[sampler], **settings)


@torch.no_grad()
def by_hand(model, tokens, seeds, **settings):
    """The loop that `generate` runs, with the plain function."""
    for draw in range(7):
        logits = model(tokens).logits[:, -1].float()
        drawn = categorical_sample(logits, seed=seeds, offset=draw, **settings)
        tokens = torch.cat([tokens, drawn[:, None]], 1)
    return tokens


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.6},
        {"temperature": 0.0},
        {"top_k": 5},
        {"top_p": 0.7, "temperature": 1.3},
        {"min_p": 0.1},
        {"temperature": torch.tensor([0.3, 1.0, 2.0]), "top_p": torch.tensor([1.0, 0.5, 0.9])},
    ],
)
def test_generate_draws_from_our_stream(gpt2, settings) -> None:
    expected = by_hand(gpt2, prompts(), [4, 5, 6], **settings)
    assert torch.equal(generate(gpt2, prompts(), GumbelSampler([4, 5, 6], **settings)), expected)
    # nothing that generate does afterwards can change it
    for options in ({"do_sample": False}, {"temperature": 0.1, "top_k": 1}, {"top_p": 0.1}):
        assert torch.equal(
            generate(gpt2, prompts(), GumbelSampler([4, 5, 6], **settings), **options), expected
        )


def test_one_seed_for_the_batch(gpt2) -> None:
    expected = by_hand(gpt2, prompts(), 9)
    assert torch.equal(generate(gpt2, prompts(), GumbelSampler(9)), expected)
    state = PhiloxState(9)
    assert torch.equal(generate(gpt2, prompts(), GumbelSampler(state)), expected)
    assert state.offset == 7
    sampler = GumbelSampler(9)
    first, second = (generate(gpt2, prompts(), sampler) for _ in range(2))
    assert torch.equal(first, expected) and not torch.equal(first, second)
    torch.manual_seed(3)
    drawn = generate(gpt2, prompts(), GumbelSampler())
    torch.manual_seed(3)
    assert torch.equal(generate(gpt2, prompts(), GumbelSampler()), drawn)


def test_a_request_does_not_depend_on_its_batch(gpt2) -> None:
    batch = generate(gpt2, prompts(), GumbelSampler(torch.tensor([4, 5, 6])))
    for row in range(3):
        alone = generate(gpt2, prompts()[row : row + 1], GumbelSampler([4 + row]))
        assert torch.equal(alone, batch[row : row + 1])
    several = generate(gpt2, prompts()[:1], GumbelSampler([4, 7]), num_return_sequences=2)
    assert torch.equal(several[:1], batch[:1]) and not torch.equal(several[0], several[1])


def test_processors_of_generate_come_first(gpt2) -> None:
    banned = list(range(1, V, 2))
    tokens = generate(gpt2, prompts(), GumbelSampler([4, 5, 6], temperature=3.0), suppress_tokens=banned)
    assert (tokens[:, 5:] % 2 == 0).all()


def test_logprobs_and_raw_logits(gpt2) -> None:
    settings = {"temperature": 0.7, "top_k": 6}
    sampler = GumbelSampler([4, 5, 6], return_logprob=True, **settings)
    assert sampler.logprobs.shape == (0, 0)
    out = generate(gpt2, prompts(), sampler, output_logits=True, return_dict_in_generate=True)
    assert sampler.logprobs.shape == (3, 7) and sampler.logprobs.dtype == torch.float64
    for step, logits in enumerate(out.logits):  # they are left as they were
        assert torch.isfinite(logits).all()
        kept = logits.double().masked_fill(
            logits < sampling_threshold(logits, 0.7, top_k=6)[:, None], -torch.inf
        )
        logprob = (kept / 0.7).log_softmax(-1).gather(1, out.sequences[:, 5 + step, None])[:, 0]
        torch.testing.assert_close(sampler.logprobs[:, step], logprob, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="return_logprob"):
        _ = GumbelSampler(1).logprobs


def test_the_law_of_the_draw() -> None:
    """N = 2e4 rows, 7 dof; the processor alone."""
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, 0.0, -0.5, -1.0, -torch.inf])
    scores = logits.expand(20_000, 8)
    only = GumbelSampler(5, temperature=0.8)(None, scores)
    assert (only.isfinite().sum(1) == 1).all() and only.dtype == scores.dtype
    counts = torch.bincount(only.argmax(1), minlength=8).double()
    expected = 20_000 * (logits.double() / 0.8).softmax(0)
    assert counts[7] == 0
    chi_square = float(((counts - expected) ** 2 / expected)[:7].sum())
    assert abs(chi_square - 6) < 4 * 12**0.5


def test_errors(gpt2) -> None:
    with pytest.raises(ValueError, match="`seed`"):
        generate(gpt2, prompts(), GumbelSampler([1, 2]))
    with pytest.raises(ValueError, match="`top_p`"):
        generate(gpt2, prompts(), GumbelSampler(1, top_p=1.5))
    with pytest.raises(TypeError, match="`seed`"):
        GumbelSampler(1.5)
    scores = torch.zeros(2, 4)
    scores[1] = -torch.inf
    with pytest.raises(RuntimeError, match="row 1"):
        GumbelSampler(1)(None, scores)


# ---- masked language models


MASK = 3


def holes() -> torch.Tensor:
    tokens = torch.randint(4, V, (2, 12), generator=torch.Generator().manual_seed(2))
    tokens[:, 4:10] = MASK
    return tokens


@pytest.mark.parametrize("strategy", ["confidence", "threshold", "random"])
def test_a_masked_language_model_is_decoded(bert, strategy) -> None:
    tokens = holes()
    model = as_model(bert, kind="hf")
    text, stats = decode(model, tokens, mask_id=MASK, strategy=strategy, return_stats=True)
    assert (text != MASK).all() and torch.equal(text[:, :4], tokens[:, :4])
    with torch.no_grad():
        logits = bert(input_ids=tokens).logits.double()
    logits[..., MASK] = -torch.inf
    first = stats.trace == 0
    assert first.any() and torch.equal(text[first], logits.argmax(-1)[first])
    if strategy == "confidence":
        confidence = logits.softmax(-1).amax(-1).masked_fill(tokens != MASK, 0.0)
        assert torch.equal(stats.trace.masked_fill(stats.trace < 0, 99).argmin(1), confidence.argmax(1))


def test_backbone_and_head_of_a_masked_language_model(bert) -> None:
    parts = as_model(backbone=bert.bert, head=bert.cls, kind="hf")
    whole = as_model(bert, kind="hf")
    options = {"mask_id": MASK, "seed": 4, "temperature": 0.9}
    assert torch.equal(*(first_hitting_sample(model, holes(), **options) for model in (parts, whole)))
    bounds = [log_likelihood(m, holes() % 3, mask_id=MASK, num_samples=3, seed=1) for m in (parts, whole)]
    torch.testing.assert_close(*bounds, rtol=1e-5, atol=1e-5)


def test_padding_reaches_the_model(bert) -> None:
    tokens = holes()[:1]
    padded = torch.cat([tokens, torch.zeros(1, 3, dtype=torch.int64)], 1)
    attention = (torch.arange(15) < 12).long()[None]
    model = as_model(bert, kind="hf")
    text = decode(model, padded, mask_id=MASK, attention_mask=attention)
    assert torch.equal(text[:, :12], decode(model, tokens, mask_id=MASK))
