"""A table and a plot of one result file: python -m bench.report bench/results/NAME.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .lines import Aims, Cases, Line, notes, read, table, threads_text
from .report_draws import draw_aims, draw_sections
from .report_encodings import encoding_aims, encoding_sections
from .report_tours import plot_tours, tour_aims, tour_sections

FUSED, SDE = "fused", "fused SDE"
BARE = ("bare loop", "bare loop, streaming")
COMPILED = ("torch.compile", "torch.compile, given outputs")
# columns of the summary: title, competitors of which the faster counts
RATIOS = {
    "eager": ("eager",),
    "eager, given outputs": ("eager, given outputs",),
    "compile": COMPILED[:1],
    "compile, given outputs": COMPILED[1:],
    "diffusers": ("diffusers",),
    "k-diffusion": ("k-diffusion",),
}
PLOTTED = {
    "diffusers": (("diffusers",), "#4c72b0"),
    "k-diffusion": (("k-diffusion",), "#937860"),
    "eager PyTorch": (("eager",), "#dd8452"),
    "torch.compile": (COMPILED[:1], "#55a868"),
    "torch.compile, outputs given": (COMPILED[1:], "#9fd0ab"),
    "bare C loop": (BARE, "#222222"),
}

LOW, HIGH, TICKS = 0.1, 150.0, (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # of the plot


def ratio(lines: dict[str, Line], names: Sequence[str]) -> float | None:
    """How many times as long as the fused update the fastest of these took; None if none was there."""
    return min((lines[name].info["times_fused"] for name in names if name in lines), default=None)


def summary(cases: Cases) -> Iterator[str]:
    """The fused update beside everybody's, a table for each number of threads."""
    for threads in dict.fromkeys(case[0] for case in cases):
        rows = []
        for (_, dtype, shape), lines in ((c, lines) for c, lines in cases.items() if c[0] == threads):
            fused = lines[FUSED]
            shares = [fused.info.get("of_copy_"), fused.info.get("of_memcpy"), ratio(lines, BARE)]
            ratios = [ratio(lines, names) for names in RATIOS.values()]
            rows.append([shape, dtype, fused.median * 1e6, fused.info["gb_per_s"], *shares, *ratios])
        head = ["shape", "dtype", "fused, µs", "GB/s", "of copy_", "of memcpy", "of bare loop"]
        yield f"### {threads_text(threads)}\n\n" + table([*head, *(f"{title}, x" for title in RATIOS)], rows)


def sde(cases: Cases) -> str:
    """The stochastic update."""
    rows = []
    for (threads, dtype, shape), lines in cases.items():
        if SDE in lines:
            line, peer = lines[SDE], lines.get("diffusers SDE")
            times = peer.median / line.median if peer else None
            info = line.info
            rows.append(
                [
                    threads,
                    shape,
                    dtype,
                    line.median * 1e6,
                    info["times_fused"],
                    info.get("ns_per_normal"),
                    times,
                ]
            )
    head = [
        "threads",
        "shape",
        "dtype",
        "fused SDE, µs",
        "of deterministic, x",
        "ns per normal",
        "diffusers SDE, x",
    ]
    return table(head, rows)


def loop(cases: Cases) -> str:
    """What `sample` costs per step beside the network."""
    rows = [
        [name, shape, threads, line.median * 1e6, line.info.get("times_diffusers_step")]
        for (threads, _, shape), lines in cases.items()
        for name, line in lines.items()
    ]
    return table(["per step", "shape", "threads", "µs", "of diffusers' step"], rows)


