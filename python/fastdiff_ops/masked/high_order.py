"""Second order in the number of evaluations, by extrapolating probabilities along the path.

A correct posterior is a martingale, E[mu(later) | x now] = mu(x now): one row's law cannot be improved. What
revealing several tokens from one evaluation misses is the dependence *between* them, and extrapolating from
two evaluations puts it back to first order.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Variant = Literal["theta_trapezoidal", "extrapolation"]


def trapezoidal_weight(first: float, second: float) -> float:
    """Weight c of mu_a + c (mu_b - mu_a), for groups of m = first + second tokens.

    The second group sees first x second of the m (m - 1) / 2 pairs in the group; c = m (m - 1) / (2 first
    second) makes up for the rest. c = 1 for 1 + 1 tokens: exact sequential sampling.

    >>> trapezoidal_weight(1, 1), trapezoidal_weight(2, 2)
    (1.0, 1.5)
    """
    m = first + second
    return m * (m - 1) / (2 * first * second)


def theta_weight(theta: float) -> float:
    """The same for a step in time that is divided at the fraction theta: 1 / (2 theta (1 - theta)).

    >>> theta_weight(0.5)
    2.0
    """
    return 1.0 / (2.0 * theta * (1.0 - theta))


def split_group(m: int, theta: float) -> tuple[int, int]:
    """Divide a group of m tokens at theta, at least one token on either side if there are two.

    >>> split_group(5, 0.5), split_group(1, 0.5)
    ((2, 3), (1, 0))
    """
    if m < 2:
        return m, 0
    first = min(max(round(theta * m), 1), m - 1)
    return first, m - first


def extrapolate(log_now: Tensor, log_before: Tensor, weight: Tensor) -> Tensor:
    """Return log max(0, mu + w (mu - mu_before)), not normalised.

    Parameters
    ----------
    log_now, log_before : float64 Tensor [B, k, V]
        ln mu at this evaluation and the previous one.
    weight : float64 Tensor [B, k]
        0 gives mu.
    """
    now = log_now.exp()
    return (now + weight[..., None] * (now - log_before.exp())).clamp(min=0.0).log()


def check_second_order(order: int, variant: str, theta: float, temperature: object) -> None:
    """Raise for options of a second-order sampler that could not be used."""
    if order not in (1, 2) or isinstance(order, bool):
        raise ValueError(f"`order` must be 1 or 2, got {order!r}")
    if variant not in ("theta_trapezoidal", "extrapolation"):
        raise ValueError(f"`variant` must be 'theta_trapezoidal' or 'extrapolation', got {variant!r}")
    if isinstance(theta, bool) or not isinstance(theta, (int, float)):
        raise TypeError(f"`theta` must be a number, got {theta!r:.80}")
    if not 0.0 < theta < 1.0:
        raise ValueError(f"`theta` must be in (0, 1), got {theta!r}")
    if order == 2 and bool((torch.as_tensor(temperature) == 0).any()):
        raise ValueError("`temperature` must not be 0 with `order` 2, which extrapolates probabilities")
