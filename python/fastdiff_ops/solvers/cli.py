"""The command ``plan``, and the options that other commands share with it to choose a solver table."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdiff_ops.cli import UsageError

if TYPE_CHECKING:
    from fastdiff_ops.cli import Commands
    from fastdiff_ops.schedules import NoiseSchedule

    from .table import SolverTable

__all__ = ["add_commands", "add_table_options", "table_from_options"]


def add_commands(commands: Commands) -> None:
    """Add ``plan``."""
    parser = commands.add(
        "plan",
        _plan,
        "print, plot or export the coefficients of a sampling run",
        [
            "plan --solver dpmpp_2m --steps 8 --schedule vp_linear --spacing logSNR --prediction-type eps",
            "plan --solver heun --steps 10 --schedule edm --spacing karras:rho=7 --plot plan.png",
            "plan --solver euler --steps 4 --schedule flow:shift=3 --export table.json",
            "plan --table table.json",
        ],
    )
    add_table_options(parser, steps=10)
    parser.add_argument(
        "--schedule",
        type=_schedule,
        metavar="NAME[:KEY=VALUE,...]",
        help="noise schedule: vp_linear, vp_cosine, edm, ve, flow, or discrete:beta=linear|scaled_linear|"
        "squaredcos_cap_v2 (default vp_cosine)",
    )
    parser.add_argument(
        "--prediction-type",
        metavar="TYPE",
        help="what the model predicts: eps, x0, v, score, velocity or edm",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the coefficients (needs matplotlib)")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write the table as JSON")


def add_table_options(parser: argparse.ArgumentParser, *, steps: int) -> None:
    """Add the options from which :func:`table_from_options` makes a table; the schedule is not among them."""
    parser.set_defaults(default_steps=steps)  # not of the option: it must be seen whether that was given
    group = parser.add_argument_group("solver")
    group.add_argument("--solver", type=_solver_name, metavar="NAME", help="solver (default dpmpp_2m)")
    group.add_argument(
        "--steps",
        type=_steps,
        metavar="N",
        help=f"intervals of the time grid (default {steps})",
    )
    group.add_argument(
        "--spacing",
        metavar="NAME[:KEY=VALUE,...]",
        type=_name_and_options,
        help="how the times lie: time_uniform, time_quadratic, logSNR, karras, polyexponential, flow, beta "
        "(default: what suits the schedule)",
    )
    group.add_argument(
        "--family",
        metavar="NAME",
        help="whose spacing: native, or diffusers' ddim, dpm or euler (default native)",
    )
    group.add_argument(
        "--final-sigma",
        choices=("zero", "sigma_min"),
        help="end at clean data, or at the schedule's last noise level",
    )
    group.add_argument(
        "--option",
        action="append",
        default=[],
        type=_key_and_value,
        metavar="KEY=VALUE",
        help="option of the solver, such as eta=0.5; may be repeated",
    )
    group.add_argument("--table", type=Path, metavar="FILE", help="read the whole table from JSON instead")


def table_from_options(args: argparse.Namespace, schedule: NoiseSchedule) -> SolverTable:
    """Make the table that the options of :func:`add_table_options` describe.

    Raises
    ------
    UsageError
        If the library refuses the options, or they choose what the table's file already says.
    OSError, ValueError
        If the table's file cannot be read or holds no table.
    """
    from . import make_table
    from .start import default_timesteps
    from .table import SolverTable

    if args.table is not None:
        for name in ("solver", "steps", "spacing", "family", "final_sigma", "option"):
            if getattr(args, name):
                raise UsageError(f"--{name.replace('_', '-')} has no effect with --table")
        return SolverTable.from_json(args.table.read_text(encoding="utf-8"))
    from fastdiff_ops.schedules import timesteps

    steps = args.steps or args.default_steps
    try:
        if args.spacing is None:
            if args.family is not None or args.final_sigma is not None:
                raise UsageError("--family and --final-sigma go with --spacing")
            ts = default_timesteps(schedule, steps, None)
        else:
            name, options = args.spacing
            family = args.family or "native"
            ts = timesteps(schedule, steps, name, family, final_sigma=args.final_sigma, **options)
        return make_table(args.solver or "dpmpp_2m", schedule, ts, **dict(args.option))
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def positive_int(text: str) -> int:
    """Parse a positive int, for argparse."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return value


def _steps(text: str) -> int:
    from .validation import MAX_EVALUATIONS

    if (value := positive_int(text)) > MAX_EVALUATIONS:
        raise argparse.ArgumentTypeError(f"expected at most {MAX_EVALUATIONS}, got {text!r}")
    return value


def _plan(args: argparse.Namespace) -> None:
    if args.table is not None and args.schedule is not None:
        raise UsageError("--schedule has no effect with --table")
    table = table_from_options(args, args.schedule or _schedule("vp_cosine"))
    if args.prediction_type is not None:
        try:
            table = table.bind(args.prediction_type)
        except ValueError as error:
            raise UsageError(str(error)) from error
    print(table)
    if args.export is not None:
        args.export.write_text(table.to_json(), encoding="utf-8")
        print(f"wrote {args.export}")
    if args.plot is not None:
        table.plot().savefig(args.plot, dpi=130)
        print(f"wrote {args.plot}")


def _solver_name(text: str) -> str:
    from . import solver_names

    if text not in solver_names():
        raise argparse.ArgumentTypeError(f"unknown solver {text!r}; known are {', '.join(solver_names())}")
    return text


def _key_and_value(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value  # a word


def _name_and_options(text: str) -> tuple[str, dict[str, Any]]:
    name, _, options = text.partition(":")
    return name, dict(_key_and_value(option) for option in options.split(",") if option)


def _schedule(text: str) -> NoiseSchedule:
    from fastdiff_ops.schedules import Discrete, NoiseSchedule

    name, options = _name_and_options(text)
    try:
        if name == "discrete":
            return Discrete.from_table(options.pop("beta", "linear"), **options)
        return NoiseSchedule.from_dict({"kind": name, **options})
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