def update_aims(aims: Aims, updates: Cases, loops: Cases) -> None:
    """What is wanted of the step of a solver."""
    aim = aims.add

    def of(threads: str, shape: str, value: Callable[[dict[str, Line]], float | None]) -> list[float | None]:
        return [value(lines) for (t, _, s), lines in updates.items() if (t, s) == (threads, shape)]

    aim(
        "bandwidth of the bare loop, 64x3x256x256, 1 thread",
        0.9,
        of("1", "64x3x256x256", lambda c: ratio(c, BARE)),
        True,
    )
    single = [ratio(lines, COMPILED) for case, lines in updates.items() if case[0] == "1"]
    aim("the faster torch.compile over fused, every shape, 1 thread", 1.0, single, True)
    for shape, part in (("4", 10), ("1x4x64x64", 8)):
        for lines in (lines for case, lines in loops.items() if case[0] == "1" and case[2] == shape):
            if shape == "4":
                aim("solver_step_ on 4 elements, µs", 7, [lines["sample, the operator"].median * 1e6], False)
                aim("rest of sample's loop, µs", 5, [lines["sample, rest of the loop"].median * 1e6], False)
            whole = lines["sample, a step"].info.get("times_diffusers_step")
            aim(f"a step of sample over diffusers' step, {shape}", 1 / part, [whole], False)
    middle = "8x4x128x128"
    aim(
        "ns per in-kernel normal, 1 thread",
        1.4,
        of("1", middle, lambda c: c[SDE].info["ns_per_normal"]),
        False,
    )
    aim(
        f"SDE step over deterministic, {middle}",
        2.6,
        of("1", middle, lambda c: c[SDE].info["times_fused"]),
        False,
    )
    peer = "diffusers SDE"
    aim(
        f"diffusers' SDE step over fused, {middle}",
        5,
        of("1", middle, lambda c: c[peer].median / c[SDE].median if peer in c else None),
        True,
    )
    for shape in ("2^26", "2^27"):
        aim(
            f"device copy's bandwidth, {shape} elements",
            0.85,
            of("cuda", shape, lambda c: c[FUSED].info["of_copy_"]),
            True,
        )
    aim("captured step, 2^18 elements, µs", 6, of("cuda", "2^18", lambda c: c[FUSED].median * 1e6), False)


def details(cases: Cases) -> str:
    """Every competitor of every case."""
    rows = []
    for (threads, dtype, shape), lines in cases.items():
        for name, line in lines.items():
            info = line.info
            low, high = info["times_fused_quartiles"]
            shares = [info["gb_per_s"], info.get("of_copy_"), info.get("of_memcpy"), info["times_fused"]]
            rows.append([threads, shape, dtype, name, line.median * 1e6, *shares, f"{low:.3g} to {high:.3g}"])
    head = [
        "threads",
        "shape",
        "dtype",
        "competitor",
        "µs",
        "GB/s",
        "of copy_",
        "of memcpy",
        "of fused, x",
        "quartiles",
    ]
    return table(head, rows)


def markdown(path: Path) -> str:
    """The whole report."""
    content = json.loads(path.read_text())
    machine, updates, loops = content["machine_info"], read(path, "update"), read(path, "loop")
    aims = Aims()
    update_aims(aims, updates, loops)
    draw_aims(aims, path)
    encoding_aims(aims, path)
    tour_aims(aims, path)
    gpus = "; ".join(gpu["name"] for gpu in machine["gpus"]) or "no GPU"
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    build = machine["build"]
    family, model = machine["cpu_family_model"]
    conditions = [
        f"{machine['cpu']} (family {family}, model {model}), {machine['threads']} threads, {gpus}",
        f"commit {str(content['commit_info']['id'])[:12]}",
        f"torch {machine['torch']['version']}, {packages}",
        f"{build.get('compiler')}, SIMD {build.get('simd')}",
    ]
    parts = [
        f"# Benchmarks, {content['datetime'][:10]}",
        "; ".join(conditions) + ("; **quick run**" if machine["quick"] else ""),
        "Medians of interleaved rounds; of the encodings the fastest turns. "
        "A ratio is the median of the ratios in each round: x is how many "
        "times as long as ours (the fused update; block16; first_hitting_sample). GB/s and the shares of "
        "copies count the bytes that the job must move. "
        "[How to read this](../README.md).",
        "## Aims",
        aims.table(),
    ]
    if updates:
        parts += [
            "## One DPM-Solver++(2M) update",
            f"![ratios]({path.with_suffix('.png').name})",
            *summary(updates),
        ]
        parts += ["## With noise", sde(updates)]
    if loops:
        parts += ["## The loop of `sample`, the network costing nothing (float32)", loop(loops)]
    parts += draw_sections(path)
    parts += encoding_sections(path)
    parts += tour_sections(path)
    if updates:
        parts += ["## Every competitor", notes(updates), details(updates)]
    return "\n\n".join(parts) + "\n"


