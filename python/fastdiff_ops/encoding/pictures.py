"""Pictures of fits, from files and to files. Pillow and matplotlib are imported here only, when needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._environment import require_matplotlib, require_pillow
from .fit_image import ImageFit, procedural_picture
from .fit_nerf import NerfFit
from .fit_sdf import SdfFit, render_sdf
from .scene import FAR, NEAR

__all__ = [
    "draw_image_fit",
    "draw_nerf_fit",
    "draw_sdf_fit",
    "read_picture",
    "write_picture",
]

_ERROR_GAIN = 8
_BLUE, _ORANGE = "#0072B2", "#D55E00"


def read_picture(name: str) -> Tensor:
    """Return a picture as float32 [H, W, 3] in [0, 1].

    Parameters
    ----------
    name : str
        "procedural" for `procedural_picture`, "china" for the photograph that scikit-learn ships, or a file
        that Pillow reads. What is transparent becomes white.

    Raises
    ------
    OSError
        If the file is missing or no picture.
    ValueError
        If the picture is too large.
    ImportError
        If Pillow, or for "china" scikit-learn, is not installed.
    """
    if name == "procedural":
        return procedural_picture()
    image_module, image_ops = require_pillow()
    if name == "china":
        try:
            from sklearn.datasets import load_sample_image
        except ImportError as error:
            raise ImportError("'china' needs scikit-learn: pip install scikit-learn") from error
        return torch.from_numpy(load_sample_image("china.jpg") / np.float32(255))
    if not Path(name).is_file():
        raise FileNotFoundError(f"{name}: no such file")
    try:
        with image_module.open(name) as image:
            upright = image_ops.exif_transpose(image).convert("RGBA")
    except image_module.UnidentifiedImageError as error:
        raise OSError(f"{name} is no picture that Pillow can read") from error
    except image_module.DecompressionBombError as error:
        raise ValueError(f"{name}: {error}") from error
    paper = image_module.new("RGBA", upright.size, "white")
    flat = image_module.alpha_composite(paper, upright).convert("RGB")
    return torch.from_numpy(np.asarray(flat, np.float32) / 255)


def write_picture(path: Path, picture: Tensor) -> None:
    """Write colours [H, W, 3] in [0, 1] to a PNG file."""
    image_module, _ = require_pillow()
    image_module.fromarray((picture.cpu() * 255).round().byte().numpy()).save(path)


def draw_image_fit(path: Path, fit: ImageFit) -> None:
    """Draw the original, the fit, their difference, and the PSNR over the time of training."""
    plt = require_matplotlib()
    original, fitted = fit.picture.cpu(), fit.render().cpu()
    height, width, _ = original.shape
    aspect = min(max(height / width, 0.3), 3.0)
    figure, axes = plt.subplots(2, 2, figsize=(10, 10 * aspect * 0.97 + 0.8), layout="constrained")
    panels = {
        "original": original,
        f"fit, {fit.psnr():.2f} dB": fitted,
        f"difference, {_ERROR_GAIN} times": (fitted - original).abs() * _ERROR_GAIN,
    }
    for ax, (title, picture) in zip(axes.flat, panels.items(), strict=False):
        ax.imshow(picture.clamp(0, 1).numpy())
        ax.set_title(title, fontsize=11)
        ax.axis("off")
    _curve(axes[1, 1], [m.seconds for m in fit.curve], [m.psnr for m in fit.curve], _BLUE)
    axes[1, 1].set_ylabel("PSNR, dB")
    size = fit.half_precision_bytes
    bits = 8 * size / (height * width)
    figure.suptitle(
        f"{width} x {height} pixels in {size / 1000:.0f} kB of float16 parameters: {bits:.2f} bits a pixel",
        fontsize=11,
    )
    _save(figure, path)


def draw_sdf_fit(path: Path, fit: SdfFit, size: int = 320) -> None:
    """Draw the surface, a slice of the distance, and the errors over the time of training."""
    plt = require_matplotlib()
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.6), layout="constrained")
    axes[0].imshow(render_sdf(fit, size).numpy())
    axes[0].set_title(f"{fit.shape.name}: zeros of the fit", fontsize=11)
    axes[0].axis("off")
    place = torch.linspace(-1, 1, 200)
    y, x = torch.meshgrid(place, place, indexing="ij")
    points = torch.stack([x, y, torch.zeros_like(x)], dim=-1).reshape(-1, 3)
    with torch.no_grad():
        distance = fit(points.to(fit.device)).cpu().reshape(200, 200).numpy()
    limit = float(np.abs(distance).max())
    shown = axes[1].imshow(
        distance, cmap="RdBu", vmin=-limit, vmax=limit, extent=(-1, 1, -1, 1), origin="lower"
    )
    axes[1].contour(x, y, distance, levels=np.arange(-1, 2, 0.1), colors="#555555", linewidths=0.5)
    axes[1].contour(x, y, distance, levels=[0], colors="black", linewidths=1.5)
    axes[1].set_title("distance at z = 0, contours 0.1 apart", fontsize=11)
    figure.colorbar(shown, ax=axes[1], shrink=0.8)
    seconds = [m.seconds for m in fit.curve]
    _curve(axes[2], seconds, [m.degrees for m in fit.curve], _BLUE)
    axes[2].set_ylabel("mean error of normals, degrees", color=_BLUE)
    right = axes[2].twinx()
    _curve(right, seconds, [m.error for m in fit.curve], _ORANGE)
    right.set_ylabel("mean error of the distance", color=_ORANGE)
    for ax in (axes[2], right):
        ax.set_ylim(bottom=0)
    _save(figure, path)


def draw_nerf_fit(path: Path, fit: NerfFit) -> None:
    """Draw pictures that the training did not see, the fit of the same places, its depths, and the PSNR."""
    plt = require_matplotlib()
    count, pixels, _ = fit.held_out.colours.shape
    size = round(pixels**0.5)
    figure, axes = plt.subplots(count, 4, figsize=(12, 3 * count), layout="constrained")
    axes = np.asarray(axes).reshape(count, 4)
    for row, (eyes, rays, colours) in zip(axes, zip(*fit.held_out, strict=True), strict=True):
        found = fit.render(eyes, rays)
        row[0].imshow(colours.reshape(size, size, 3).clamp(0, 1).numpy())
        row[1].imshow(found.colour.reshape(size, size, 3).clamp(0, 1).numpy())
        depth = torch.where(found.opacity > 0.5, found.depth, torch.nan)
        row[2].imshow(depth.reshape(size, size).numpy(), cmap="viridis", vmin=NEAR, vmax=FAR)
    titles = ("held out", f"fit, {fit.psnr():.2f} dB", "depth of the fit")
    for column, title in enumerate(titles):
        axes[0, column].set_title(title, fontsize=11)
    for ax in axes[:, :3].flat:
        ax.axis("off")
    for ax in axes[1:, 3]:
        ax.axis("off")
    _curve(axes[0, 3], [m.seconds for m in fit.curve], [m.psnr for m in fit.curve], _BLUE)
    axes[0, 3].set_ylabel("PSNR of held-out views, dB")
    _save(figure, path)


def _curve(axes: Any, seconds: list[float], values: list[float], colour: str) -> None:
    axes.plot(seconds, values, color=colour, marker="o", ms=3, lw=1.6)
    axes.set_xlabel("seconds of training")
    axes.grid(True, color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110)
    require_matplotlib().close(figure)
