"""The noise of the categorical draws as a tensor."""

from __future__ import annotations

from torch import Tensor

from ..reference import gumbel
from . import _rows
from ._rows import Seeds


def gumbel_noise(
    row_ids: Tensor,
    vocab_size: int,
    *,
    seed: Seeds = None,
    offset: int = 0,
    rng: Tensor | None = None,
    stream: str = "auto",
) -> Tensor:
    """Return the noise that the draws use, every number of it: for tests, and for coupling other samplers.

    Parameters
    ----------
    row_ids : int64 Tensor [R]
        Names of the rows in the random stream.
    vocab_size : int
        V, 1 <= V <= 2^28.
    seed, offset, rng, stream
        See `gumbel_argmax`.

    Returns
    -------
    float64 Tensor [R, V]
        Standard Gumbel numbers, between -4.5 and 88.7.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.

    Notes
    -----
    It is the slow reference, at about a microsecond for each number.

    Examples
    --------
    >>> import torch
    >>> from fastdiff_ops.ops import gumbel_argmax
    >>> logits = torch.randn(4, 50)
    >>> noise = gumbel_noise(torch.arange(4), 50, seed=3)
    >>> bool(((logits + noise).argmax(-1) == gumbel_argmax(logits, seed=3)).all())
    True
    """
    if row_ids is None:
        raise TypeError("`row_ids` must be a Tensor, got NoneType")
    names = _rows.ids("row_ids", row_ids, None, row_ids)
    assert names is not None
    if isinstance(vocab_size, bool) or not isinstance(vocab_size, int):
        raise TypeError(f"`vocab_size` must be an int, got {type(vocab_size).__name__}")
    if not 1 <= vocab_size <= _rows.MAX_VOCAB:
        raise ValueError(f"`vocab_size` must be in [1, 2^28], got {vocab_size}")
    n_rows = names.shape[0]
    state = _rows.rng_of(seed, rng, offset, n_rows, names)
    number = _rows.stream_number(stream, vocab_size)
    return gumbel.gumbel_noise(state, names, n_rows, number, 0, vocab_size)
