"""How many tokens to reveal with each evaluation of the network: plain lists of numbers, made on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastdiff_ops.schedules._checks import check_count

Plan = str | Sequence[int]


def group_sizes(
    n: int, *, num_steps: int | None = None, tokens_per_step: int | None = None, plan: Plan = "uniform"
) -> list[int]:
    """Return how many of n tokens each evaluation reveals.

    Parameters
    ----------
    n : int
        Tokens to reveal.
    num_steps : int, optional
        Number of evaluations; n of them where n is smaller.
    tokens_per_step : int, optional
        Instead of `num_steps`: reveal that many with each. Default: 1.
    plan : "uniform", "cosine", or list of ints
        With `num_steps`: sizes that differ by at most 1, the larger ones first (LLaDA's rule); or few tokens
        first, n (1 - cos(pi i / 2N)) after i of N evaluations (MaskGIT, arXiv 2202.04200). A list gives the
        sizes themselves; what is left when all tokens are revealed is not used.

    Returns
    -------
    list of int, each at least 1, with sum n

    Raises
    ------
    ValueError, TypeError
        If arguments are out of range or contradict each other, or a list's sum is below n.

    Examples
    --------
    >>> group_sizes(10, num_steps=4)
    [3, 3, 2, 2]
    >>> group_sizes(10, num_steps=4, plan="cosine")
    [1, 2, 3, 4]
    >>> group_sizes(10, tokens_per_step=4)
    [4, 4, 2]
    """
    check_count("n", n, 0)
    check_plan(num_steps, tokens_per_step, plan)
    if not isinstance(plan, str):
        return _explicit(n, plan)
    if num_steps is None:
        size = tokens_per_step or 1
        return [min(size, n - done) for done in range(0, n, size)]
    steps = min(num_steps, n)
    if plan == "uniform":
        return [n // steps + (i < n % steps) for i in range(steps)]
    sizes, done = [], 0
    for i in range(1, steps + 1):
        upto = min(n, max(done + 1, round(n * (1.0 - math.cos(0.5 * math.pi * i / steps)))))
        if upto > done:
            sizes.append(upto - done)
        done = upto
    return sizes


def check_plan(num_steps: int | None, tokens_per_step: int | None, plan: Plan) -> None:
    """Raise for arguments of `group_sizes` that could not be used with any n."""
    if num_steps is not None and tokens_per_step is not None:
        raise ValueError("give `num_steps` or `tokens_per_step`, not both")
    for name, value in (("num_steps", num_steps), ("tokens_per_step", tokens_per_step)):
        if value is not None:
            check_count(name, value, 1)
    if isinstance(plan, str):
        if plan not in ("uniform", "cosine"):
            raise ValueError(f"`plan` must be 'uniform', 'cosine' or a list of sizes, got {plan!r}")
        if plan == "cosine" and num_steps is None:
            raise ValueError("`plan` 'cosine' needs `num_steps`")
        return
    if num_steps is not None or tokens_per_step is not None:
        raise ValueError("`plan` as a list of sizes leaves no room for `num_steps` or `tokens_per_step`")
    for size in plan:
        check_count("plan", size, 1)


def split_steps(num_steps: int, n_blocks: int) -> list[int]:
    """Return the evaluations of each block: equal shares, the remainder to the first ones.

    >>> split_steps(10, 4)
    [3, 3, 2, 2]
    """
    if num_steps < n_blocks:
        raise ValueError(f"`num_steps` must be at least the number of blocks, {n_blocks}, got {num_steps}")
    return [num_steps // n_blocks + (i < num_steps % n_blocks) for i in range(n_blocks)]


def _explicit(n: int, plan: Sequence[int]) -> list[int]:
    sizes: list[int] = []
    for size in plan:
        sizes.append(min(size, n - sum(sizes)))
        if sizes[-1] == 0:
            return sizes[:-1]
    if sum(sizes) < n:
        raise ValueError(f"`plan` must reveal all {n} tokens, got sizes with sum {sum(sizes)}")
    return sizes
