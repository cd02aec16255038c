"""Fits of pictures: quality, repetition, files, and the command ``fit-image``."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastdiff_ops.cli import build_parser, main
from fastdiff_ops.encoding import GridEncoding, SimplexEncoding
from fastdiff_ops.encoding.fit_image import ImageFit, fit_image, procedural_picture, psnr
from fastdiff_ops.encoding.fitting import load_field, new_field, save_field

SMALL = {"n_levels": 6, "log2_hashmap_size": 10, "base_resolution": 4, "batch": 1024}
FILES = ["curve.csv", "field.safetensors", "fitted.png", "report.png"]


def small_picture(height: int, width: int) -> torch.Tensor:
    """A part of the procedural picture, with few waves."""
    return procedural_picture(192, 256)[40 : 40 + height, 90 : 90 + width]


def flat_psnr(picture: torch.Tensor) -> float:
    """PSNR of the best single colour."""
    return psnr(picture.mean((0, 1)).expand_as(picture), picture)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    image_module = pytest.importorskip("PIL.Image")
    path = tmp_path / "photo.png"
    pixels = (small_picture(24, 32) * 255).round().byte().numpy()
    image_module.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("encoding", ["simplex", "grid"])
def test_a_fit_is_much_better_than_flat_colour(encoding: str) -> None:
    picture = small_picture(48, 64)
    fit = fit_image(picture, encoding=encoding, steps=150, **SMALL)
    assert flat_psnr(picture) < 16
    assert fit.psnr() > 25
    # All pixels were measured, so the curve ends at the same number.
    assert fit.curve[-1].psnr == pytest.approx(fit.psnr(), abs=1e-6)
    assert [m.step for m in fit.curve][:3] == [1, 2, 4]
    assert fit.curve[-1].step == fit.steps == 150
    assert isinstance(fit.field.encoding, SimplexEncoding if encoding == "simplex" else GridEncoding)


def test_points_are_where_the_docs_say() -> None:
    """A picture that is brighter to the right, and only there, shows which axis is which."""
    ramp = torch.linspace(0, 1, 32).expand(16, 32)[..., None]
    fit = fit_image(ramp, steps=60, **SMALL)
    with torch.no_grad():
        left, right, low = fit.field(torch.tensor([[0.1, 0.1], [0.9, 0.1], [0.1, 0.4]]))[:, 0]
    assert float(left) == pytest.approx(0.1, abs=0.08)
    assert float(right) == pytest.approx(0.9, abs=0.08)
    assert float(low) == pytest.approx(0.1, abs=0.08)


def test_equal_seeds_give_equal_fields_whatever_the_global_generator() -> None:
    picture = procedural_picture(16, 16)
    fields = []
    for seed, elsewhere in ((3, 0), (3, 1), (4, 0)):
        torch.manual_seed(elsewhere)
        before = torch.random.get_rng_state()
        fields.append(fit_image(picture, steps=8, seed=seed, **SMALL).field.state_dict())
        assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(fields[0][key], fields[1][key]) for key in fields[0])
    assert not torch.equal(fields[0]["encoding.table"], fields[2]["encoding.table"])


def test_seconds_end_a_fit() -> None:
    fit = fit_image(procedural_picture(16, 16), steps=10**7, seconds=0.2, **SMALL)
    assert fit.seconds >= 0.2
    assert fit.steps < 10**5
    assert fit.curve[-1].step == fit.steps


@pytest.mark.parametrize("lattice", ["simplex", "grid"])
def test_files_bring_the_field_back(lattice: str, tmp_path: Path) -> None:
    field = new_field(lattice, 3, 2, seed=1, n_levels=3, log2_hashmap_size=8, base_resolution=3, width=16)
    torch.nn.init.normal_(field.encoding.table)
    save_field(field, tmp_path / "field.safetensors")
    back = load_field(tmp_path / "field.safetensors")
    assert back.encoding.levels == field.encoding.levels
    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(back(x), field(x), rtol=0, atol=2e-3)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.copy_(parameter.half())
    assert torch.equal(back(x), field(x))


def test_foreign_files_hold_no_field(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="no field"):
        load_field(tmp_path / "foreign.safetensors")
    (tmp_path / "text").write_text("x" * 20)
    with pytest.raises(ValueError, match="no safetensors file"):
        load_field(tmp_path / "text")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"picture": torch.zeros(4, 4)}, ValueError),
        ({"picture": torch.zeros(0, 4, 3)}, ValueError),
        ({"picture": torch.zeros(4, 4, 3, dtype=torch.uint8)}, TypeError),
        ({"steps": 0}, ValueError),
        ({"batch": 0}, ValueError),
        ({"seconds": -1.0}, ValueError),
        ({"learning_rate": 0.0}, ValueError),
        ({"encoding": "hexagon"}, ValueError),
        ({"seed": -1}, ValueError),
        ({"n_levels": 33}, ValueError),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], error: type[Exception]) -> None:
    arguments: dict[str, Any] = {"picture": torch.zeros(4, 4, 3), "steps": 1} | wrong
    with pytest.raises(error, match=f"`{next(iter(wrong))}`"):
        fit_image(**arguments)


# ---- the command


@pytest.mark.parametrize("command", ["fit-image", "fit-sdf"])
def test_help_has_examples_that_parse(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    examples = [line.split() for line in text.splitlines() if line.startswith(f"  fastdiff-ops {command}")]
    assert len(examples) == 3
    for words in examples:
        build_parser().parse_args(words[1:])


def test_command_writes_what_it_prints(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    image_module = pytest.importorskip("PIL.Image")
    out = tmp_path / "a" / "b"
    arguments = ["fit-image", str(photo), "--steps", "60", "--levels", "4", "--log2-hashmap-size", "9"]
    assert main([*arguments, "--device", "cpu", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == FILES
    fitted = torch.from_numpy(np.asarray(image_module.open(out / "fitted.png")) / np.float32(255))
    original = torch.from_numpy(np.asarray(image_module.open(photo)) / np.float32(255))
    assert fitted.shape == (24, 32, 3)
    found = psnr(fitted, original)
    assert found > flat_psnr(original) + 5
    assert f"{found:.1f}"[:-1] in printed  # of eight bits, so the last digit may differ
    field = load_field(out / "field.safetensors")
    render = ImageFit(field, original).render()
    assert torch.equal((render * 255).round(), (fitted * 255).round())
    size = 2 * sum(parameter.numel() for parameter in field.parameters())
    assert f"{size} bytes, {8 * size / (24 * 32):.2f} bits a pixel" in printed
    rows = list(csv.DictReader((out / "curve.csv").open()))
    assert rows[-1]["step"] == "60"
    assert image_module.open(out / "report.png").size[0] > 500


def test_default_picture_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert main(["fit-image", "--steps", "2"]) == 0
    assert sorted(path.name for path in Path("fit-image").iterdir()) == FILES


def test_transparent_and_grey_pictures_are_read(tmp_path: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    from fastdiff_ops.encoding.pictures import read_picture

    image_module.new("RGBA", (3, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert torch.equal(read_picture(str(tmp_path / "clear.png")), torch.ones(2, 3, 3))
    image_module.new("L", (3, 2), 51).save(tmp_path / "grey.png")
    assert torch.equal(read_picture(str(tmp_path / "grey.png")), torch.full((2, 3, 3), 0.2))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--steps", "0"], 2, "positive integer"),
        (["--seconds", "nan"], 2, "> 0"),
        (["--levels", "33"], 2, "at most 32"),
        (["--log2-hashmap-size", "29"], 2, "at most 28"),
        (["--seed", "-1"], 2, "2^63"),
        (["--encoding", "hexagon"], 2, "simplex"),
        (["absent.png"], 1, "absent.png: no such file"),
        (["text.png"], 1, "text.png is no picture"),
        (["."], 1, "no such file"),
        (["--out", "text.png/x"], 1, "text.png"),
        (["--device", "quantum"], 1, "quantum"),
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
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no picture")
    assert main(["fit-image", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    if code == 1:
        assert error.startswith("fastdiff-ops: ") and error.count("\n") == 1


def test_interruption_writes_what_is_there(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    from fastdiff_ops.encoding import fit_image as module

    steps = iter(range(100))

    def interrupted(*arguments: Any) -> torch.Tensor:
        if next(steps) == 12:
            raise KeyboardInterrupt
        return centres(*arguments)

    centres = module._centres
    monkeypatch.setattr(module, "_centres", interrupted)
    out = tmp_path / "out"
    assert main(["fit-image", str(photo), "--steps", "1000", "--device", "cpu", "--out", str(out)]) == 130
    captured = capsys.readouterr()
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert captured.err.endswith("fastdiff-ops: interrupted\n")
    assert 0 < int(captured.out.split(" steps")[0].rpartition(" ")[2]) < 12
