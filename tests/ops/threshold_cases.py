"""Rows that thresholds are hard to find in, and what sorting in float64 says of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from ops.categorical_cases import F64, family
from torch import Tensor

FAMILIES = (
    "flat", "normal", "wide", "peaked", "zipf", "llm", "large", "one_finite", "none_finite", "some_finite",
    "infinite", "nan", "denormal", "huge",
)  # fmt: skip
# top_k, top_p, min_p, temperature; 0, 1 and 0 are off
FILTERS = (
    (1, 1.0, 0.0, 1.0),
    (3, 1.0, 0.0, 0.0),
    (40, 1.0, 0.0, 1.0),
    (1 << 40, 1.0, 0.0, 1.0),
    (0, 0.9, 0.0, 1.0),
    (0, 0.5, 0.0, 0.0),
    (0, 1 - 1e-7, 0.0, 2.0),
    (0, 1e-30, 0.0, 0.2),
    (0, 0.99, 0.0, 1e-4),
    (0, 1.0, 0.1, 1.0),
    (0, 1.0, 1e-300, 0.3),
    (0, 1.0, 0.999, 5.0),
    (50, 0.8, 0.02, 0.7),
    (700, 0.95, 0.001, 1.5),
    (0, 1.0, 0.0, 1.0),
)


def hard_rows(vocab: int, dtype: torch.dtype, step: int = 1) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Every family with every filter, or each `step`-th of these rows.

    Returns logits [R, V] and top_k, top_p, min_p, temperature [R] each.
    """
    zero = torch.zeros(vocab, dtype=F64)
    logits = torch.stack([family(name, vocab, dtype, 1.0, zero) for name in FAMILIES])
    columns = list(zip(*FILTERS, strict=True))
    numbers = (
        torch.tensor(columns[0]),
        torch.tensor(columns[1], dtype=F64),
        torch.tensor(columns[2], dtype=F64),
        torch.tensor(columns[3]),
    )
    repeated = tuple(x.repeat(len(FAMILIES))[::step] for x in numbers)
    return logits.repeat_interleave(len(FILTERS), 0)[::step], repeated


def check_top_p(logits: Tensor, temperature: float, p: float, theta: float) -> None:
    """The definition, by sorting: what reaches theta has mass p, and what is above it has not."""
    value = logits.double().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    prob = torch.softmax(value / temperature, 0)
    assert theta in value
    ordered = prob[value.argsort(descending=True)]
    reached, above = int((value >= theta).sum()), int((value > theta).sum())
    slack = 1e-11
    assert float(ordered[:reached].sum()) >= p - slack
    assert float(ordered[:above].sum()) < p + slack


def in_shards(cuts: Sequence[int], run: Callable[[int, int, Callable[[Tensor, str], Tensor]], Tensor]):
    """Results of `run(first column, end, all_reduce)` on threads that reduce with one another."""
    n = len(cuts) - 1
    barrier = threading.Barrier(n, timeout=60)
    mailbox: list[Tensor | None] = [None] * n
    results: list[object] = [None] * n

    def reducer(i: int) -> Callable[[Tensor, str], Tensor]:
        def all_reduce(x: Tensor, kind: str) -> Tensor:
            mailbox[i] = x
            barrier.wait()
            parts = torch.stack([part for part in mailbox if part is not None])
            barrier.wait()
            return {"max": parts.amax(0), "sum": parts.sum(0)}[kind]

        return all_reduce

    def work(i: int) -> None:
        try:
            results[i] = run(cuts[i], cuts[i + 1], reducer(i))
        except BaseException as error:
            results[i] = error
            barrier.abort()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
