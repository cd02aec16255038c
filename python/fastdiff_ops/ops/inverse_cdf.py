"""Draws from probabilities as they are given: one uniform number per row, inverted."""

from __future__ import annotations

import torch
from torch import Tensor

from .._load import load_ops
from ..reference import inverse_cdf as reference
from . import _rows
from ._registration import register_reference
from ._rows import Seeds

load_ops()

_draw = torch.ops.fastdiff_ops.inverse_cdf.default


def inverse_cdf(
    probs: Tensor,
    *,
    seed: Seeds = None,
    offset: int = 0,
    rng: Tensor | None = None,
    row_ids: Tensor | None = None,
) -> Tensor:
    """Draw a token of every row with probability proportional to the row's numbers.

    For probabilities as input, where `gumbel_argmax` takes logits. Exact to the rounding of float64 sums,
    about 1e-15 of the total; a probability of zero is never drawn.

    Parameters
    ----------
    probs : Tensor [..., V]
        float16, bfloat16, float32 or float64, not negative; they need not add up to 1. The last axis dense.
    seed, offset, rng, row_ids
        The random stream, as in `gumbel_argmax`.

    Returns
    -------
    int64 Tensor, the leading shape of `probs`
        -1 where a row is no distribution: it holds a negative number or NaN, or its sum is zero or infinite.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, dtype or device.

    Notes
    -----
    The uniform number has 53 bits at every scale down to 2^-129. Sums have a fixed shape, so that a token
    depends on neither threads nor device. Unlike Gumbel noise, one uniform number does not couple draws from
    similar distributions token by token, and a vocabulary in shards would need its sums first.

    Examples
    --------
    >>> import torch
    >>> inverse_cdf(torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]))
    tensor([ 1, -1])
    """
    _rows.check_logits("probs", probs)
    shape = probs.shape[:-1]
    flat, index = _rows.as_rows(probs, None)
    if index is not None:
        flat = flat.index_select(0, index)
    n_rows = shape.numel()
    state = _rows.rng_of(seed, rng, offset, n_rows, probs)
    tokens: Tensor = _draw(flat, state, _rows.ids("row_ids", row_ids, n_rows, probs))
    return tokens.view(shape)


@torch.library.register_fake("fastdiff_ops::inverse_cdf")
def _(probs: Tensor, rng: Tensor, row_ids: Tensor | None) -> Tensor:
    return probs.new_empty(probs.shape[0], dtype=torch.int64)


register_reference("inverse_cdf", reference.inverse_cdf)
