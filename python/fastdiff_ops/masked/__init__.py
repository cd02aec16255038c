"""Masked (absorbing) diffusion: exact samplers for any model that predicts masked tokens.

>>> import torch
>>> from fastdiff_ops.masked import first_hitting_sample
>>> def model(tokens):  # a network: tokens [B, L] -> logits [B, L, V]
...     return torch.zeros(*tokens.shape, 26)
>>> text = first_hitting_sample(model, torch.full((2, 8), 26), mask_id=26, seed=0)
>>> text.shape, int(text.max()) < 26
(torch.Size([2, 8]), True)
"""

from .adapters import MaskedModel, as_model
from .schedule import MaskSchedule

__all__ = ["MaskSchedule", "MaskedModel", "as_model"]
