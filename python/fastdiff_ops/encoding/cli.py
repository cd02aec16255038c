"""The commands ``fit-image``, ``fit-sdf`` and ``fit-nerf``, which fit fields of encodings."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdiff_ops.cli import positive_number, seed_number
from fastdiff_ops.solvers.cli import positive_int

if TYPE_CHECKING:
    from fastdiff_ops.cli import Commands

    from .fit_image import ImageFit
    from .fit_nerf import NerfFit
    from .fit_sdf import SdfFit

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Add ``fit-image``, ``fit-sdf`` and ``fit-nerf``."""
    image = commands.add(
        "fit-image",
        _fit_image,
        "fit a field to a picture, and draw what became of it",
        [
            "fit-image",
            "fit-image photo.jpg --seconds 30 --log2-hashmap-size 16",
            "fit-image china --encoding grid --steps 2000 --out china",
        ],
    )
    image.add_argument(
        "picture",
        nargs="?",
        default="procedural",
        metavar="PICTURE",
        help="file that Pillow reads; `procedural` is drawn by formulas, `china` comes with scikit-learn "
        "(default %(default)s)",
    )
    _add_common(image, steps=1000, levels=12, table=13, out="fit-image")

    sdf = commands.add(
        "fit-sdf",
        _fit_sdf,
        "fit a field to a signed distance, and draw its surface",
        ["fit-sdf", "fit-sdf gyroid --steps 2000 --out gyroid", "fit-sdf bunny.ply --seconds 60"],
    )
    sdf.add_argument(
        "shape",
        type=_shape,
        nargs="?",
        default="torus",
        metavar="SHAPE|MESH",
        help="torus, gyroid, sphere, or the file of a closed triangle mesh (needs trimesh) "
        "(default %(default)s)",
    )
    _add_common(sdf, steps=500, levels=8, table=15, out="fit-sdf")

    nerf = commands.add(
        "fit-nerf",
        _fit_nerf,
        "fit a radiance field to pictures of a scene, and draw it from elsewhere",
        ["fit-nerf", "fit-nerf --encoding grid --steps 2000 --out spheres"],
    )
    _add_common(nerf, steps=500, levels=8, table=14, out="fit-nerf")


def _add_common(parser: argparse.ArgumentParser, *, steps: int, levels: int, table: int, out: str) -> None:
    parser.add_argument(
        "--encoding",
        choices=("simplex", "grid"),
        default="simplex",
        help="simplices or cubes (default %(default)s)",
    )
    parser.add_argument(
        "--steps", type=positive_int, default=steps, metavar="N", help="of training (default %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=positive_number, metavar="S", help="end sooner, after so much time of training"
    )
    parser.add_argument(
        "--levels",
        type=partial(_int_to, 32),
        default=levels,
        metavar="L",
        help="resolutions, 1 to 32 (default %(default)s)",
    )
    parser.add_argument(
        "--log2-hashmap-size",
        type=partial(_int_to, 28),
        default=table,
        metavar="T",
        help="largest number of entries of a level, as a power of two, 1 to 28 (default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=seed_number, default=0, help="equal seeds give equal fields (default %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(out),
        metavar="FOLDER",
        help="where the results go (default %(default)s)",
    )


def _fit_image(args: argparse.Namespace) -> None:
    from fastdiff_ops._environment import pick_device

    from .fit_image import fit_image
    from .pictures import read_picture

    _prepare(args)
    picture = read_picture(args.picture).to(pick_device(args.device))

    def fit(on_step: Callable[[ImageFit, int], None]) -> ImageFit:
        return fit_image(picture, **_options(args), on_step=on_step)

    _run(args, fit, lambda f: f"{f.curve[-1].psnr:.2f} dB", _write_image_fit)


def _fit_sdf(args: argparse.Namespace) -> None:
    from fastdiff_ops._environment import pick_device

    from .fit_sdf import find_shape, fit_sdf

    _prepare(args)
    device = pick_device(args.device)
    shape = find_shape(args.shape)

    def fit(on_step: Callable[[SdfFit, int], None]) -> SdfFit:
        return fit_sdf(shape, **_options(args), device=device, on_step=on_step)

    _run(args, fit, lambda f: f"normals {f.curve[-1].degrees:.1f}°", _write_sdf_fit)


def _fit_nerf(args: argparse.Namespace) -> None:
    from fastdiff_ops._environment import pick_device

    from .fit_nerf import fit_nerf

    _prepare(args)
    device = pick_device(args.device)

    def fit(on_step: Callable[[NerfFit, int], None]) -> NerfFit:
        return fit_nerf(**_options(args), device=device, on_step=on_step)

    _run(args, fit, lambda f: f"{f.curve[-1].psnr:.2f} dB", _write_nerf_fit)


def _prepare(args: argparse.Namespace) -> None:
    """Fail before the training, not after it."""
    from fastdiff_ops._environment import require_matplotlib, require_pillow

    require_pillow()
    require_matplotlib()
    args.out.mkdir(parents=True, exist_ok=True)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "encoding": args.encoding,
        "steps": args.steps,
        "seconds": args.seconds,
        "n_levels": args.levels,
        "log2_hashmap_size": args.log2_hashmap_size,
        "seed": args.seed,
    }


