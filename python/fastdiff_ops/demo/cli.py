"""The commands ``demo``, ``sample`` and ``masked-demo``, which run the embedded models."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdiff_ops.cli import UsageError
from fastdiff_ops.solvers.cli import add_table_options, positive_int, table_from_options

if TYPE_CHECKING:
    from torch import Tensor

    from fastdiff_ops.cli import Commands

__all__ = ["add_commands"]

FORMATS = (".png", ".npz", ".safetensors")


def add_commands(commands: Commands) -> None:
    """Add ``demo``, ``sample`` and ``masked-demo``."""
    demo = commands.add(
        "demo",
        _demo,
        "generate digits and words, fit fields; measure errors and times, draw pictures",
        ["demo", "demo --label 7 --guidance-scale 3 --out seven", "demo --device cpu --seed 1"],
    )
    _add_out_folder(demo)
    demo.add_argument("--label", type=_digit, metavar="K", help="draw this digit only (default: all ten)")
    _add_guidance(demo)
    _add_common(demo)

    sample = commands.add(
        "sample",
        _sample,
        "draw digits from the embedded model",
        [
            "sample --label 3 --n 20 --out threes.png",
            "sample --solver dpmpp_3m --steps 12 --spacing logSNR --out digits.npz",
            "sample --solver ddim --option eta=1 --steps 100 --out ancestral.png",
            "sample --table table.json --out digits.safetensors",
        ],
    )
    sample.add_argument(
        "--out",
        type=_out_file,
        default=Path("digits.png"),
        metavar="FILE",
        help="picture (.png), or arrays `images` and `labels` (.npz, .safetensors) (default %(default)s)",
    )
    sample.add_argument("--n", type=positive_int, default=40, help="number of digits (default %(default)s)")
    sample.add_argument("--label", type=_digit, metavar="K", help="digit to draw (default: 0 to 9 in turn)")
    add_table_options(sample, steps=20)
    _add_guidance(sample)
    _add_common(sample)

    words = commands.add(
        "masked-demo",
        _masked_demo,
        "generate and complete words by masked diffusion, compare samplers, show what low precision does",
        [
            "masked-demo",
            "masked-demo --infill s__ng --infill un*",
            "masked-demo --num-words 500 --temperature 0.7 --seed 1 --out words",
        ],
    )
    _add_out_folder(words)
    words.add_argument(
        "--infill",
        action="append",
        metavar="PATTERN",
        help="complete a word of up to 12 letters: underscores are letters to be found, a star at the end is "
        "any ending; may be repeated (default: some examples)",
    )
    words.add_argument(
        "--num-words",
        type=positive_int,
        metavar="N",
        help="words by each sampler, and completions of each pattern (default 200)",
    )
    words.add_argument(
        "--temperature",
        type=_temperature,
        metavar="T",
        help="of the words: below 1 prefers likely letters, 0 takes the likeliest only (default 1)",
    )
    _add_common(words)


def _add_out_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo"),
        metavar="DIR",
        help="where the pictures go (default %(default)s)",
    )


def _add_guidance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--guidance-scale", type=float, default=2.0, metavar="W",
        help="classifier-free guidance of the digits; 1 is none (default %(default)s)",
    )  # fmt: skip


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=int, default=0, help="equal seeds give equal samples (default %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default %(default)s)")


def _demo(args: argparse.Namespace) -> None:
    from .fields_report import FieldsSettings, run_fields_demo
    from .report import DemoSettings, run_demo
    from .words_report import WordsSettings, run_words_demo

    labels = range(10) if args.label is None else [args.label] * 10
    settings = DemoSettings(
        out=args.out,
        labels=tuple(labels),
        guidance_scale=args.guidance_scale,
        seed=args.seed,
        device=args.device,
    )
    run_demo(settings)
    run_words_demo(WordsSettings(out=args.out, seed=args.seed, device=args.device))
    run_fields_demo(FieldsSettings(out=args.out, seed=args.seed, device=args.device))


def _masked_demo(args: argparse.Namespace) -> None:
    from .words import parse_pattern
    from .words_report import WordsSettings, run_words_demo

    for pattern in args.infill or ():
        try:
            parse_pattern(pattern)
        except ValueError as error:
            raise UsageError(f"--infill: {error}") from error
    given: dict[str, Any] = {
        "patterns": tuple(args.infill) if args.infill else None,
        "num_words": args.num_words,
        "temperature": args.temperature,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    run_words_demo(WordsSettings(out=args.out, seed=args.seed, device=args.device, **chosen))


def _sample(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from fastdiff_ops._environment import pick_device

    from .digits import Digits, Prompt
    from .weights import SCHEDULE

    table = table_from_options(args, SCHEDULE)
    labels = [i % 10 if args.label is None else args.label for i in range(args.n)]
    with tqdm(total=len(table), desc=table.name, unit="evaluation") as progress:
        digits = Digits(pick_device(args.device), on_evaluation=progress.update)
        images = digits.draw(table, Prompt(labels, args.seed, args.guidance_scale)).cpu()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    _write(args.out, images, labels)
    print(f"wrote {args.out}: {len(images)} digits, {len(table)} evaluations of {table.name}")


def _write(path: Path, images: Tensor, labels: list[int]) -> None:
    import numpy as np
    import torch

    if path.suffix == ".png":
        from .pictures import mosaic, write_png

        write_png(path, mosaic(images, columns=min(10, len(images))))
    elif path.suffix == ".npz":
        np.savez_compressed(path, images=images.numpy(), labels=np.array(labels))
    else:
        from safetensors.torch import save_file

        save_file({"images": images.contiguous(), "labels": torch.tensor(labels)}, path)


def _digit(text: str) -> int:
    if text not in tuple("0123456789"):
        raise argparse.ArgumentTypeError(f"expected a digit from 0 to 9, got {text!r}")
    return int(text)


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number >= 0, got {text!r}")
    return value


def _out_file(text: str) -> Path:
    path = Path(text)
    if path.suffix not in FORMATS:
        raise argparse.ArgumentTypeError(f"expected a file ending in {', '.join(FORMATS)}, got {text!r}")
    return path
