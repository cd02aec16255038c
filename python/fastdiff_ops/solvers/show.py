"""Solver tables for people: as text and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastdiff_ops._coefficients import COLUMN_NAMES, ROW_X, Row

from .table import SolverTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEGEND = {
    "x": "x the state at the evaluation",
    "anchor": "anchor the state at the start of the step",
    "m": "m the model output as {target}",
    "noise": "noise standard normal",
    "corrected": "corrected the new anchor",
    "h": "h[k] what was stored k values ago",
}


def to_text(table: SolverTable) -> str:
    """Each evaluation as a formula, with a legend."""
    options = ", ".join(f"{key}={value!r}" for key, value in table.options.items())
    bound = "unbound" if table.prediction_type is None else f"{table.prediction_type} model"
    plural = "" if len(table) == 1 else "s"
    lines = [f"{table.name}({options}) on {table.schedule}, {bound}, {len(table)} evaluation{plural}"]
    times = [(f"{step.t:.4g}", f"{step.t_next:.4g}") for step in map(table.step, range(len(table)))]
    width = max(len(text) for pair in times for text in pair)
    used: set[str] = set()
    for i, (t, t_next) in enumerate(times):
        parts = [f"{name} = {_formula(row, used)}" for name, row in _results(table, i)]
        if table.anchor[i] == "keep":
            parts.append("keep anchor")
        lines.append(f"  t {t:<{width}} -> {t_next:<{width}}  {';  '.join(parts)}")
    target = "/".join(dict.fromkeys(table.target))
    legend = [text.format(target=target) for key, text in _LEGEND.items() if key in used]
    return "\n".join([*lines, "where " + ", ".join(legend)])


def _results(table: SolverTable, i: int) -> list[tuple[str, Row]]:
    step = table.step(i)
    results = [] if isinstance(step.anchor, str) else [("corrected", step.anchor)]
    results.append(("x_next", step.state))
    return results + [(f"store{k}", row) for k, row in enumerate(step.store) if row is not None]


def _formula(row: Row, used: set[str]) -> str:
    names = ["x", "anchor", "m", "noise", "corrected", *(f"h[{k + 1}]" for k in range(len(row.history)))]
    text = ""
    for weight, name in zip([*row[:5], *row.history], names, strict=True):
        if weight == 0:
            continue
        used.add(name.split("[")[0])
        size = "" if abs(weight) == 1 else f"{abs(weight):.4g} "
        sign = ("-" if weight < 0 else "") if not text else (" - " if weight < 0 else " + ")
        text += f"{sign}{size}{name}"
    return text or "0"


def to_figure(table: SolverTable) -> Figure:
    """Weights of row X against the evaluation, and the times."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(8, 5), layout="constrained")
    weights, times = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    evaluations = range(len(table))
    for column, name in enumerate(COLUMN_NAMES):
        values = table.rows[:, ROW_X, column]
        if values.any():
            weights.plot(evaluations, values, marker="o", markersize=3, label=name)
    weights.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    weights.set(ylabel="weight in x_next", title=f"{table.name} on {table.schedule}")
    weights.legend(fontsize="small")
    times.plot(evaluations, table.t, marker="o", markersize=3, color="0.3")
    times.set(xlabel="evaluation", ylabel="t")
    return figure
