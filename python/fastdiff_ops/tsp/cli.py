"""The commands ``tsp solve``, ``generate``, ``heatmap``, ``compare`` and ``tune``."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdiff_ops.cli import UsageError, positive_number, seed_number
from fastdiff_ops.solvers.cli import positive_int

if TYPE_CHECKING:
    from fastdiff_ops.cli import Commands

__all__ = ["add_commands"]

_FILE = (
    "TSPLIB's format (needs tsplib95), or a line of `x1 y1 x2 y2 ...` for each instance; - is standard input"
)
_TSPLIB_GRID = 10**6


def add_commands(commands: Commands) -> None:
    """Add ``tsp`` and what is below it."""
    group = commands.group("tsp", "find short tours: solve, generate, heatmap, compare, tune")
    _add_solve(group)
    _add_generate(group)
    _add_heatmap(group)
    _add_compare(group)
    _add_tune(group)


def _add_solve(commands: Commands) -> None:
    parser = commands.add(
        "solve",
        _solve,
        "find a short tour through the cities of a file",
        [
            "tsp solve berlin52.tsp --time 1 --out berlin52.tour --plot berlin52.png",
            "tsp solve test.txt --heatmap heat.npz --method mcts --iterations 100000 --out tours.txt",
            "tsp solve - --opt 7542 --json",
        ],
    )
    parser.add_argument("file", type=Path, metavar="FILE", help=_FILE)
    limit = parser.add_argument_group("limits, of all instances together")
    limit.add_argument(
        "--time",
        type=positive_number,
        metavar="S",
        help="seconds (default: a millisecond for each city, at most ten seconds)",
    )
    limit.add_argument(
        "--iterations",
        type=positive_int,
        metavar="N",
        help="kicks or actions of each trajectory; alone, the same tour every time",
    )
    parser.add_argument(
        "--heatmap",
        type=Path,
        metavar="FILE",
        help="likely edges: .npy dense, .npz (see `tsp heatmap`; scipy's CSR; edge_index), else text",
    )
    parser.add_argument(
        "--method", choices=("ils", "mcts", "greedy"), default="ils", help="default %(default)s"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings of the method, of `tsp tune`")
    parser.add_argument(
        "--trajectories", type=positive_int, default=1, metavar="P", help="searches of each instance"
    )
    parser.add_argument("--threads", type=positive_int, metavar="T", help="default: as many as torch has")
    parser.add_argument("--seed", type=seed_number, default=0, help="default %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default %(default)s)")
    parser.add_argument(
        "--opt",
        type=_optimum,
        default="auto",
        metavar="LENGTH|auto",
        help="the optimum, at which the search ends; auto looks TSPLIB's up by name (default)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="TSPLIB's .tour, or .txt with coordinates")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the tour (needs matplotlib)")
    parser.add_argument("--curve", type=Path, metavar="FILE", help="draw the length over the time")
    parser.add_argument(
        "--json", action="store_true", help="print JSON; with the tours unless --out takes them"
    )


def _add_generate(commands: Commands) -> None:
    from .generate import KINDS

    parser = commands.add(
        "generate",
        _generate,
        "write random instances, with tours if wanted",
        [
            "tsp generate --n 500 --count 16 --out test.txt",
            "tsp generate --n 100 --count 128 --time 20 --out train.txt",
            "tsp generate --n 1000 --kind clustered --out c1000.tsp",
        ],
    )
    parser.add_argument(
        "--n", type=positive_int, default=500, metavar="N", help="cities (default %(default)s)"
    )
    parser.add_argument("--count", type=positive_int, default=1, help="instances (default %(default)s)")
    parser.add_argument("--kind", choices=KINDS, default="uniform", help="default %(default)s")
    parser.add_argument(
        "--seed",
        type=seed_number,
        default=1234,
        help="equal seeds give equal instances (default %(default)s)",
    )
    parser.add_argument(
        "--time",
        type=positive_number,
        metavar="S",
        help="also find tours, in so many seconds for all of them",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("-"),
        metavar="FILE",
        help=".tsp for one instance, on a grid of a millionth; else text (default: standard output)",
    )


def _add_heatmap(commands: Commands) -> None:
    parser = commands.add(
        "heatmap",
        _heatmap,
        "write a heatmap that needs no model",
        [
            "tsp heatmap berlin52.tsp --kind knn --out heat.npz",
            "tsp heatmap test.txt --kind softdist --out heat.npz",
        ],
    )
    parser.add_argument("file", type=Path, metavar="FILE", help=_FILE)
    parser.add_argument(
        "--kind",
        choices=("knn", "softdist"),
        default="knn",
        help="prior by rank, or by distance (default knn)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".npz")


def _add_compare(commands: Commands) -> None:
    parser = commands.add(
        "compare",
        _compare,
        "let our searches and the installed ones of others race, at equal processor time",
        [
            "tsp compare --n 200 500 --count 4 --time 0.05 0.5",
            "tsp compare test.txt --solvers ils LKH --out race",
        ],
    )
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="default: generated instances")
    parser.add_argument("--n", type=positive_int, nargs="+", default=[200], help="cities (default 200)")
    parser.add_argument(
        "--count", type=positive_int, default=4, help="instances of each (default %(default)s)"
    )
    parser.add_argument(
        "--time",
        type=positive_number,
        nargs="+",
        default=[0.05, 0.5],
        metavar="S",
        help="budgets (default 0.05 0.5)",
    )
    parser.add_argument("--solvers", nargs="+", metavar="NAME", help="default: all that are installed")
    parser.add_argument("--seed", type=seed_number, default=0, help="of the solvers (default %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("tsp-compare"), metavar="FOLDER", help="default %(default)s"
    )


def _add_tune(commands: Commands) -> None:
    parser = commands.add(
        "tune",
        _tune,
        "search settings of a method for one size and time (needs optuna)",
        [
            "tsp tune --n 500 --time 5 --method mcts --out mcts500.json",
            "tsp tune --n 1000 --time 1 --method ils --trials 100 --out ils1000.json",
        ],
    )
    parser.add_argument(
        "--n", type=positive_int, default=500, metavar="N", help="cities (default %(default)s)"
    )
    parser.add_argument(
        "--instances", type=positive_int, default=16, help="to train on (default %(default)s)"
    )
    parser.add_argument(
        "--held-out", type=positive_int, default=16, help="to report on (default %(default)s)"
    )
    parser.add_argument("--method", choices=("mcts", "ils"), default="mcts", help="default %(default)s")
    parser.add_argument(
        "--heatmap", choices=("knn", "softdist", "zero"), default="knn", help="default %(default)s"
    )
    parser.add_argument("--time", type=positive_number, metavar="S", help="of each run (default 0.01 * N)")
    parser.add_argument(
        "--trials", type=positive_int, default=50, help="settings to try (default %(default)s)"
    )
    parser.add_argument("--seed", type=seed_number, default=0, help="default %(default)s")
    parser.add_argument(
        "--out", type=Path, default=Path("tuned.json"), metavar="FILE", help="default %(default)s"
    )


def _solve(args: argparse.Namespace) -> None:
    from .solve_command import run_solve

    run_solve(args)


def _generate(args: argparse.Namespace) -> None:
    import numpy as np

    from .generate import generate
    from .text_format import TextInstance, write_text
    from .tsplib import TSPInstance, write_tsplib

    points = generate(args.n, args.count, kind=args.kind, seed=args.seed)
    if args.out.suffix == ".tsp":
        if args.count > 1 or args.time is not None:
            raise UsageError(f"--out {args.out}: such a file holds one instance and no tour; write .txt")
        comment = f"{args.kind}, seed {args.seed}"
        instance = TSPInstance(args.out.stem, np.rint(points[0] * _TSPLIB_GRID), comment=comment)
        write_tsplib(args.out, instance)
        return
    tours: Any = [None] * args.count
    interrupted = False
    if args.time is not None:
        from .solve import solve

        found = solve(points, time_limit=args.time, seed=args.seed, progress=sys.stderr.isatty())
        tours, interrupted = found.tours.numpy(), found.stats.interrupted
    lines = (TextInstance(xy, tour) for xy, tour in zip(points, tours, strict=True))
    write_text(sys.stdout if str(args.out) == "-" else args.out, lines)
    if interrupted:
        raise KeyboardInterrupt


def _heatmap(args: argparse.Namespace) -> None:
    import numpy as np

    from .files import read_problems, save_heatmap
    from .heatmaps import Heatmap

    try:
        problems = [problem.arguments() for problem in read_problems(args.file)]
        places = "dist" if problems[0]["coords"] is None else "coords"
        if len({len(problem[places]) for problem in problems}) > 1:
            raise ValueError("the instances differ in size: write one file for each")
        cities = np.stack([problem[places] for problem in problems])
        metric = problems[0].get("metric", "euclidean")
        where: dict[str, Any] = {places: cities, "metric": metric}
        heat = Heatmap.from_any(args.kind, **where)
    except (ValueError, TypeError, OSError, NotImplementedError) as error:
        raise UsageError(str(error)) from error
    alone = 0 if len(problems) == 1 else slice(None)
    with args.out.open("wb") as file:  # savez would add .npz to other names
        save_heatmap(file, heat.ids[alone], heat.weights[alone])
    print(f"wrote {args.out}: {heat.ids.shape[-1]} neighbours of each of {heat.ids.shape[1]} cities")


def _compare(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from fastdiff_ops._environment import require_matplotlib

    from .compare import compare
    from .files import read_problems
    from .generate import generate
    from .peers import SOLVERS
    from .pictures import draw_curves

    require_matplotlib()
    for name in args.solvers or ():
        if name not in SOLVERS:
            raise UsageError(f"--solvers {name}: known are {', '.join(SOLVERS)}")
    instances: list[Any]
    known: list[float | None] | None = None
    if args.file is None:
        instances = [points for n in args.n for points in generate(n, args.count)]
    else:
        try:
            problems = read_problems(args.file)
        except (ValueError, OSError, NotImplementedError) as error:
            raise UsageError(str(error)) from error
        if any(problem.instance.metric not in ("euclidean", "euc_2d") for problem in problems):
            raise UsageError("solvers are compared on Euclidean instances only")
        instances = [problem.instance.coords for problem in problems]
        known = [
            None if problem.tour is None else problem.instance.tour_length(problem.tour)
            for problem in problems
        ]
    args.out.mkdir(parents=True, exist_ok=True)
    with tqdm(unit="run", disable=None) as progress:
        found = compare(
            instances,
            args.time,
            solvers=args.solvers,
            known=known,
            seed=args.seed,
            on_run=lambda run: progress.update() and progress.set_postfix_str(run.solver),
        )
    print(found.table())
    print(f"\nBudgets are {found.clock}; gaps are against the best of all runs.")
    for name, why in found.left_out.items():
        print(f"{name} did not run: {why}")
    (args.out / "compare.json").write_text(json.dumps(found.as_dict()), encoding="utf-8")
    (args.out / "compare.md").write_text(found.table() + "\n", encoding="utf-8")
    written = ["compare.json", "compare.md"]
    for n in sorted(set(found.sizes)):
        draw_curves(
            args.out / f"gap-{n}.png",
            found.curves(n),
            xlabel="processor seconds",
            ylabel="gap, %",
            title=f"{n} cities, mean of {found.sizes.count(n)} instances",
            log=True,
            floor=1e-3,
            steps=False,
        )
        written.append(f"gap-{n}.png")
    print(f"wrote {args.out}/: {', '.join(written)}")


def _tune(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from tqdm import tqdm

    from .generate import generate
    from .tune import evaluate, tune

    points = generate(args.n, args.instances + args.held_out, seed=args.seed + 1)
    seconds = args.time or 0.01 * args.n
    common = {"heatmap": args.heatmap, "method": args.method, "time_limit": seconds, "seed": args.seed}
    with tqdm(total=args.trials, unit="trial", disable=None) as progress:
        config, study = tune(
            points[: args.instances], n_trials=args.trials, on_trial=lambda _: progress.update(), **common
        )
    args.out.write_text(json.dumps(asdict(config), indent=2) + "\n", encoding="utf-8")
    default, tuned = (evaluate(points[args.instances :], config=c, **common) for c in (None, config))
    change = [100 * (b / a - 1) for a, b in zip(default, tuned, strict=True)]
    mean = sum(change) / len(change)
    error = math.sqrt(sum((c - mean) ** 2 for c in change) / max(1, len(change) - 1) / len(change))
    print(
        f"trained on {args.instances} instances: mean length {study.trials[0].value:.6g} by default, "
        f"{study.best_value:.6g} tuned"
    )
    print(
        f"held out, {args.held_out}: tuned is {mean:+.3f} % of the default's length, "
        f"standard error {error:.3f}"
    )
    print(f"wrote {args.out}: {config}")


def _optimum(text: str) -> float | str:
    return text if text == "auto" else positive_number(text)
