"""What replaces the two lines that code around LLaDA has copied from its `generate.py`."""

from __future__ import annotations

from torch import Tensor

from fastdiff_ops.ops import gumbel_argmax
from fastdiff_ops.ops.random import Seed


def add_gumbel_noise_argmax(
    logits: Tensor, temperature: float | Tensor, *, seed: Seed = None, offset: int = 0
) -> Tensor:
    """Draw tokens from softmax(logits / temperature): a drop-in for LLaDA's Gumbel noise and argmax.

    It replaces ::

        logits_with_noise = add_gumbel_noise(logits, temperature=temperature)
        x0 = torch.argmax(logits_with_noise, dim=-1)

    by ::

        x0 = add_gumbel_noise_argmax(logits, temperature)

    The two lines make several float64 tensors of the logits' size. This reads the logits once, in their own
    dtype, and makes none; the noise is float64 all the same, and computed only where it could decide.

    Parameters
    ----------
    logits : floating-point Tensor [..., V]
        The last axis must have stride 1.
    temperature : float or Tensor
        0 takes the argmax. A tensor holds one for each row, [...].
    seed : int, torch.Generator, PhiloxState or None
        None draws one from torch's default generator, so that `torch.manual_seed` makes a run repeatable and
        each call draws anew. With an int or a PhiloxState, which is read and not moved on, give each call its
        own `offset`.
    offset : int
        Draw number, < 2^32.

    Returns
    -------
    int64 Tensor [...]
        -1 for a row whose logits are all -inf or NaN.

    Raises
    ------
    ValueError, TypeError
        As `fastdiff_ops.ops.gumbel_argmax`.

    Notes
    -----
    LLaDA's formula is argmax exp(l) / (-log u)^T. Its logarithm is argmax l + T g with Gumbel noise g: the
    same draw, which does not overflow where l > 709 (classifier-free guidance gets there). LLaDA: arXiv
    2502.09992; why the noise must not be float32: arXiv 2409.02908.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([[0.0, 900.0, 900.0, -torch.inf]]).repeat(1000, 1)
    >>> x0 = add_gumbel_noise_argmax(logits, 0.7, seed=0)
    >>> sorted(set(x0.tolist()))
    [1, 2]
    >>> add_gumbel_noise_argmax(logits[:2], 0.0)
    tensor([1, 1])
    """
    return gumbel_argmax(logits, temperature, seed=seed, offset=offset)
