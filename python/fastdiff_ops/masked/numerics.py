"""What low-precision noise does to categorical draws, in closed form and emulated; measures of diversity.

A generator with b bits never returns u above 1 - 2^-b, so Gumbel noise -log(-log u) stops at a bound, 16.6
for float32, and rare tokens cannot win: the draw has a lower temperature than was asked for (Zheng et al.,
arXiv 2409.02908, section 5). The operators of this library are free of that; here is the size of the effect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_BISECTIONS = 200
#: Random bits of torch.rand, by dtype.
RANDOM_BITS = {torch.bfloat16: 8, torch.float16: 11, torch.float32: 24, torch.float64: 53}


def truncated_gumbel_law(probs: Tensor | Sequence[float], bits: float = 24) -> Tensor:
    """Return the law of a Gumbel-max draw whose uniforms stop at 1 - 2^-bits.

    Parameters
    ----------
    probs : Tensor [K]
        The law asked for, not necessarily normalised.
    bits : float
        24: float32; 53: float64; 8: bfloat16; 11: float16.

    Returns
    -------
    float64 Tensor [K]

    Raises
    ------
    ValueError
        If `probs` is no law, or `bits` not positive.

    Notes
    -----
    With delta = -log(1 - 2^-bits) the exponential variable of each class is at least delta, so the draw is a
    race in which class k starts at s_k = delta / p_k, and then has rate p_k: likely classes get a head start.
    With p sorted downwards and P_j = p_1 + .. + p_j, nobody has arrived by s_j with probability S_j =
    exp(-sum_{i<j} P_i (s_{i+1} - s_i)), and class k wins with p_k sum_{j>=k} S_j (1 - exp(-P_j (s_{j+1} -
    s_j))) / P_j. The noise is taken to be continuous above the cut; on the grid of a real generator the loss
    is somewhat smaller.

    Examples
    --------
    >>> truncated_gumbel_law([0.5, 0.3, 0.15, 0.05], bits=-torch.log2(1 - torch.exp(torch.tensor(-0.1))))
    tensor([0.5732, 0.3052, 0.1115, 0.0101], dtype=torch.float64)
    """
    p = _law("probs", probs)
    if not float(bits) > 0:
        raise ValueError(f"`bits` must be positive, got {bits!r}")
    delta = -math.log1p(-(2.0 ** -float(bits)))
    ranked, place = p.sort(descending=True)
    support = ranked > 0
    q = ranked[support]
    start = delta / q
    mass = q.cumsum(0)
    gaps = mass[:-1] * (start[1:] - start[:-1])
    none = torch.zeros(1, dtype=torch.float64)
    empty = torch.exp(-torch.cat([none, gaps.cumsum(0)]))  # S_j
    arrival = -torch.expm1(-torch.cat([gaps, none + math.inf]))
    share = (empty * arrival / mass).flip(0).cumsum(0).flip(0)
    law = torch.zeros_like(p)
    law[place[support]] = q * share
    return law


def effective_temperature(probs: Tensor | Sequence[float], law: Tensor | Sequence[float]) -> float:
    """Return the temperature at which `probs` has the entropy of `law`: H(softmax(log(probs) / T)) = H(law).

    Raises
    ------
    ValueError
        If either is no law, or no temperature gives that entropy (`probs` uniform, for example).

    Examples
    --------
    >>> p = torch.tensor([0.7, 0.2, 0.1])
    >>> round(effective_temperature(p, (p**2) / (p**2).sum()), 6)
    0.5
    """
    p, target = _law("probs", probs), float(_entropy(_law("law", law)))
    logits = p[p > 0].log()
    low, high = math.log(1e-6), math.log(1e6)

    def entropy(log_temperature: float) -> float:
        return float(_entropy((logits / math.exp(log_temperature)).softmax(0)))

    if not entropy(low) <= target <= entropy(high) or entropy(low) == entropy(high):
        raise ValueError("no temperature gives `probs` the entropy of `law`")
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if entropy(middle) < target else (low, middle)
    return math.exp(0.5 * (low + high))


def emulate_float32(
    probs: Tensor, *, dtype: torch.dtype = torch.float32, uniforms: Tensor | None = None
) -> Tensor:
    """Draw as masked-diffusion code does that makes its noise in low precision: what not to do.

    ``argmax(probs / (1e-10 - log(u + 1e-10)))`` with u, probabilities and arithmetic in `dtype` (MDLM's
    formula, arXiv 2406.07524).

    Parameters
    ----------
    probs : Tensor [..., K]
        Not necessarily normalised.
    dtype : torch.dtype
        bfloat16, float16, float32 or float64.
    uniforms : float64 Tensor [..., K], optional
        Random numbers in [0, 1), of which `dtype` sees as many bits as ``torch.rand`` makes in it, so that
        precisions can be compared on the same numbers. Default: drawn by ``torch.rand`` in `dtype`.

    Returns
    -------
    int64 Tensor [...]

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> flat = torch.ones(100, 50258)
    >>> mean = emulate_float32(flat, dtype=torch.bfloat16).double().mean() / 50258
    >>> float(mean) < 0.02  # of tokens drawn uniformly, 0.5 is right
    True
    """
    if dtype not in RANDOM_BITS:
        raise TypeError(f"`dtype` must be bfloat16, float16, float32 or float64, got {dtype}")
    if uniforms is None:
        u = torch.rand(probs.shape, dtype=dtype, device=probs.device)
    else:
        grid = 2.0 ** RANDOM_BITS[dtype]
        u = (uniforms * grid).floor_().div_(grid).to(dtype)
    noise = u.add_(1e-10).log_().neg_().add_(1e-10)
    return torch.div(probs.to(dtype), noise, out=noise if noise.shape == probs.shape else None).argmax(-1)


def unigram_entropy(tokens: Tensor) -> Tensor:
    """Return the entropy of the tokens that each sequence consists of, in nats.

    Report it beside generative perplexity, which improves when samples lose diversity.

    Parameters
    ----------
    tokens : int64 Tensor [B, L]

    Returns
    -------
    float64 Tensor [B]

    Examples
    --------
    >>> unigram_entropy(torch.tensor([[3, 3, 3, 3], [0, 1, 0, 1]]))
    tensor([0.0000, 0.6931], dtype=torch.float64)
    """
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or tokens.shape[1] == 0:
        raise ValueError(f"`tokens` must have shape [B, L], got {tuple(getattr(tokens, 'shape', ()))}")
    length = tokens.shape[1]
    ranked = tokens.sort(dim=1).values
    new = torch.ones_like(ranked, dtype=torch.bool)
    new[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    counts = torch.zeros(ranked.shape, dtype=torch.float64, device=tokens.device)
    counts.scatter_add_(1, new.cumsum(1) - 1, torch.ones_like(counts))
    entropy: Tensor = math.log(length) - torch.special.xlogy(counts, counts).sum(1) / length
    return entropy


def _law(name: str, values: Tensor | Sequence[float]) -> Tensor:
    p = torch.as_tensor(values, dtype=torch.float64)
    if p.dim() != 1 or len(p) == 0:
        raise ValueError(f"`{name}` must have shape [K], got {tuple(p.shape)}")
    if not bool(((p >= 0) & (p < math.inf)).all()) or not bool(p.sum() > 0):
        raise ValueError(f"`{name}` must hold probabilities")
    return p / p.sum()


def _entropy(p: Tensor) -> Tensor:
    entropy: Tensor = -torch.special.xlogy(p, p).sum()
    return entropy
