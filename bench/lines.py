"""Result files as lines of tables, and what the project wants of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Line:
    """One measured competitor."""

    median: float
    info: dict[str, Any]


Case = tuple[str, str, str]  # threads, dtype, shape
Cases = dict[Case, dict[str, Line]]


def read(path: Path, job: str) -> Cases:
    """The lines of a result file by case and competitor, in the order of measurement."""
    cases: Cases = {}
    for benchmark in json.loads(path.read_text())["benchmarks"]:
        info = benchmark["extra_info"]
        if info["job"] == job:
            case = (str(info["threads"]), info["dtype"], info["shape"])
            cases.setdefault(case, {})[info["competitor"]] = Line(benchmark["stats"]["median"], info)
    return cases


def threads_text(threads: str) -> str:
    return {"1": "1 thread", "cuda": "GPU"}.get(threads, f"{threads} threads")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown, empty where a value is None; numbers with three digits."""
    texts = [
        ["" if v is None else f"{v:.3g}" if isinstance(v, float) else str(v) for v in row] for row in rows
    ]
    lines = [head, ["---"] * len(head), *texts]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def notes(cases: Cases) -> str:
    """What a reader must know of each competitor."""
    found = {
        name: line.info["note"]
        for lines in cases.values()
        for name, line in lines.items()
        if "note" in line.info
    }
    return "\n".join(f"- {name}: {note}" for name, note in found.items())


@dataclass
class Aims:
    """What the project wants of itself, and what came out; what was not measured is left out."""

    rows: list[list[object]] = field(default_factory=list)

    def add(self, text: str, limit: float, values: Sequence[float | None], at_least: bool) -> None:
        """Compare the worst of some values with a limit."""
        found = [v for v in values if v is not None]
        if found:
            worst = min(found) if at_least else max(found)
            met = worst >= limit if at_least else worst <= limit
            sign = ">=" if at_least else "<="
            self.rows.append([text, f"{sign} {limit:g}", worst, "yes" if met else "**no**"])

    def table(self) -> str:
        """All of them."""
        return table(["what (the worst of all cases)", "aim", "measured", "met"], self.rows)
