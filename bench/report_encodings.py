"""The sections of the report on encodings."""

from __future__ import annotations

from pathlib import Path

from .encodings import BOTH, COMPILED, CUBIC, FORWARD, GATHER, SIMPLEX, TORCH
from .lines import Aims, Cases, Line, notes, read, table, threads_text

SCALING_AIMS = {2: 0.9, 3: 1.4, 4: 1.5, 5: 1.9, 6: 3.2, 7: 5, 8: 8}  # cubic over simplex, by dimension


def times(lines: dict[str, Line], name: str) -> float | None:
    """How many times as long as the simplex grid, None if it was not measured."""
    return lines[name].info["times_simplex"] if name in lines else None


def encoding_aims(aims: Aims, path: Path) -> None:
    """What is wanted of the encodings on one thread."""
    scaling, encode = read(path, "encode scaling"), read(path, "encode")
    for n, limit in SCALING_AIMS.items():
        found = [times(lines, CUBIC) for case, lines in scaling.items() if case[2].startswith(f"{n} ")]
        aims.add(f"cubic over simplex grid, one hashed level, n = {n}, every table", limit, found, True)
    main = [lines for case, lines in encode.items() if case[::2] == ("1", "3 2^18")]
    for peer, limit in ((TORCH, 20), (COMPILED, 5)):
        found = [times(lines, f"{SIMPLEX}, {peer}, {BOTH}") for lines in main]
        text = f"{peer} over ours, simplex grid, forward + backward, n = 3, 2^18 points"
        aims.add(text, limit, found, True)


def encoding_sections(path: Path) -> list[str]:
    """Tables of what was measured of them."""
    encode, scaling = read(path, "encode"), read(path, "encode scaling")
    parts = []
    for on in dict.fromkeys(case[0] for case in encode):
        there = {case: lines for case, lines in encode.items() if case[0] == on}
        head = f"## Encodings, 16 levels of at most 2^19 entries, {threads_text(on)}"
        parts += [head, notes(there), rates(there)]
    if scaling:
        parts += ["### One hashed level, 2^18 points, by dimension and table", by_table(scaling)]
    return parts


def rates(encode: Cases) -> str:
    """Everybody's points a second."""
    rows: list[list[object]] = []
    for (_, _, shape), lines in encode.items():
        for name, line in lines.items():
            if name != GATHER:
                share = None
                if name == f"{SIMPLEX}, {FORWARD}" and GATHER in lines:
                    share = lines[GATHER].info["ns_per_level"] / line.info["ns_per_level"]
                info = line.info
                figures = [info["million_points_per_s"], info["ns_per_level"], info["times_simplex"], share]
                rows.append([*shape.split(" "), name, *figures])
    head = ["n", "points", "", "million points/s", "ns a point and level", "of simplex, x"]
    return table([*head, "of the random gather's speed"], rows)


def by_table(scaling: Cases) -> str:
    """Both grids by dimension and table size."""
    rows: list[list[object]] = []
    for (_, _, shape), lines in scaling.items():
        own, other = lines[SIMPLEX].info, lines[CUBIC].info
        rates_of = [own["ns_per_point"], other["ns_per_point"], own["gb_per_s"], other["times_simplex"]]
        rows.append([*shape.split(" "), *rates_of])
    head = ["n", "entries", "simplex, ns a point", "cubic, ns a point", "simplex, GB/s of lines"]
    return table([*head, "cubic / simplex"], rows)
