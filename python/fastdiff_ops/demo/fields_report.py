"""The demo of the encodings: a picture, a surface and a radiance field, each fitted in a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fastdiff_ops._environment import pick_device, require_matplotlib
from fastdiff_ops.demo.report import describe, one_thread
from fastdiff_ops.encoding.fit_image import fit_image
from fastdiff_ops.encoding.fit_nerf import fit_nerf
from fastdiff_ops.encoding.fit_sdf import fit_sdf
from fastdiff_ops.encoding.pictures import draw_image_fit, draw_nerf_fit, draw_sdf_fit, read_picture

__all__ = ["FieldsSettings", "run_fields_demo"]


@dataclass(frozen=True)
class FieldsSettings:
    """What the demo of the encodings does; the defaults take about 10 seconds on one core.

    Attributes
    ----------
    out : Path
        Folder of the pictures; made if need be.
    image_steps, sdf_steps, nerf_steps : int
        Of training.
    seed : int
        Of everything.
    device : str
        "auto", "cpu", "cuda" ...: where fields are trained.
    """

    out: Path = Path("demo")
    image_steps: int = 200
    sdf_steps: int = 120
    nerf_steps: int = 200
    seed: int = 0
    device: str = "auto"


def run_fields_demo(settings: FieldsSettings) -> list[Path]:
    """Fit and draw; prints what was reached and returns the pictures' paths.

    Parameters
    ----------
    settings : FieldsSettings
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
    out = settings.out
    out.mkdir(parents=True, exist_ok=True)
    written = [out / f"field-{name}.png" for name in ("image", "surface", "radiance")]
    total = settings.image_steps + settings.sdf_steps + settings.nerf_steps
    with one_thread(device), tqdm(total=total, desc="fitting fields", unit="step") as progress:

        def fit(kind: Callable[..., Any], *args: Any, steps: int, **options: Any) -> Any:
            return kind(
                *args, steps=steps, seed=settings.seed, on_step=lambda *_: progress.update(), **options
            )

        picture = read_picture("procedural").to(device)
        image = fit(fit_image, picture, steps=settings.image_steps, n_levels=12, log2_hashmap_size=13)
        surface = fit(fit_sdf, "torus", steps=settings.sdf_steps, device=device)
        radiance = fit(fit_nerf, steps=settings.nerf_steps, device=device)
    draw_image_fit(written[0], image)
    draw_sdf_fit(written[1], surface)
    draw_nerf_fit(written[2], radiance)
    print("\nFields of simplex grids")
    for name, done, reached in (
        ("picture", image, f"{image.psnr():.1f} dB"),
        ("surface", surface, f"normals {surface.normal_error():.1f}°"),
        ("radiance field", radiance, f"{radiance.psnr():.1f} dB, held out"),
    ):
        print(f"{name:<16}{done.steps} steps, {done.seconds:.1f} s: {reached}")
    print(f"\n{time.perf_counter() - start:.0f} s on {describe(device)}; pictures:")
    for path in written:
        print(f"  {path}")
    return written