def _run(
    args: argparse.Namespace,
    fit: Callable[[Callable[[Any, int], None]], Any],
    quality: Callable[[Any], str],
    write: Callable[[Path, Any], None],
) -> None:
    """Train with a progress bar; write what is there even after an interruption."""
    from tqdm import tqdm

    latest: list[Any] = []
    interruption: KeyboardInterrupt | None = None
    with tqdm(total=args.steps, desc=args.encoding, unit="step") as progress:

        def on_step(state: Any, _: int) -> None:
            latest[:] = [state]
            progress.set_postfix_str(quality(state), refresh=False)
            progress.update()

        try:
            fit(on_step)
        except KeyboardInterrupt as error:
            interruption = error
    if latest:
        write(args.out, latest[0])
    if interruption is not None:
        raise interruption


def _write_image_fit(out: Path, fit: ImageFit) -> None:
    from .fitting import save_field
    from .pictures import draw_image_fit, write_picture

    rounded = fit.half_precision()
    write_picture(out / "fitted.png", rounded.render())
    draw_image_fit(out / "report.png", fit)
    save_field(fit.field, out / "field.safetensors")
    _write_curve(out / "curve.csv", fit.curve)
    height, width, channels = fit.picture.shape
    pixels, size = height * width, fit.half_precision_bytes
    print(f"{width} x {height} pixels, {fit.steps} steps in {fit.seconds:.1f} s: {fit.psnr():.2f} dB")
    ratio = f"{8 * size / pixels:.2f} bits a pixel, 1 : {channels * pixels / size:.1f}"
    print(f"in float16: {size} bytes, {ratio}, {rounded.psnr():.2f} dB")
    print(f"wrote {out}/: fitted.png, report.png, field.safetensors, curve.csv")


def _write_sdf_fit(out: Path, fit: SdfFit) -> None:
    from .fitting import save_field
    from .pictures import draw_sdf_fit

    draw_sdf_fit(out / "report.png", fit)
    save_field(fit.field, out / "field.safetensors")
    _write_curve(out / "curve.csv", fit.curve)
    print(f"{fit.shape.name}: {fit.steps} steps in {fit.seconds:.1f} s")
    print(
        f"mean error of the distance {fit.distance_error():.5f}, of normals {fit.normal_error():.2f} degrees"
    )
    print(f"wrote {out}/: report.png, field.safetensors, curve.csv")


def _write_nerf_fit(out: Path, fit: NerfFit) -> None:
    from .fitting import save_field
    from .pictures import draw_nerf_fit

    draw_nerf_fit(out / "report.png", fit)
    save_field(fit.field, out / "field.safetensors")
    _write_curve(out / "curve.csv", fit.curve)
    print(f"{fit.steps} steps in {fit.seconds:.1f} s: {fit.psnr():.2f} dB of views that were held out")
    print(f"wrote {out}/: report.png, field.safetensors, curve.csv")


def _write_curve(path: Path, curve: list[Any]) -> None:
    rows = [",".join(curve[0]._fields), *(",".join(f"{value:.7g}" for value in row) for row in curve)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _int_to(most: int, text: str) -> int:
    if (value := positive_int(text)) > most:
        raise argparse.ArgumentTypeError(f"expected at most {most}, got {text!r}")
    return value


def _shape(text: str) -> str:
    from .shapes import SHAPES

    if not (text in SHAPES or Path(text).suffix or Path(text).exists()):
        known = ", ".join(SHAPES)
        raise argparse.ArgumentTypeError(f"unknown shape {text!r}; known are {known} and files of meshes")
    return text