def plot(path: Path) -> None:
    """Times over the fused update's, one panel for each dtype and number of threads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    cases = read(path, "update")
    columns = list(dict.fromkeys(case[0] for case in cases))
    rows = list(dict.fromkeys(case[1] for case in cases))
    size = (6.2 * len(columns) + 0.6, 2.9 * len(rows) + 1.2)
    figure, axes = plt.subplots(len(rows), len(columns), figsize=size, sharey=True, squeeze=False)
    for r, dtype in enumerate(rows):
        for c, threads in enumerate(columns):
            axis = axes[r][c]
            shapes = [shape for t, d, shape in cases if (t, d) == (threads, dtype)]
            width = 0.84 / len(PLOTTED)
            for k, (label, (names, colour)) in enumerate(PLOTTED.items()):
                values = [ratio(cases[threads, dtype, shape], names) for shape in shapes]
                bars = [
                    (i + (k - (len(PLOTTED) - 1) / 2) * width, v)
                    for i, v in enumerate(values)
                    if v is not None
                ]
                axis.bar(
                    [x for x, _ in bars],
                    [v - 1 for _, v in bars],
                    width * 0.92,
                    1.0,
                    color=colour,
                    label=label,
                )
                for x, v in bars:
                    axis.annotate(
                        f"{v:.2g}" if v < 9.95 else f"{v:.0f}",
                        (x, min(max(v, LOW * 1.3), HIGH / 1.4)),
                        xytext=(0, 2 if v >= 1 else -2),
                        textcoords="offset points",
                        ha="center",
                        va="bottom" if v >= 1 else "top",
                        fontsize=6.5,
                    )
            axis.axhline(1.0, color="#c44e52", linewidth=1.2)
            axis.set_yscale("log")
            axis.set_ylim(LOW, HIGH)
            axis.set_yticks(TICKS, [f"{v:g}" for v in TICKS])
            axis.minorticks_off()
            axis.grid(axis="y", color="#dddddd", linewidth=0.6)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_title(f"{dtype}, {threads_text(threads)}", fontsize=10)
            axis.set_xticks(
                range(len(shapes)),
                [tick(shape, cases[threads, dtype, shape]) for shape in shapes],
                fontsize=8,
            )
            axis.tick_params(axis="x", length=0)
    figure.supylabel("time / time of the fused update", fontsize=10)
    machine = json.loads(path.read_text())["machine_info"]
    device = machine["gpus"][0]["name"] if columns == ["cuda"] else machine["cpu"]
    figure.suptitle(
        f"One DPM-Solver++(2M) update: how many times as long as fused (red line)\n{device}", fontsize=11
    )
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8.5, frameon=False)
    figure.set_layout_engine("constrained")
    figure.savefig(path.with_suffix(".png"), dpi=140)
    plt.close(figure)


def tick(shape: str, lines: dict[str, Line]) -> str:
    """Shape and the fused update's own time."""
    micro = lines[FUSED].median * 1e6
    name = f"{shape} elements" if "x" not in shape else shape.replace("x", "·")
    return f"{name}\nfused {micro:.3g} µs" if micro < 1e3 else f"{name}\nfused {micro / 1e3:.3g} ms"


def write(path: Path) -> str:
    """Write the report and the plot beside the result file; return the head of the report, for a terminal."""
    text = markdown(path)
    path.with_suffix(".md").write_text(text)
    if read(path, "update"):
        plot(path)
    plot_tours(path)
    head, _, _ = text.partition("## Every competitor")
    return f"{head}written: {path.with_suffix('.json').name}, .md, .png in {path.parent.name}/"


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
