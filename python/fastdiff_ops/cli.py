"""The command line: ``fastdiff-ops COMMAND``, the same as ``python -m fastdiff_ops COMMAND``.

A family of features adds its commands in a module of its own, named in `FAMILIES`; the module has a function
``add_commands(commands: Commands) -> None`` that calls :meth:`Commands.add`. Such a module imports what only
one command needs inside the function that runs it, so that the others start without it.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    _SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["Commands", "UsageError", "main", "positive_number", "seed_number"]

FAMILIES = (
    "fastdiff_ops.demo.cli",
    "fastdiff_ops.encoding.cli",
    "fastdiff_ops.solvers.cli",
    "fastdiff_ops.tsp.cli",
    "fastdiff_ops.cli",
)

EXIT_OK, EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 128 + signal.SIGINT


class UsageError(Exception):
    """The command line makes no sense; ends the program with exit code 2."""


class Commands:
    """The commands of the program, to which families add theirs."""

    def __init__(self, subparsers: _SubParsers) -> None:
        self._subparsers = subparsers

    def add(
        self, name: str, run: Callable[[argparse.Namespace], None], summary: str, examples: Sequence[str] = ()
    ) -> argparse.ArgumentParser:
        """Add a command.

        Parameters
        ----------
        name : str
            What the user types.
        run : callable
            Gets the parsed arguments. What it raises becomes one line on standard error and the exit code: 2
            for `UsageError`, 1 for every other expected exception.
        summary : str
            One sentence for the list of commands; also the first paragraph of the command's help.
        examples : sequence of str
            Command lines without the program's name, shown at the end of the command's help.

        Returns
        -------
        argparse.ArgumentParser
            To which the family adds the command's options.
        """
        epilog = (
            "\n".join(["examples:", *(f"  fastdiff-ops {line}" for line in examples)]) if examples else None
        )
        parser = self._subparsers.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(run=run)
        return parser

    def group(self, name: str, summary: str) -> Commands:
        """Add a word that stands before commands, as in ``tsp solve``; return what to add these to."""
        parser = self._subparsers.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + "."
        )
        return Commands(parser.add_subparsers(metavar="COMMAND", required=True))


def positive_number(text: str) -> float:
    """Parse a number above zero, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number > 0, got {text!r}")
    return value


def seed_number(text: str) -> int:
    """Parse a seed, for argparse."""
    if not text.isdecimal() or int(text) >= 1 << 63:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to 2^63 - 1, got {text!r}")
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with the commands of all families."""
    parser = argparse.ArgumentParser(
        prog="fastdiff-ops",
        description="Fast sampling from diffusion and flow models.",
        epilog="`fastdiff-ops COMMAND --help` explains a command. "
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"fastdiff_ops {__version__}")
    commands = Commands(parser.add_subparsers(metavar="COMMAND", required=True))
    for family in FAMILIES:
        importlib.import_module(family).add_commands(commands)
    return parser


def add_commands(commands: Commands) -> None:
    """Add the command that belongs to no family."""
    parser = commands.add(
        "info", _info, "show versions, the build and the devices", ["info", "info --json > versions.json"]
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _info(args: argparse.Namespace) -> None:
    from .show_versions import show_versions, versions

    if args.json:
        import json

        print(json.dumps(versions(), indent=2))
    else:
        show_versions()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; None takes those of the process.

    Returns
    -------
    int
        The exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.

    Examples
    --------
    >>> main(["--version"])  # doctest: +ELLIPSIS
    fastdiff_ops ...
    0
    """
    try:
        args = build_parser().parse_args(argv)
        args.run(args)
        sys.stdout.flush()
    except SystemExit as error:  # argparse: 0 after --help, 2 after a usage message
        return error.code if isinstance(error.code, int) else EXIT_FAILURE
    except KeyboardInterrupt:
        print("fastdiff-ops: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (
        BrokenPipeError
    ):  # the reader, such as `head`, has gone; a further write would only complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except UsageError as error:
        print(f"fastdiff-ops: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, NotImplementedError) as error:
        if os.environ.get("FASTDIFF_OPS_TRACEBACK"):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"fastdiff-ops: {message}", file=sys.stderr)
        return EXIT_FAILURE
    return EXIT_OK
