"""The whole demo: pictures into a folder, tables onto the screen."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from fastdiff_ops._environment import pick_device, require_matplotlib
from fastdiff_ops.demo import pictures, timing
from fastdiff_ops.demo.digits import Digits, ErrorCurve, Prompt, compare, table_for_budget

__all__ = ["DemoSettings", "describe", "format_errors", "format_timings", "one_thread", "run_demo"]

REFERENCE_SOLVER = "dpmpp_3m"


@dataclass(frozen=True)
class DemoSettings:
    """What the demo does; the defaults take less than a minute on two cores.

    Attributes
    ----------
    out : Path
        Folder of the pictures; made if need be.
    labels : tuple of int
        Label of each row of the large grid. Solvers are compared on one digit a row.
    per_label : int
        Digits in a row of the large grid.
    guidance_scale : float
        Weight of classifier-free guidance.
    seed : int
        Of all noise.
    device : str
        "auto", "cpu", "cuda" ...
    solvers : tuple of str
        What is compared, all of them deterministic.
    nfe : tuple of int
        Budgets of model evaluations at which errors are measured.
    pictured : tuple of int
        Those of them that are drawn.
    reference_steps : int
        Steps of the reference solution.
    shapes : tuple
        Shapes at which updates are timed.
    timing_budget : float
        Seconds to spend on each shape.
    """

    out: Path = Path("demo")
    labels: tuple[int, ...] = tuple(range(10))
    per_label: int = 10
    guidance_scale: float = 2.0
    seed: int = 0
    device: str = "auto"
    solvers: tuple[str, ...] = ("ddim", "heun", "dpmpp_2s", "dpmpp_3s", "dpmpp_2m", "dpmpp_3m")
    nfe: tuple[int, ...] = (4, 6, 10, 20, 40, 80)
    pictured: tuple[int, ...] = (4, 6, 10, 20)
    reference_steps: int = 1000
    shapes: tuple[tuple[int, ...], ...] = timing.SHAPES
    timing_budget: float = 1.5


def run_demo(settings: DemoSettings) -> list[Path]:
    """Generate, compare, time and draw; prints tables and returns the pictures' paths.

    Parameters
    ----------
    settings : DemoSettings
        What to do.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If the device is not there.
    """
    require_matplotlib()
    start = time.perf_counter()
    device = pick_device(settings.device)
    settings.out.mkdir(parents=True, exist_ok=True)
    with one_thread(device):
        written = [*_digits(settings, device), *_times(settings, device)]
    print(f"\n{time.perf_counter() - start:.0f} s on {describe(device)}; pictures:")
    for path in written:
        print(f"  {path}")
    return written


def format_errors(curves: Sequence[ErrorCurve]) -> str:
    """Errors as a text table: a row a solver, a column a budget."""
    budgets = sorted({n for curve in curves for n in curve.nfe})
    width = max(len("solver"), *(len(curve.solver) for curve in curves))
    lines = [f"{'solver':<{width}}" + "".join(f"{f'{n} NFE':>10}" for n in budgets) + f"{'order':>8}"]
    for curve in curves:
        errors = dict(zip(curve.nfe, curve.error, strict=True))
        cells = "".join(f"{errors[n]:>10.2e}" if n in errors else f"{'-':>10}" for n in budgets)
        lines.append(f"{curve.solver:<{width}}{cells}{curve.order:>8.1f}")
    return "\n".join(lines)


def format_timings(timings: Sequence[timing.Timing]) -> str:
    """Times as a text table; the ratio is to the fused update at the same shape."""
    fused = {t.shape: t.seconds for t in reversed(timings)}  # the first of a shape wins
    lines = [f"{'shape':<20}{'update':<20}{'time':>12}{'ratio':>8}"]
    lines += [
        f"{list(t.shape)!s:<20}{t.name:<20}{timing.readable(t.seconds):>12}{t.seconds / fused[t.shape]:>8.2f}"
        for t in timings
    ]
    return "\n".join(lines)


def _digits(settings: DemoSettings, device: torch.device) -> list[Path]:
    """Draw the samples and measure the errors."""
    out, w = settings.out, settings.guidance_scale
    prompt = Prompt(settings.labels, settings.seed, w)
    rows = replace(prompt, labels=[label for label in settings.labels for _ in range(settings.per_label)])
    best = table_for_budget("dpmpp_3m", 30)
    exact = table_for_budget(REFERENCE_SOLVER, settings.reference_steps)
    total = len(best) + len(exact) + len(settings.solvers) * sum(settings.nfe)
    with tqdm(total=total, desc="sampling", unit="evaluation") as progress:
        digits = Digits(device, on_evaluation=progress.update)
        images = digits.draw(best, rows)
        reference = digits.draw(exact, prompt)
        comparison = compare(digits, reference, settings.solvers, settings.nfe, prompt)
        progress.update(total - progress.n)  # a budget need not be used up
    curves = [curve for curve, _ in comparison]
    against = f"a {settings.reference_steps}-step reference"
    print(f"\nError against {against}: root mean square over the pixels, which lie in [-1, 1]\n")
    print(format_errors(curves))

    samples, solvers, errors = out / "samples.png", out / "solvers.png", out / "error_vs_nfe.png"
    title = f"{best.name}, {len(best)} evaluations, guidance {w:g}, seed {settings.seed}"
    pictures.draw_samples(samples, images, settings.labels, f"Digits from the embedded model\n{title}")
    chosen = [settings.nfe.index(n) for n in settings.pictured]
    grid = [[drawn[j] for j in chosen] + [reference] for _, drawn in comparison]
    columns = [*(str(n) for n in settings.pictured), "reference"]
    pictures.draw_solvers(
        solvers, grid, settings.solvers, columns, "Same noise, same labels: what each solver makes of it"
    )
    pictures.draw_errors(errors, curves, against)
    return [samples, solvers, errors]


def _times(settings: DemoSettings, device: torch.device) -> list[Path]:
    """Time the updates and draw the bars."""
    with tqdm(total=len(settings.shapes), desc="timing", unit="shape") as progress:
        timings = timing.time_updates(device, settings.shapes, settings.timing_budget, progress.update)
    where = describe(device)
    print(f"\nOne update of DPM-Solver++(2M), float32, without the model, on {where}\n")
    print(format_timings(timings))
    if all(t.name != "diffusers" for t in timings):
        print("(diffusers is not installed: no comparison with its scheduler)")
    path = settings.out / "time_per_step.png"
    pictures.draw_timings(path, timings, f"One update of DPM-Solver++(2M), float32\n{where}")
    return [path]


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Keep PyTorch to one CPU thread: the network is too small to gain by more, and timings vary less."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def describe(device: torch.device) -> str:
    """Say on what the demo ran."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "one CPU thread"
