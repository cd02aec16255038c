"""Fits of radiance fields: volume rendering, the scene, quality, and the command ``fit-nerf``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fastdiff_ops.cli import main
from fastdiff_ops.encoding.camera import camera_rays
from fastdiff_ops.encoding.fit_nerf import NerfFit, fit_nerf
from fastdiff_ops.encoding.fitting import load_field
from fastdiff_ops.encoding.scene import FAR, NEAR, render, scene_views, three_spheres
from torch import Tensor

SMALL = {"n_views": 8, "size": 20, "samples": 32, "n_levels": 6, "log2_hashmap_size": 12}
LENGTH = FAR - NEAR


def one_ray() -> tuple[Tensor, Tensor]:
    return torch.tensor([[0.0, -3.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])


# ---- cameras and rendering


def test_rays_of_a_camera() -> None:
    eye = torch.tensor([2.0, -1.0, 0.5])
    rays = camera_rays(eye, 5, opening=0.4)
    torch.testing.assert_close(rays.norm(dim=-1), torch.ones(25))
    torch.testing.assert_close(rays[12], -eye / eye.norm())
    assert rays[2, 2] > rays[22, 2]  # the first row is the upper one
    corner = torch.tensor(1 / math.sqrt(1 + 2 * (0.4 * 0.8) ** 2))
    torch.testing.assert_close(rays[0] @ rays[12], corner)
    right = torch.linalg.cross(rays[12], torch.tensor([0.0, 0.0, 1.0]))
    assert rays[14] @ right > 0 > rays[10] @ right


@pytest.mark.parametrize("samples", [1, 7, 64])
def test_a_uniform_fog_has_a_closed_form(samples: int) -> None:
    colour = torch.tensor([0.2, 0.5, 0.9])

    def fog(points: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((len(points),), 0.4), colour.expand(len(points), 3)

    seen = render(fog, *one_ray(), samples)
    through = math.exp(-0.4 * LENGTH)
    torch.testing.assert_close(seen.colour[0], colour * (1 - through) + through)
    torch.testing.assert_close(seen.opacity[0], torch.tensor(1 - through))


def test_a_wall_hides_what_is_behind_and_tells_its_depth() -> None:
    def wall(points: Tensor) -> tuple[Tensor, Tensor]:
        inside = points[:, 1] > 0.5
        front = (points[:, 1] < 1.0)[:, None].float()
        return inside * 1e4, front * torch.tensor([1.0, 0.0, 0.0]) + (1 - front) * torch.tensor(
            [0.0, 1.0, 0.0]
        )

    seen = render(wall, *one_ray(), 360)
    torch.testing.assert_close(seen.colour[0], torch.tensor([1.0, 0.0, 0.0]))
    assert abs(float(seen.depth[0]) - 3.5) < LENGTH / 360


def test_jitter_moves_samples_inside_their_intervals() -> None:
    met: list[Tensor] = []

    def record(points: Tensor) -> tuple[Tensor, Tensor]:
        met.append(points[:, 1] + 3)
        return torch.zeros(len(points)), torch.zeros(len(points), 3)

    jitter = torch.rand(1, 8, generator=torch.Generator().manual_seed(0))
    render(record, *one_ray(), 8, jitter)
    edges = NEAR + LENGTH / 8 * torch.arange(9)
    assert ((met[0] >= edges[:-1]) & (met[0] < edges[1:])).all()
    torch.testing.assert_close(met[0], edges[:-1] + jitter[0] * LENGTH / 8)


def test_the_scene_is_rendered_exactly_enough() -> None:
    views = scene_views(2, 12)
    finer = render(three_spheres, views.eyes.flatten(0, 1), views.rays.flatten(0, 1), 1536).colour
    assert float((finer - views.colours.flatten(0, 1)).square().mean()) < 1e-4
    assert 0.2 < float((views.colours < 0.9).any(-1).float().mean()) < 0.8  # spheres and paper


def test_a_view_depends_on_its_number_only() -> None:
    torch.testing.assert_close(scene_views(3, 6).colours[2], scene_views(1, 6, first=2).colours[0])


# ---- fits


@pytest.mark.parametrize("encoding", ["simplex", "grid"])
def test_views_from_elsewhere_are_found(encoding: str) -> None:
    calls: list[int] = []
    fit = fit_nerf(encoding=encoding, steps=150, on_step=lambda _, step: calls.append(step), **SMALL)
    assert calls == list(range(1, 151)) and fit.steps == 150
    assert fit.curve[0].psnr < 12
    assert fit.psnr() > 21
    assert fit.curve[-1].psnr == fit.psnr()


def test_equal_seeds_give_equal_fields() -> None:
    first, again, other = (fit_nerf(steps=3, seed=seed, **SMALL).field.encoding.table for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_held_out_views_are_not_trained_on() -> None:
    fit: NerfFit = fit_nerf(steps=1, **SMALL)
    eyes = torch.cat([fit.views.eyes[:, 0], fit.held_out.eyes[:, 0]])
    assert float(torch.pdist(eyes).min()) > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "`steps`"),
        ({"rays": 0}, "`rays`"),
        ({"samples": 0}, "`samples`"),
        ({"size": 0}, "`size`"),
        ({"n_views": 0}, "`n_views`"),
        ({"encoding": "cube"}, "`encoding`"),
        ({"learning_rate": math.nan}, "`learning_rate`"),
        ({"seconds": -1.0}, "`seconds`"),
        ({"seed": -1}, "`seed`"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_nerf(**{**SMALL, "steps": 1, **options})


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="draws")
    pytest.importorskip("PIL", reason="draws")
    out = tmp_path / "nerf"
    assert main(["fit-nerf", "--steps", "3", "--levels", "4", "--out", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["curve.csv", "field.safetensors", "report.png"]
    assert "dB of views that were held out" in capsys.readouterr().out
    assert load_field(out / "field.safetensors")(torch.rand(5, 3)).shape == (5, 4)
    assert (out / "curve.csv").read_text().splitlines()[0] == "step,seconds,psnr"
