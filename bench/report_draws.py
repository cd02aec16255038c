"""The sections of the report on draws of tokens and on masked diffusion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .draws import ARGMAX, BLOCK16, ELEMENT, FIRST_HITTING, LLADA64, OURS, READING
from .lines import Aims, Cases, Line, notes, read, table, threads_text


def logits_ns(lines: dict[str, Line], name: str) -> float | None:
    """Nanoseconds a logit, None if it was not measured."""
    return lines[name].info["ns_per_logit"] if name in lines else None


def times(lines: dict[str, Line], name: str) -> float | None:
    """How many times as long as block16, None if it was not measured."""
    return lines[name].info["times_block16"] if name in lines else None


def draw_aims(aims: Aims, path: Path) -> None:
    """What is wanted of the draws, on one thread and on a GPU."""
    draws = read(path, "draw")
    on_one = {case: lines for case, lines in draws.items() if case[0] == "1"}
    single = list(on_one.values())
    shares = [
        lines[BLOCK16].info["ns_per_logit"] / max(0.4, 1.3 * lines[READING].info["ns_per_logit"])
        for lines in single
    ]
    aims.add("block16, ns a logit, over the larger of 0.4 and 1.3 x reading", 1, shares, False)
    aims.add("element, ns a logit", 0.6, [logits_ns(lines, ELEMENT) for lines in single], False)
    aims.add("torch.argmax over block16", 1, [times(lines, ARGMAX) for lines in single], True)
    for rows, limit in ((256, 60), (1, 25)):
        text = f"LLaDA's float64 formula over block16, {rows} row{'s' * (rows > 1)}"
        found = [times(lines, LLADA64) for case, lines in on_one.items() if case[2].startswith(f"{rows}x")]
        aims.add(text, limit, found, True)
    added = [lines[name].info.get("extra_mib") for lines in single for name in OURS if name in lines]
    aims.add("memory that a draw adds, MiB", 1, added, False)
    cuda = [lines for case, lines in draws.items() if case[0] == "cuda" and case[2].startswith("1024x")]
    shares = [lines[BLOCK16].info["times_reading"] for lines in cuda]
    aims.add("GPU, 1024x126464, block16 over reading", 1.4, shares, False)


def draw_sections(path: Path) -> list[str]:
    """Tables of what was measured of them."""
    draws, levels, masked = read(path, "draw"), read(path, "simd"), read(path, "masked")
    parts = []
    if draws:
        parts += ["## One token a row of logits, T = 1", notes(draws), *own(draws), *others(draws)]
    if levels:
        parts += ["### Other instruction sets, ns a logit (the tokens are the same)", simd(levels)]
    if masked:
        head = "## Masked diffusion beside a network that costs nothing"
        parts += [head, generation(masked), notes(masked)]
    return parts


def own(draws: Cases) -> Iterator[str]:
    """Ours on all logits."""
    for threads in dict.fromkeys(case[0] for case in draws):
        rows: list[list[object]] = []
        for (_, dtype, shape), lines in ((c, lines) for c, lines in draws.items() if c[0] == threads):
            block = lines[BLOCK16]
            figures = [block.median * 1e6, *(logits_ns(lines, n) for n in (BLOCK16, ELEMENT, READING))]
            ratios = [block.info["times_reading"], times(lines, ELEMENT), times(lines, ARGMAX)]
            rows.append([*shape.split(" ", 1), dtype, *figures, *ratios])
        head = ["rows x vocabulary", "logits", "dtype", "block16, µs", "ns a logit", "element, ns a logit"]
        head += ["reading, ns a logit", "block16 / reading", "element, x", "argmax, x"]
        yield f"### {threads_text(threads)}\n\n" + table(head, rows)


def others(draws: Cases) -> Iterator[str]:
    """Everybody, where all were measured."""
    for (threads, dtype, shape), lines in draws.items():
        if LLADA64 not in lines:
            continue
        rows: list[list[object]] = []
        for name, line in lines.items():
            low, high = line.info["times_block16_quartiles"]
            figures = [line.median * 1e6, line.info["ns_per_logit"], line.info["times_block16"]]
            rows.append([name, *figures, f"{low:.3g} to {high:.3g}", line.info.get("extra_mib")])
        head = ["", "µs", "ns a logit", "of block16, x", "quartiles", "added memory, MiB"]
        yield f"### {shape}, {dtype}, {threads_text(threads)}\n\n" + table(head, rows)


def simd(levels: Cases) -> str:
    """Speed by instruction set."""
    rows = [
        [dtype, *shape.split(" "), name, line.info["ns_per_logit"]]
        for (_, dtype, shape), lines in levels.items()
        for name, line in lines.items()
    ]
    return table(["dtype", "rows x vocabulary", "instructions", "stream", "ns a logit"], rows)


def generation(masked: Cases) -> str:
    """Time of a generated token."""
    rows = [
        [threads_text(threads), shape, name, line.median * 1e6, line.info["times_first_hitting"]]
        for (threads, _, shape), lines in masked.items()
        for name, line in lines.items()
    ]
    return table(["on", "case", "per generated token", "µs", f"of {FIRST_HITTING}, x"], rows)
