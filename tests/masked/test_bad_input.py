"""What samplers and adapters refuse, by name, and what they do with rows that cannot be drawn."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from fastdiff_ops.masked import ancestral_sample, as_model, first_hitting_sample
from fastdiff_ops.masked.testing import TabularMaskedModel
from masked.networks import MASK, VOCAB, Mixer
from torch import Tensor

TOKENS = torch.full((2, 5), MASK)
SIGMA = as_model(lambda x, sigma: torch.zeros(*x.shape, VOCAB), kind="sedd")


def run(model=None, tokens=TOKENS, **options) -> Tensor:
    return first_hitting_sample(model or Mixer(), tokens, **{"mask_id": MASK, "seed": 0, **options})


def ancestral(model=None, tokens=TOKENS, **options) -> Tensor:
    return ancestral_sample(
        model or Mixer(), tokens, **{"mask_id": MASK, "seed": 0, "num_steps": 3, **options}
    )


@pytest.mark.parametrize("sampler", [run, ancestral])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tokens": TOKENS.int()}, TypeError, "`tokens` must be an int64 Tensor, got torch.int32"),
        ({"tokens": TOKENS.tolist()}, TypeError, "`tokens` must be an int64 Tensor, got list"),
        ({"tokens": TOKENS[0]}, ValueError, r"`tokens` must have shape \[B, L\]"),
        ({"tokens": TOKENS[:0]}, ValueError, r"`tokens` must have shape \[B, L\]"),
        ({"mask_id": None}, ValueError, "`mask_id` must be an int, got None"),
        ({"mask_id": -1}, ValueError, "`mask_id` must be at least 0"),
        ({"temperature": -1.0}, ValueError, "`temperature` must be finite and at least 0"),
        ({"temperature": math.nan}, ValueError, "`temperature`"),
        ({"temperature": [1.0, math.inf]}, ValueError, "`temperature`"),
        ({"temperature": 1e-50}, ValueError, "`temperature` must be 0 or at least 2.-126"),
        ({"temperature": [1.0, 1e-40]}, ValueError, "`temperature` must be 0 or at least 2.-126"),
        ({"temperature": [1.0] * 3}, ValueError, "one for each of 2 sequences"),
        ({"temperature": "hot"}, TypeError, "`temperature` must be a number"),
        ({"top_k": 0}, ValueError, "`top_k` must be at least 1"),
        ({"top_k": 2.5}, TypeError, "`top_k` must be an int"),
        ({"top_p": 0.0}, ValueError, r"`top_p` must be in \(0, 1\]"),
        ({"top_p": 1.1}, ValueError, r"`top_p` must be in \(0, 1\]"),
        ({"min_p": 1.0}, ValueError, r"`min_p` must be in \[0, 1\)"),
        ({"min_p": -0.1}, ValueError, r"`min_p` must be in \[0, 1\)"),
        ({"cfg_scale": math.inf}, ValueError, "`cfg_scale` must be finite"),
        ({"unconditional": TOKENS}, ValueError, "`unconditional` needs `cfg_scale`"),
        ({"unconditional": TOKENS[:1], "cfg_scale": 1.0}, ValueError, "`unconditional` must have the shape"),
        ({"unconditional": TOKENS.float(), "cfg_scale": 1.0}, TypeError, "`unconditional` must be bool or"),
        ({"bias": torch.zeros(VOCAB + 1)}, ValueError, f"`bias` must have {VOCAB} columns"),
        ({"bias": torch.zeros(3, VOCAB)}, ValueError, r"`bias` must have shape \[V\] or \[2, V\]"),
        ({"bias": torch.zeros(VOCAB, dtype=torch.int64)}, TypeError, "`bias` must be a floating-point"),
        ({"suppressed": torch.zeros(VOCAB)}, TypeError, "`suppressed` must be a bool"),
        ({"forbidden": [VOCAB]}, ValueError, rf"`forbidden` must be in \[0, {VOCAB}\)"),
        ({"forbidden": [-1]}, ValueError, "`forbidden` must be in"),
        ({"forbidden": [1.5]}, TypeError, "`forbidden` must hold ints"),
        ({"forbidden": 1.5}, TypeError, "`forbidden` must hold ints"),
        ({"schedule": "cosine"}, TypeError, "`schedule` must be a MaskSchedule, as"),
        ({"sequence_ids": [1, 1]}, ValueError, "`sequence_ids` must differ"),
        ({"sequence_ids": [1]}, ValueError, "`sequence_ids` must have an entry for each sequence: 2"),
        ({"sequence_ids": [1, -1]}, ValueError, r"`sequence_ids` must be in \[0, 2\^32\), got -1"),
        ({"sequence_ids": [1, 2.5]}, TypeError, "`sequence_ids` must hold ints"),
        ({"sequence_ids": 1}, TypeError, "`sequence_ids` must be a Tensor or a sequence"),
        ({"seed": [1, 2, 3]}, ValueError, "one for each sequence, got 3"),
        ({"seed": 1.5}, TypeError, "`seed` must be"),
        ({"attention_mask": torch.zeros_like(TOKENS)}, ValueError, "`attention_mask` must not be 0"),
        ({"attention_mask": torch.ones(2, 4)}, ValueError, "`attention_mask` must have the shape"),
        ({"frozen": torch.zeros(2, 5)}, TypeError, "`frozen` must be torch.bool"),
        ({"pad_id": 0}, ValueError, "`pad_id` needs `eos_id`"),
        ({"eos_id": MASK}, ValueError, "`eos_id` must be an int of at least 0 other than `mask_id`"),
        ({"eos_id": -1}, ValueError, "`eos_id` must be an int of at least 0"),
        ({"callback": 3}, TypeError, "`callback` must be callable"),
        ({"top": 3}, TypeError, "unknown keyword arguments: top"),
        ({"ragged": "right"}, ValueError, "`ragged` must be 'left' or 'pad'"),
        ({"order": 3}, ValueError, "`order` must be 1 or 2"),
        ({"order": 2, "theta": 1.0}, ValueError, r"`theta` must be in \(0, 1\)"),
        ({"order": 2, "temperature": 0.0}, ValueError, "`temperature` must not be 0 with `order` 2"),
        ({"num_steps": 0}, ValueError, "`num_steps` must be at least 1"),
        ({"model": 3}, TypeError, "`model` must be callable"),
        (
            {"model": lambda x: torch.zeros(2, 4, VOCAB)},
            ValueError,
            r"must return shape \[2, 5, V\], got \(2, 4",
        ),
        (
            {"model": lambda x: torch.zeros(10, VOCAB)},
            ValueError,
            r"must return shape \[2, 5, V\], got \(10, ",
        ),
        (
            {"model": lambda x: torch.zeros(2, VOCAB, 5).mT},
            ValueError,
            "must return logits dense along their last axis, got stride 5",
        ),
        (
            {"model": lambda x: x[..., None]},
            TypeError,
            "must return a floating-point tensor, got torch.int64",
        ),
        ({"model": lambda x: SimpleNamespace(out=x)}, TypeError, "must return a Tensor or an object with"),
    ],
)
def test_refused(sampler, options, error, message) -> None:
    with pytest.raises(error, match=message):
        sampler(**options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tokens_per_step": 2, "num_steps": 2}, ValueError, "not both"),
        ({"tokens_per_step": 0}, ValueError, "`tokens_per_step` must be at least 1"),
        ({"plan": "linear"}, ValueError, "`plan` must be"),
        ({"plan": [1, 2]}, ValueError, "`plan` must reveal all 5 tokens"),
        ({"block_length": 0}, ValueError, "`block_length` must be at least 1"),
        (
            {"block_length": 1, "num_steps": 4},
            ValueError,
            "`num_steps` must be at least the number of blocks, 5",
        ),
        ({"variant": "heun"}, ValueError, "`variant` must be"),
        ({"corrector_steps": -1}, ValueError, "`corrector_steps` must be at least 0"),
        ({"corrector_frac": 0.0}, ValueError, r"`corrector_frac` must be in \(0, 1\]"),
        ({"model": SIGMA}, ValueError, "`schedule` is needed: the model takes 'sigma'"),
    ],
)
def test_refused_by_first_hitting(options, error, message) -> None:
    with pytest.raises(error, match=message):
        run(**options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"t_end": 1.0}, ValueError, r"`t_end` must be in \[0, 1\)"),
        ({"t_end": None}, TypeError, "`t_end` must be a number"),
        ({"final": "mode"}, ValueError, "`final` must be 'sample', 'argmax' or 'keep'"),
        ({"model": SIGMA}, ValueError, "`schedule` must stay below mask probability 1"),
    ],
)
def test_refused_by_ancestral(options, error, message) -> None:
    with pytest.raises(error, match=message):
        ancestral(**options)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "give either `model` or `backbone` and `head`"),
        ({"model": Mixer(), "kind": "mdlm"}, ValueError, "`kind` must be one of logits, sedd, hf, dream"),
        ({"model": Mixer(), "time": "s"}, ValueError, "`time` must be one of none, t, sigma, mask_prob"),
        ({"model": Mixer(), "kind": "hf", "time": "t"}, ValueError, "`time` must be 'none' for kind 'hf'"),
        ({"backbone": Mixer()}, ValueError, "`backbone` and `head` go together"),
        ({"model": Mixer(), "backbone": Mixer(), "head": Mixer()}, ValueError, "give either"),
        ({"backbone": Mixer(), "head": 3}, TypeError, "`head` must be callable, got int"),
        ({"backbone": Mixer(), "head": Mixer(), "takes_positions": True}, ValueError, "`takes_positions` is"),
        ({"model": as_model(Mixer()), "kind": "sedd"}, ValueError, "is an adapted model already"),
    ],
)
def test_refused_by_as_model(arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        as_model(**arguments)


def test_adapting_twice_is_adapting_once() -> None:
    model = as_model(Mixer())
    assert as_model(model) is model


def test_a_row_without_a_token_is_an_error_on_a_cpu() -> None:
    logits = torch.zeros(1, 5, VOCAB)
    logits[0, 3] = -math.inf
    with pytest.raises(RuntimeError, match=r"no token can be drawn at positions \[3\] of sequence 0"):
        run(lambda x: logits.expand(len(x), -1, -1))
    with pytest.raises(RuntimeError, match="no token can be drawn"):
        run(forbidden=list(range(VOCAB)))
    # but one that is NaN only where nothing is drawn, or in part, is none
    logits[0, 3] = 0.0
    logits[0, 2] = math.nan
    logits[0, 4, :7] = math.nan
    tokens = TOKENS.clone()
    tokens[:, 2] = 1
    assert (run(lambda x: logits.expand(len(x), -1, -1), tokens)[:, 4] >= 7).all()


@pytest.mark.parametrize(
    ("joint", "error", "message"),
    [
        (torch.ones(2, 3), ValueError, r"`joint` must have shape \[V\] \* L"),
        (torch.tensor([[0.5, -0.5], [1.0, 0.0]]), ValueError, "`joint` must hold probabilities"),
        (torch.zeros(2, 2), ValueError, "`joint` must hold probabilities"),
        (torch.ones(2, 2, dtype=torch.int64), TypeError, "`joint` must be a floating-point Tensor"),
        (torch.ones([2] * 13), ValueError, "fewer contexts"),
    ],
)
def test_refused_joints(joint, error, message) -> None:
    with pytest.raises(error, match=message):
        TabularMaskedModel(joint)
