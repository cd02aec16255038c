"""The section of the report on tours."""

from __future__ import annotations

import statistics
from pathlib import Path

from fastdiff_ops.tsp.peers import SOLVERS

from .lines import Aims, Cases, Line, read, table
from .tours import AIMS, AIMS_OVER_CONSTANT, FAST_TSP, ILS, LKH, MCTS, REFERENCE, competitor

ORDER = (ILS, FAST_TSP, LKH, MCTS)


def tour_aims(aims: Aims, path: Path) -> None:
    """What is wanted of the default search."""
    for (_, _, n), lines in read(path, "tours").items():
        for (size, budget), limit in AIMS.items():
            line = lines.get(competitor(ILS, budget)) if str(size) == n else None
            if line is not None:
                found = [line.info["mean_gap"]]
                aims.add(f"mean gap of ils in %, {n} cities, {budget:g} s", limit, found, False)
        for (size, budget), limit in AIMS_OVER_CONSTANT.items():
            line = lines.get(competitor(ILS, budget)) if str(size) == n else None
            if line is not None:
                found = [line.info["over_constant"]]
                aims.add(f"ils over 0.7124 sqrt(N A) in %, {n} cities, {budget:g} s", limit, found, False)


def tour_sections(path: Path) -> list[str]:
    """Tables of what was measured, and where the picture is."""
    cases = read(path, "tours")
    if not cases:
        return []
    return [
        "## Tours, one thread, budgets of processor time",
        f"![gaps]({picture(path).name})",
        "\n".join(f"- {name}: {SOLVERS[name].note}" for name in ORDER),
        gaps(cases),
        "### Instance by instance: ils less another, in percentage points of gap",
        differences(cases),
    ]


def picture(path: Path) -> Path:
    """Where the picture goes."""
    return path.with_name(f"{path.stem}-tours.png")


def gaps(cases: Cases) -> str:
    """Everybody's gaps."""
    rows: list[list[object]] = []
    for (_, _, n), lines in cases.items():
        for line in sorted(lines.values(), key=lambda line: (line.info["budget"], rank(line))):
            info = line.info
            found = info["gaps"]
            deviation = statistics.stdev(found) if len(found) > 1 else None
            figures = [line.median, info["mean_gap"], deviation, info["worst_gap"], info["over_constant"]]
            limit = f"{info['budget']:g}" if info["solver"] != LKH else None
            known = REFERENCE.get((int(n), info["budget"])) if info["solver"] == MCTS else None
            rows.append([n, limit, info["solver"], *figures, len(found), known])
    head = ["N", "budget, s", "solver", "CPU s", "mean gap, %", "sd", "worst", "over 0.7124 sqrt(N A), %"]
    return table([*head, "instances", "public reference, %"], rows)


def differences(cases: Cases) -> str:
    """Pairs on the same instances: means hide who wins where."""
    rows: list[list[object]] = []
    for (_, _, n), lines in cases.items():
        for line in lines.values():
            if line.info["solver"] != ILS:
                continue
            for other in lines.values():
                info = other.info
                comparable = info["solver"] == LKH or info["budget"] == line.info["budget"]
                if info["solver"] == ILS or not comparable:
                    continue
                pairs = zip(line.info["gaps"], info["gaps"], strict=False)  # both begin with the same
                found = [a - b for a, b in pairs]
                better, worse = sum(d < -1e-4 for d in found), sum(d > 1e-4 for d in found)
                error = statistics.stdev(found) / len(found) ** 0.5 if len(found) > 1 else None
                counts = [better, len(found) - better - worse, worse]
                against = info["solver"] + (f", {other.median:.2g} s" if info["solver"] == LKH else "")
                rows.append([n, f"{line.info['budget']:g}", against, statistics.mean(found), error, *counts])
    head = ["N", "budget of ils, s", "other", "mean", "standard error", "ils shorter", "equal", "longer"]
    return table(head, rows)


def rank(line: Line) -> int:
    return ORDER.index(line.info["solver"])


def plot_tours(path: Path) -> None:
    """Mean gap over processor time, a panel for each size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    floor = 1e-3
    cases = {n: lines for (_, _, n), lines in read(path, "tours").items() if len(lines) > 1}
    if not cases:
        return
    figure, axes = plt.subplots(
        1, len(cases), figsize=(3.7 * len(cases) + 0.6, 4.2), sharey=True, squeeze=False
    )
    for axis, (n, lines) in zip(axes[0], cases.items(), strict=True):
        for k, solver in enumerate(ORDER):
            points = sorted(
                (line.median, max(line.info["mean_gap"], floor))
                for line in lines.values()
                if line.info["solver"] == solver
            )
            if points:
                axis.plot(
                    *zip(*points, strict=True), "osD^"[k] + "-", color=f"C{k}", label=solver, markersize=5
                )
        known = sorted((budget, gap) for (size, budget), gap in REFERENCE.items() if str(size) == n)
        if known:
            axis.plot(*zip(*known, strict=True), "x:", color="#777777", label="public reference of mcts")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_title(f"{n} cities", fontsize=10)
        axis.set_xlabel("processor seconds")
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel(f"mean gap, % ({floor:g} stands for less)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9, frameon=False)
    figure.set_layout_engine("constrained")
    figure.savefig(picture(path), dpi=130)
    plt.close(figure)
