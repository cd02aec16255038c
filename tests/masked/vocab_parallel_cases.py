"""Draws that processes with parts of the vocabulary make together, and one process alone.

Run as a program it is one rank of a gloo group, which saves what it drew:

    python vocab_parallel_cases.py RANK RANKS INIT_FILE OUTPUT
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

ROWS = 7
# widths of the shards, by number of ranks: one column, a cut inside a tile, a cut next to its end
WIDTHS = {
    2: {333: [[1, 332], [200, 133]], 5000: [[4097, 903], [17, 4983]]},
    3: {333: [[331, 1, 1], [5, 300, 28]], 5000: [[100, 4500, 400], [1, 1, 4998]]},
}


def _logits(vocab: int, dtype: torch.dtype = torch.float32) -> Tensor:
    logits = 3 * torch.randn(ROWS, vocab, generator=torch.Generator().manual_seed(vocab))
    logits[2] = -torch.inf  # nothing to draw
    logits[3, : vocab // 2] = -torch.inf  # nothing to draw in the first shards
    logits[4] = 1.5  # ties
    logits[5, ::3], logits[5, 1::3], logits[5, 2::3] = -0.0, 0.0, -1.0  # one zero, the first
    return logits.to(dtype)


def _temperature() -> Tensor:
    return torch.tensor([1.0, 0.0, 1.0, 0.7, 0.0, 0.0, 2.0])


def cases(vocab: int) -> dict[str, tuple[Tensor, dict[str, Any]]]:
    """Whole rows and the arguments of `vocab_parallel_sample`, by name."""
    generator = torch.Generator().manual_seed(1)
    plain = {"temperature": _temperature(), "seed": 5}
    logits = _logits(vocab)
    processed = {
        "uncond_logits": torch.randn(ROWS, vocab, generator=generator),
        "cfg_scale": 1.5,
        "bias": torch.randn(1, vocab, generator=generator),
        "suppressed": torch.rand(ROWS, vocab, generator=generator) < 0.3,
        "forbidden": torch.tensor([0, vocab - 1, vocab // 3]),
    }
    infinite = logits.clone()
    infinite[0, [2, vocab - 1]] = torch.inf
    return {
        "plain": (logits, plain),
        "bfloat16": (_logits(vocab, torch.bfloat16), plain),
        "float64": (_logits(vocab, torch.float64), plain),
        "element": (logits, {**plain, "stream": "element"}),
        "block16": (logits, {**plain, "stream": "block16"}),
        "seeds": (logits, {**plain, "seed": list(range(10, 10 + ROWS)), "offset": 3}),
        "row_ids": (logits, {**plain, "row_ids": torch.arange(ROWS) * (1 << 33)}),
        "processed": (logits, {**plain, **processed}),
        "statistics": (infinite, {**plain, "score_temperature": 1.0}),
        "tempered statistics": (logits, {**plain, **processed, "score_temperature": 0.5}),
        "top_k": (logits, {**plain, "top_k": 5}),
        "top_p": (logits, {**plain, "top_p": 0.4}),
        "min_p": (logits, {**plain, "min_p": 0.2}),
        "filters": (logits, {**plain, **processed, "top_k": 40, "top_p": 0.8, "min_p": 0.01}),
    }


def shard(whole: Tensor, arguments: dict[str, Any], start: int, stop: int) -> tuple[Tensor, dict[str, Any]]:
    """Columns [start, stop) of everything that has columns."""
    columns = {
        name: value[:, start:stop].contiguous()
        for name, value in arguments.items()
        if name in ("uncond_logits", "bias", "suppressed")
    }
    return whole[:, start:stop].contiguous(), {**arguments, **columns}


def draw_sharded(rank: int, ranks: int, group: Any) -> dict[tuple[Any, ...], Any]:
    from fastdiff_ops.masked import vocab_parallel_sample

    drawn = {}
    for vocab, plans in WIDTHS[ranks].items():
        for number, widths in enumerate(plans):
            start = sum(widths[:rank])
            for name, (whole, arguments) in cases(vocab).items():
                logits, mine = shard(whole, arguments, start, start + widths[rank])
                place = {"vocab_start": start, "vocab_size": vocab} if number else {}
                drawn[vocab, number, name] = tuple(
                    vocab_parallel_sample(logits, **mine, **place, group=group)
                )
    torch.manual_seed(rank)  # ranks disagree on what is drawn
    logits = torch.zeros(ROWS, 1000)
    for generator in (False, True):
        seed = torch.Generator().manual_seed(rank) if generator else None
        drawn["drawn", generator] = vocab_parallel_sample(logits, seed=seed, group=group).tokens
    return drawn


def main(rank: int, ranks: int, init_file: str, output: str) -> None:
    from datetime import timedelta

    import torch.distributed as dist

    torch.set_num_threads(1)
    patience = timedelta(seconds=100)  # for a rank that failed
    dist.init_process_group(
        "gloo", init_method=f"file://{init_file}", rank=rank, world_size=ranks, timeout=patience
    )
    pair = dist.new_group([1, 2])  # its ranks are not the global ones
    drawn = {ranks: draw_sharded(rank, ranks, None)}
    if rank > 0:
        drawn[2] = draw_sharded(rank - 1, 2, pair)
    torch.save(drawn, output)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
