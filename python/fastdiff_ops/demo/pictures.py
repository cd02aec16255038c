"""The demo's pictures. matplotlib is imported here only, and only when a picture is drawn."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastdiff_ops._environment import require_matplotlib
from fastdiff_ops.demo.timing import Timing, readable

if TYPE_CHECKING:
    from fastdiff_ops.demo.digits import ErrorCurve
    from fastdiff_ops.demo.words_experiments import Entropies, Measured

__all__ = [
    "draw_entropies",
    "draw_errors",
    "draw_precision",
    "draw_samples",
    "draw_solvers",
    "draw_timings",
    "mosaic",
    "write_png",
]

# Distinguishable with the common colour vision deficiencies (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333", "#8C6D31")
MARKERS = "osD^vP*X"


def mosaic(images: Tensor, columns: int, zoom: int = 4, gap: int = 2) -> Tensor:
    """Lay pictures out in rows, dark ink on white paper.

    Parameters
    ----------
    images : Tensor
        Pictures in about [-1, 1], ``[B, 1, H, W]``; ink is 1. A grey level holds no more, so
        values outside are cut off.
    columns : int
        Pictures in a row; the last row may be short.
    zoom : int
        Enlargement, by bicubic interpolation.
    gap : int
        Pixels of paper between the enlarged pictures.

    Returns
    -------
    Tensor
        Grey levels, uint8 ``[height, width]``.
    """
    if images.dim() != 4 or images.shape[1] != 1:
        raise ValueError(f"`images` must be [B, 1, H, W], got shape {tuple(images.shape)}")
    ink = (images.detach().float().cpu() * 0.5 + 0.5).clamp(0, 1)
    if zoom > 1:
        ink = F.interpolate(ink, scale_factor=zoom, mode="bicubic", align_corners=False).clamp(0, 1)
    ink = F.pad(ink[:, 0], (gap, gap, gap, gap))
    ink = torch.cat([ink, ink.new_zeros((-len(ink)) % columns, *ink.shape[1:])])
    rows, (h, w) = len(ink) // columns, ink.shape[1:]
    sheet = ink.reshape(rows, columns, h, w).permute(0, 2, 1, 3).reshape(rows * h, columns * w)
    return (255 - sheet * 255).round().to(torch.uint8)


def write_png(path: Path, grey: Tensor) -> None:
    """Write grey levels, uint8 ``[height, width]``, as a PNG file; needs no picture library."""
    height, width = grey.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    # Every row starts with the number of its filter; 0 is "none".
    raw = np.concatenate([np.zeros((height, 1), np.uint8), grey.numpy()], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw, 9))
        + chunk(b"IEND", b"")
    )


def draw_samples(path: Path, images: Tensor, labels: Sequence[int], title: str) -> None:
    """Draw samples by class: one row a label.

    Parameters
    ----------
    path : Path
        PNG file to write.
    images : Tensor
        ``[len(labels) * n, 1, H, W]``, the n samples of a label one after another.
    labels : sequence of int
        The label of each row.
    title : str
        Headline.
    """
    plt = require_matplotlib()
    columns = len(images) // len(labels)
    sheet = mosaic(images, columns)
    height, width = sheet.shape
    figure, axes = plt.subplots(figsize=(0.6 + width / 110, 0.8 + height / 110), layout="constrained")
    axes.imshow(sheet.numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_yticks((np.arange(len(labels)) + 0.5) * height / len(labels), [str(k) for k in labels])
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize=11)
    axes.set_ylabel("label")
    axes.set_title(title, fontsize=11)
    for side in axes.spines.values():
        side.set_visible(False)
    _save(figure, path)


def draw_solvers(
    path: Path, grid: Sequence[Sequence[Tensor]], solvers: Sequence[str], columns: Sequence[str], title: str
) -> None:
    """Draw what every solver makes of the same noises with few and with many evaluations.

    Parameters
    ----------
    path : Path
        PNG file to write.
    grid : sequence of sequence of Tensor
        ``grid[row][column]`` holds samples ``[n, 1, H, W]``, of the same n noises everywhere.
    solvers, columns : sequence of str
        Headings of the rows, and of the columns: numbers of evaluations.
    title : str
        Headline.
    """
    plt = require_matplotlib()
    n = len(grid[0][0])
    across = max(1, min(n, round((n * 2.5) ** 0.5)))  # an oblong tile
    size = (1.6 + 1.9 * len(columns), 0.9 + 0.85 * len(solvers))
    figure, axes = plt.subplots(len(solvers), len(columns), figsize=size, layout="constrained", squeeze=False)
    for i, (row, solver) in enumerate(zip(grid, solvers, strict=True)):
        for j, (images, column) in enumerate(zip(row, columns, strict=True)):
            ax = axes[i, j]
            ax.imshow(mosaic(images, across, gap=1).numpy(), cmap="gray", vmin=0, vmax=255)
            ax.set_xticks([])
            ax.set_yticks([])
            for side in ax.spines.values():
                side.set_color("#bbbbbb")
            if i == 0:
                ax.set_title(column, fontsize=11)
            if j == 0:
                ax.set_ylabel(solver, fontsize=11, rotation=0, ha="right", va="center")
    figure.supxlabel("model evaluations", fontsize=11)
    figure.suptitle(title, fontsize=12)
    _save(figure, path)


def draw_errors(path: Path, curves: Sequence[ErrorCurve], reference: str) -> None:
    """Draw the error of every solver against the number of model evaluations, both axes logarithmic.

    Parameters
    ----------
    path : Path
        PNG file to write.
    curves : sequence of ErrorCurve
        What :func:`fastdiff_ops.demo.digits.error_curves` returned.
    reference : str
        What the error is measured against, for the title.
    """
    plt = require_matplotlib()
    figure, axes = plt.subplots(figsize=(7.5, 5.2), layout="constrained")
    for i, curve in enumerate(curves):
        axes.loglog(
            curve.nfe,
            curve.error,
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            ms=5,
            lw=1.6,
            label=f"{curve.solver}  (slope {curve.order:.1f})",
        )
    nfe = sorted({n for curve in curves for n in curve.nfe})
    axes.set_xticks(nfe, [str(n) for n in nfe])
    axes.minorticks_off()
    axes.axhline(1 / 255, color="#999999", lw=1, ls=":")
    note = {"color": "#777777", "fontsize": 8, "va": "bottom"}
    axes.text(nfe[0], 1 / 255 * 1.06, "half a grey level of an 8-bit picture", **note)
    axes.grid(True, which="major", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("model evaluations (NFE)")
    axes.set_ylabel("root mean square error of the pixels, which lie in [-1, 1]")
    axes.set_title(f"Error against {reference}, same noise", fontsize=12)
    axes.legend(fontsize=9, frameon=False, loc="upper right")
    _save(figure, path)


def draw_timings(path: Path, timings: Sequence[Timing], title: str) -> None:
    """Draw the time of one solver update, grouped by shape, on a logarithmic axis.

    Parameters
    ----------
    path : Path
        PNG file to write.
    timings : sequence of Timing
        What :func:`fastdiff_ops.demo.timing.time_updates` returned.
    title : str
        Headline.
    """
    plt = require_matplotlib()
    shapes = list(dict.fromkeys(t.shape for t in timings))
    names = list(dict.fromkeys(t.name for t in timings))
    figure, axes = plt.subplots(figsize=(8.5, 1.1 + 0.33 * len(timings)), layout="constrained")
    height = 0.8 / len(names)
    for i, name in enumerate(names):
        rows = [t for t in timings if t.name == name]
        y = [shapes.index(t.shape) + (i - (len(names) - 1) / 2) * height for t in rows]
        axes.barh(y, [t.seconds * 1e6 for t in rows], height * 0.9, color=COLOURS[i], label=name)
        for t, at in zip(rows, y, strict=True):
            fused = next(f for f in timings if f.shape == t.shape)
            ratio = "" if t is fused else f"   ({t.seconds / fused.seconds:.1f} times)"
            axes.text(t.seconds * 1.05e6, at, readable(t.seconds) + ratio, va="center", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(min(t.seconds for t in timings) * 1e6 / 3, max(t.seconds for t in timings) * 1e6 * 12)
    axes.set_yticks(range(len(shapes)), [str(list(s)) for s in shapes])
    axes.invert_yaxis()
    axes.set_xlabel("time of one update, microseconds")
    axes.set_title(title, fontsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9, frameon=False, loc="upper right")  # where the bars of the smallest shape end
    _save(figure, path)


def draw_entropies(path: Path, entropies: Entropies, vocabulary: int) -> None:
    """Draw the mean -log p(token) of ancestral sampling against its number of steps.

    Parameters
    ----------
    path : Path
        PNG file to write.
    entropies : Entropies
        What :func:`fastdiff_ops.demo.words_experiments.measure_entropies` returned.
    vocabulary : int
        For the title.
    """
    plt = require_matplotlib()
    figure, axes = plt.subplots(figsize=(7.5, 4.8), layout="constrained")
    axes.axhline(entropies.exact, color="#999999", lw=1, ls=":", label="entropy of p: what is right")
    label = "one float32 draw from tokens and mask, closed form"
    axes.plot(entropies.steps, entropies.predicted, color=COLOURS[1], lw=1.6, label=label)

    def points(values: dict[int, Measured], colour: str, marker: str, label: str) -> None:
        bars = {"yerr": [2 * m.error for m in values.values()], "fmt": marker, "ms": 5, "capsize": 3}
        axes.errorbar(list(values), [m.mean for m in values.values()], color=colour, label=label, **bars)

    points(entropies.float32, COLOURS[1], "s", "the same, as MDLM's code draws it")
    points(entropies.ours, COLOURS[0], "o", "ancestral_sample (exact float64 draw)")
    at = max(entropies.steps) * 1.5  # it has no steps
    points(
        {round(at): entropies.first_hitting}, COLOURS[2], "D", "first_hitting_sample, which has no time grid"
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(entropies.steps, [str(n) for n in entropies.steps])
    axes.minorticks_off()
    axes.grid(True, which="major", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("steps of ancestral sampling")
    axes.set_ylabel("mean of -log p(token), nats")
    title = f"The more steps, the fewer rare tokens: float32 draws, {vocabulary} tokens, p ~ 1 / rank"
    axes.set_title(title + "\n(bars: two standard errors)", fontsize=11)
    axes.legend(fontsize=9, frameon=False, loc="lower left")
    _save(figure, path)


def draw_precision(path: Path, drawn: dict[str, Tensor], vocabulary: int) -> None:
    """Draw histograms of tokens that should all be equally likely.

    Parameters
    ----------
    path : Path
        PNG file to write.
    drawn : dict of str to Tensor
        Tokens by what drew them, each a panel.
    vocabulary : int
        How many tokens there are.
    """
    plt = require_matplotlib()
    figure, panels = plt.subplots(
        1, len(drawn), figsize=(3.4 * len(drawn), 3.4), sharey=True, layout="constrained", squeeze=False
    )
    bins = 40
    for axes, (name, tokens), colour in zip(
        panels[0], drawn.items(), COLOURS[1:3] + COLOURS[:1], strict=False
    ):
        place = (tokens.double() + 0.5) / vocabulary
        axes.hist(
            place.numpy(), bins, range=(0, 1), weights=np.full(len(place), 1 / len(place)), color=colour
        )
        axes.axhline(1 / bins, color="#333333", lw=1, ls=":")
        axes.set_yscale("log")
        axes.set_ylim(1e-3, 2)
        axes.set_xlim(0, 1)
        axes.set_title(f"{name}\nmean {float(place.mean()):.3f}", fontsize=11)
        axes.set_xlabel("token / vocabulary")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("share of the draws")
    figure.suptitle(
        f"{vocabulary} equally likely tokens, drawn {len(place)} times (dotted: right)", fontsize=11
    )
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=130)
    require_matplotlib().close(figure)
