"""Fits of signed distances: the shapes themselves, quality, pictures, and the command ``fit-sdf``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fastdiff_ops.cli import main
from fastdiff_ops.encoding.fit_sdf import SdfFit, find_shape, fit_sdf, render_sdf
from fastdiff_ops.encoding.fitting import load_field
from fastdiff_ops.encoding.shapes import SHAPES, AnalyticShape, MeshShape, Shape, _gyroid_surface

SMALL = {"n_levels": 5, "log2_hashmap_size": 12, "finest_resolution": 24, "batch": 1024}
FILES = ["curve.csv", "field.safetensors", "report.png"]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def write_ply(path: Path, vertices: list[tuple[float, ...]], faces: list[tuple[int, ...]]) -> Path:
    header = ["ply", "format ascii 1.0", f"element vertex {len(vertices)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    rows = [" ".join(map(str, v)) for v in vertices] + [" ".join(map(str, (3, *f))) for f in faces]
    path.write_text("\n".join([*header, *rows]) + "\n")
    return path


def write_cube(path: Path, faces: int = 12) -> Path:
    """A cube of edge 2 around (5, 0, 0), its triangles turned inwards."""
    vertices = [(x + 5, y, z) for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    triangles = [t for a, b, c, d in quads for t in ((a, c, b), (a, d, c))]
    return write_ply(path, vertices, triangles[:faces])


# ---- shapes


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_surfaces_and_normals_of_shapes(name: str) -> None:
    shape = find_shape(name)
    points, normals = shape.surface(500, generator())
    distance = SHAPES[name]
    assert float(distance(points.double()).abs().max()) < 1e-5
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(500))
    step = 1e-3
    outside, inside = (distance((points + s * step * normals).double()) for s in (1, -1))
    assert float((outside - step).abs().quantile(0.9)) < 2e-5
    assert float((inside + step).abs().quantile(0.9)) < 2e-5


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_samples_are_half_near_the_surface(name: str) -> None:
    points, distances = find_shape(name).sample(2000, generator())
    assert points.shape == (2000, 3) and points.dtype == distances.dtype == torch.float32
    assert float(points.abs().max()) <= 1
    assert float((distances[:1000].abs() < 0.2).float().mean()) > 0.9
    assert distances.min() < 0 < distances.max()


def test_distances_of_known_points() -> None:
    p = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.55, 0, 0], [0, 0, 1]], dtype=torch.float64)
    expected = torch.tensor([-0.65, 0.35, -0.1, 0.35], dtype=torch.float64)
    torch.testing.assert_close(SHAPES["sphere"](p), expected)
    expected = torch.tensor([0.33, 0.23, -0.22, (0.55**2 + 1) ** 0.5 - 0.22], dtype=torch.float64)
    torch.testing.assert_close(SHAPES["torus"](p), expected)


def test_distance_of_the_gyroid_is_that_of_its_nearest_point() -> None:
    """Against a dense cloud of points that lie on it."""
    frequency = 2 * torch.pi / 1.2
    cloud = (torch.rand(60_000, 3, generator=generator(), dtype=torch.float64) - 0.5) * 2.4
    for _ in range(8):
        sine, cosine = torch.sin(frequency * cloud), torch.cos(frequency * cloud)
        value = (sine * cosine.roll(-1, -1)).sum(-1)
        gradient = frequency * (cosine * cosine.roll(-1, -1) - sine * sine.roll(1, -1))
        cloud = cloud - (value / gradient.square().sum(-1).clamp(min=1e-3))[:, None] * gradient
    points = torch.rand(300, 3, generator=generator(), dtype=torch.float64) * 1.2 - 0.6
    nearest = torch.cdist(points, cloud[value.abs() < 1e-9]).amin(1)
    error = (_gyroid_surface(points).abs() - nearest).abs()
    assert float(error.median()) < 2e-3 and float(error.max()) < 0.05


def test_what_has_no_surface_is_refused() -> None:
    with pytest.raises(ValueError, match="no zeros"):
        AnalyticShape("nothing", lambda p: p.norm(dim=-1) + 1)


def test_mesh_is_centred_scaled_and_turned_outwards(tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    pytest.importorskip("rtree")
    shape = MeshShape(write_cube(tmp_path / "cube.ply"), n_samples=1000)
    points, distances = shape.sample(2000, generator())
    beyond = points.abs() - 0.8
    outside = beyond.clamp(min=0).norm(dim=-1)
    expected = torch.where(beyond.amax(-1) < 0, beyond.amax(-1), outside)
    torch.testing.assert_close(distances, expected, rtol=0, atol=1e-5)
    surface, normals = shape.surface(600, generator())
    torch.testing.assert_close(surface.abs().amax(-1), torch.full((600,), 0.8))
    torch.testing.assert_close((surface * normals).sum(-1), torch.full((600,), 0.8))
    assert all(0.2 < float((normals[:, axis].abs() > 0.5).float().mean()) < 0.47 for axis in range(3))


# ---- fits


@pytest.mark.parametrize("encoding", ["simplex", "grid"])
def test_a_fit_has_the_distance_and_its_slope(encoding: str) -> None:
    fit = fit_sdf("sphere", encoding=encoding, steps=120, **SMALL)
    assert fit.distance_error() < 0.01
    assert fit.normal_error() < 10
    assert fit.curve[-1].step == fit.steps == 120
    points, _ = fit.shape.sample(2000, generator())
    assert float(fit.gradient(points).norm(dim=-1).mean()) == pytest.approx(1, abs=0.05)


def test_the_eikonal_term_makes_slopes_one() -> None:
    """It is all that holds the slope of a distance that is told wrong."""
    sphere = find_shape("sphere")

    class Flat(Shape):
        name = "half as steep"
        surface = sphere.surface

        def sample(self, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
            points, distances = sphere.sample(n, generator)
            return points, 0.5 * distances

    flat = Flat()
    slopes = []
    for weight in (0.0, 30.0):
        fit = fit_sdf(flat, steps=60, eikonal=weight, **SMALL)
        points, _ = flat.sample(2000, generator())
        slopes.append(float(fit.gradient(points).norm(dim=-1).mean()))
    assert slopes[0] < 0.65
    assert slopes[1] > 0.85


def test_equal_seeds_give_equal_fields() -> None:
    fields = [fit_sdf("torus", steps=5, seed=seed, **SMALL).field.state_dict() for seed in (3, 3, 4)]
    assert all(torch.equal(fields[0][key], fields[1][key]) for key in fields[0])
    assert not torch.equal(fields[0]["encoding.table"], fields[2]["encoding.table"])


def test_the_picture_is_the_outline_of_the_ball() -> None:
    """Rays hit the ball exactly where geometry says."""

    class Ball(SdfFit):
        def __call__(self, points: torch.Tensor) -> torch.Tensor:
            return points.norm(dim=-1) - 0.65

    fit = fit_sdf("sphere", steps=1, **SMALL)
    picture = render_sdf(Ball(fit.field, fit.shape), size=64)
    ink = (picture < 1).any(-1)
    eye = torch.tensor([1.7, -2.7, 2.1]).norm()
    radius = 0.65 / (eye.square() - 0.65**2).sqrt() / 0.25 * 32  # pixels
    assert int(ink.sum()) == pytest.approx(float(torch.pi * radius**2), rel=0.03)
    place = ink.nonzero().float().mean(0) + 0.5
    torch.testing.assert_close(place, torch.full((2,), 32.0), rtol=0, atol=0.5)
    assert float(picture.min()) >= 0 and float(picture.max()) <= 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shape": "cubus"}, "torus"),
        ({"steps": 0}, "`steps`"),
        ({"batch": 0}, "`batch`"),
        ({"eikonal": -1.0}, "`eikonal`"),
        ({"encoding": "hexagon"}, "`encoding`"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_sdf(**({"shape": "sphere", "steps": 1} | wrong))


# ---- the command


def test_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image_module = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    arguments = ["fit-sdf", "sphere", "--steps", "20", "--levels", "3", "--device", "cpu", "--out", str(out)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert image_module.open(out / "report.png").size[0] > 1000
    fit = SdfFit(load_field(out / "field.safetensors"), find_shape("sphere"))
    assert f"of normals {fit.normal_error():.2f}"[:13] in printed
    assert "sphere: 20 steps" in printed


def test_command_fits_a_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("trimesh")
    pytest.importorskip("rtree")
    monkeypatch.setattr(MeshShape.__init__, "__defaults__", (1000,))
    mesh = write_cube(tmp_path / "cube.ply")
    out = tmp_path / "out"
    assert main(["fit-sdf", str(mesh), "--steps", "3", "--device", "cpu", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == FILES


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["cubus"], 2, "torus, gyroid, sphere"),
        (["--steps", "0"], 2, "positive integer"),
        (["absent.ply"], 1, "absent.ply: no such file"),
        (["text.ply"], 1, "text.ply is no mesh"),
        (["text.doc"], 1, "text.doc is no mesh"),
        (["open.ply"], 1, "not closed"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("trimesh")
    pytest.importorskip("rtree")
    monkeypatch.chdir(tmp_path)
    for name in ("text.ply", "text.doc"):
        Path(name).write_text("no mesh")
    write_cube(tmp_path / "open.ply", faces=11)
    assert main(["fit-sdf", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    if code == 1:
        assert error.startswith("fastdiff-ops: ") and error.count("\n") == 1


def test_interruption_writes_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    sample, calls = AnalyticShape.sample, iter(range(100))

    def interrupted(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if next(calls) == 9:
            raise KeyboardInterrupt
        return sample(*arguments)

    monkeypatch.setattr(AnalyticShape, "sample", interrupted)
    out = tmp_path / "out"
    assert main(["fit-sdf", "sphere", "--steps", "1000", "--device", "cpu", "--out", str(out)]) == 130
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert capsys.readouterr().err.endswith("fastdiff-ops: interrupted\n")
