"""Masked (absorbing) diffusion: exact samplers for any model that predicts masked tokens.

>>> import torch
>>> from fastdiff_ops.masked import first_hitting_sample
>>> def model(tokens):  # a network: tokens [B, L] -> logits [B, L, V]
...     return torch.zeros(*tokens.shape, 26)
>>> text = first_hitting_sample(model, torch.full((2, 8), 26), mask_id=26, seed=0)
>>> text.shape, int(text.max()) < 26
(torch.Size([2, 8]), True)
"""

from ._loop import CommonOptions, SampleStats
from .adapters import MaskedModel, as_model
from .ancestral import ancestral_sample
from .decode import decode
from .first_hitting import first_hitting_sample
from .likelihood import log_likelihood
from .llada import add_gumbel_noise_argmax
from .plan import group_sizes
from .remdm import remdm_sample
from .schedule import MaskSchedule
from .vocab_parallel import VocabParallelTokens, vocab_parallel_sample

__all__ = [
    "CommonOptions",
    "MaskSchedule",
    "MaskedModel",
    "SampleStats",
    "VocabParallelTokens",
    "add_gumbel_noise_argmax",
    "ancestral_sample",
    "as_model",
    "decode",
    "first_hitting_sample",
    "group_sizes",
    "log_likelihood",
    "remdm_sample",
    "vocab_parallel_sample",
]
