"""The demo: the embedded model is what its file says, its samples are digits, the report is true."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from fastdiff_ops._environment import pick_device
from fastdiff_ops.cli import main
from fastdiff_ops.demo import pictures, timing
from fastdiff_ops.demo.data import load_digits, random_affine, render
from fastdiff_ops.demo.digits import PREDICTION_TYPE, Digits, Prompt, compare, table_for_budget
from fastdiff_ops.demo.fields_report import FieldsSettings, run_fields_demo
from fastdiff_ops.demo.model import DigitModel
from fastdiff_ops.demo.report import DemoSettings, format_errors, format_timings, run_demo
from fastdiff_ops.demo.weights import SCHEDULE, WEIGHTS_PATH, evaluation_loss, load_weights, noised
from fastdiff_ops.demo.words_report import WordsSettings
from fastdiff_ops.schedules import NoiseSchedule, timesteps
from fastdiff_ops.solvers import make_table
from torch import Tensor

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits(CPU)


@pytest.fixture(scope="module")
def training_set() -> tuple[Tensor, Tensor]:
    pytest.importorskip("sklearn")
    return load_digits()


# ---- weights


def test_weights_are_small() -> None:
    assert WEIGHTS_PATH.stat().st_size < 2_000_000


def test_weights_say_how_they_were_made() -> None:
    weights = load_weights()
    metadata = weights.metadata
    assert NoiseSchedule.from_dict(json.loads(metadata["schedule"])) == SCHEDULE
    assert metadata["prediction_type"] == PREDICTION_TYPE
    assert metadata["parameters"] == str(sum(p.numel() for p in weights.model.parameters()))
    words = shlex.split(metadata["command"])
    assert "tools/train_digits.py" in words
    assert words[words.index("--seed") + 1] == metadata["seed"]


def test_weights_reach_the_loss_that_they_claim(training_set: tuple[Tensor, Tensor]) -> None:
    weights = load_weights()
    assert evaluation_loss(weights.model, *training_set) == pytest.approx(
        float(weights.metadata["loss"]), rel=1e-3
    )


def test_training_is_a_function_of_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    script = Path(__file__).parents[1] / "tools/train_digits.py"
    contents = []
    for run in range(2):
        out = tmp_path / f"{run}.safetensors"
        command = [str(script), "--steps", "2", "--batch", "8", "--seed", "3", "--out", str(out)]
        monkeypatch.setattr("sys.argv", command)
        exec(compile(script.read_text(), str(script), "exec"), {"__name__": "__main__"})
        contents.append(load_weights(out))
    first, second = (dict(c.model.state_dict()) for c in contents)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert contents[0].metadata == contents[1].metadata
    assert "--steps 2 --batch 8" in contents[0].metadata["command"]


def test_missing_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError, match="absent"):
        load_weights(tmp_path / "absent.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="no digit model"):
        load_weights(tmp_path / "foreign.safetensors")


# ---- model and data


def test_absent_labels_are_the_null_class() -> None:
    model = load_weights().model
    x, t = (
        torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0.0, 0.5, 1.0]),
    )
    assert torch.equal(model(x, t), model(x, t, torch.full((3,), 10)))
    assert not torch.equal(model(x, t), model(x, t, torch.tensor([1, 2, 3])))


def test_every_parameter_of_the_model_is_trained() -> None:
    torch.manual_seed(0)
    model = DigitModel()
    for parameter in model.parameters():  # some start at zero, and would block the gradient of others
        torch.nn.init.normal_(parameter, std=0.1)
    out = model(torch.randn(4, 1, 16, 16), torch.rand(4), torch.tensor([0, 3, 9, 10]))
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_noised_velocity_inverts_to_the_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(5, 1, 4, 4, generator=generator) for _ in range(2))
    t = torch.linspace(0.0, SCHEDULE.T, 5)
    x, v = noised(x0, t, noise)
    alpha, sigma = (f(t).float().reshape(-1, 1, 1, 1) for f in (SCHEDULE.alpha, SCHEDULE.sigma))
    torch.testing.assert_close(alpha * x - sigma * v, x0, rtol=0, atol=1e-6)
    torch.testing.assert_close(sigma * x + alpha * v, noise, rtol=0, atol=1e-6)


def test_render_keeps_range_and_place() -> None:
    blob = torch.zeros(1, 1, 8, 8)
    blob[0, 0, 2:4, 5:7] = 1.0
    picture = render(blob)
    assert picture.min() == pytest.approx(-1.0, abs=1e-3)
    assert picture.max() == pytest.approx(1.0, abs=1e-3)
    ink = (picture[0, 0] + 1) / 2
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    # The blob's centre is at (3, 6) of 8 pixels, so at (4, 7) of 10 with the margin, each now 1.6 wide.
    assert float((ink * rows).sum() / ink.sum()) + 0.5 == pytest.approx(4 * 1.6, abs=0.05)
    assert float((ink * columns).sum() / ink.sum()) + 0.5 == pytest.approx(7 * 1.6, abs=0.05)


def test_random_affine_is_near_the_identity() -> None:
    maps = random_affine(1000, torch.Generator().manual_seed(0))
    assert (maps - torch.eye(2, 3)).abs().max() < 0.4
    torch.testing.assert_close(maps.mean(0), torch.eye(2, 3), rtol=0, atol=0.02)


# ---- samples


def test_samples_are_the_digits_asked_for(digits: Digits, training_set: tuple[Tensor, Tensor]) -> None:
    """A classifier of real digits (97 % right on unseen ones) must read the labels out of the samples."""
    from sklearn.svm import SVC

    images, labels = training_set
    classifier = SVC(C=10.0).fit(render(images).flatten(1).numpy(), labels.numpy())
    asked = [k for k in range(10) for _ in range(10)]
    for solver, nfe in (("dpmpp_2m", 12), ("dpmpp_2m_sde", 25), ("heun", 40)):
        drawn = digits.draw(table_for_budget(solver, nfe), Prompt(asked, seed=1, guidance_scale=2.0))
        accuracy = float(np.mean(classifier.predict(drawn.flatten(1).numpy()) == np.array(asked)))
        assert accuracy >= 0.97, (solver, accuracy)
        # Neither noise nor grey: most pixels are paper or ink.
        assert float((drawn.abs() > 0.8).float().mean()) > 0.8, solver
        assert float(drawn.abs().max()) < 1.5, solver


def test_samples_of_a_label_differ(digits: Digits) -> None:
    drawn = digits.draw(table_for_budget("dpmpp_2m", 12), Prompt([3] * 8, seed=0)).flatten(1)
    assert float(torch.pdist(drawn).min()) > 1.0


def test_guidance_of_one_is_no_guidance(digits: Digits) -> None:
    table = table_for_budget("dpmpp_2m", 6)
    plain = digits.draw(table, Prompt([1, 2], seed=0, guidance_scale=1.0))
    nearly = digits.draw(table, Prompt([1, 2], seed=0, guidance_scale=1.0 + 1e-6))
    torch.testing.assert_close(plain, nearly, rtol=0, atol=1e-3)


def test_a_digit_does_not_depend_on_its_batch(digits: Digits) -> None:
    table = table_for_budget("dpmpp_2m", 6)
    many, one = (digits.draw(table, Prompt(labels, seed=4)) for labels in ([7, 1, 2], [7]))
    torch.testing.assert_close(many[:1], one, rtol=0, atol=1e-4)


def test_wrong_prompts_are_refused(digits: Digits) -> None:
    with pytest.raises(ValueError, match="labels"):
        digits.draw(table_for_budget("ddim", 4), Prompt([10]))
    other = NoiseSchedule.from_dict({"kind": "vp_linear"})
    with pytest.raises(ValueError, match="schedule"):
        digits.draw(make_table("ddim", other, timesteps(other, 4)), Prompt([1]))
    with pytest.raises(ValueError, match="quantum"):
        pick_device("quantum")


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2s", "dpmpp_3s", "dpmpp_2m"])
@pytest.mark.parametrize("nfe", [4, 7, 30])
def test_budgets_are_kept_and_used(solver: str, nfe: int) -> None:
    assert nfe - 1 <= len(table_for_budget(solver, nfe)) <= nfe


def test_a_budget_below_one_step_is_refused() -> None:
    with pytest.raises(ValueError, match="heun"):
        table_for_budget("heun", 1)


def test_errors_fall_and_higher_orders_win(digits: Digits) -> None:
    prompt = Prompt([0, 3, 5, 8], seed=2)
    reference = digits.draw(table_for_budget("dpmpp_3m", 300), prompt)
    compared = compare(digits, reference, ("euler", "heun", "dpmpp_2m", "dpmpp_3m"), (10, 20, 40), prompt)
    curves = {curve.solver: curve for curve, _ in compared}
    for curve in curves.values():
        assert all(a > 1.5 * b for a, b in zip(curve.error, curve.error[1:], strict=False)), curve
    for solver in ("dpmpp_2m", "dpmpp_3m"):
        assert all(
            a < b / 3 for a, b in zip(curves[solver].error[1:], curves["euler"].error[1:], strict=True)
        ), curves
    assert curves["heun"].error[2] < curves["euler"].error[2]
    for solver, order in (("euler", 1.0), ("dpmpp_2m", 2.0), ("dpmpp_3m", 3.0)):
        assert curves[solver].order == pytest.approx(order, abs=0.25), solver
    assert compared[0][1][0].shape == reference.shape


# ---- timings, pictures, the whole


def test_timed_updates_are_the_same_update() -> None:
    """What is compared in speed must be the same thing: all candidates end in the same state."""
    pytest.importorskip("diffusers")
    results = {}
    for name, (prepare, run) in timing._candidates((2, 3, 8, 8), CPU).items():
        prepare()
        results[name] = run()
    assert len(results) == 3
    fused = results.pop("fastdiff_ops, fused")
    for name, result in results.items():
        torch.testing.assert_close(result, fused, rtol=1e-3, atol=1e-3, msg=name)


def test_readable_times() -> None:
    assert [timing.readable(s) for s in (9.876e-7, 1.5e-5, 0.0123, 2.0)] == [
        "0.99 µs",
        "15.0 µs",
        "12.3 ms",
        "2000 ms",
    ]


def test_mosaic_lays_out_rows_and_paper() -> None:
    images = torch.full((3, 1, 4, 4), 1.0)
    sheet = pictures.mosaic(images, columns=2, zoom=1, gap=1)
    assert sheet.shape == (12, 12)
    assert sheet[1:5, 1:5].max() == 0  # ink
    assert sheet[6:, 6:].min() == 255  # the place of a fourth picture
    assert sheet[0].min() == 255
    with pytest.raises(ValueError, match=r"B, 1, H, W"):
        pictures.mosaic(torch.zeros(2, 3, 4, 4), 1)


SMALL = {
    "labels": (2, 7),
    "per_label": 3,
    "solvers": ("ddim", "dpmpp_2m"),
    "nfe": (4, 8, 16),
    "pictured": (4, 16),
    "reference_steps": 60,
    "shapes": ((1, 4, 8, 8), (2, 4, 8, 8)),
    "timing_budget": 0.0,
}


def test_demo_writes_pictures_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    threads = torch.get_num_threads()
    written = run_demo(DemoSettings(out=tmp_path / "demo", device="cpu", **SMALL))
    assert torch.get_num_threads() == threads
    names = {"samples.png", "solvers.png", "error_vs_nfe.png", "time_per_step.png"}
    assert {path.name for path in written} == {path.name for path in (tmp_path / "demo").iterdir()} == names
    for path in written:
        picture = plt.imread(path)
        assert min(picture.shape[:2]) > 150, path
        assert len(np.unique(picture[..., 0])) > 20, path
    assert not plt.get_fignums()
    text = capsys.readouterr().out
    for word in ("16 NFE", "dpmpp_2m", "[1, 4, 8, 8]", "eager PyTorch", "µs", "pictures:"):
        assert word in text


def test_demo_command_passes_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[DemoSettings] = []
    words: list[WordsSettings] = []
    fields: list[FieldsSettings] = []
    monkeypatch.setattr("fastdiff_ops.demo.report.run_demo", seen.append)
    monkeypatch.setattr("fastdiff_ops.demo.words_report.run_words_demo", words.append)
    monkeypatch.setattr("fastdiff_ops.demo.fields_report.run_fields_demo", fields.append)
    out = str(tmp_path / "x")
    assert (
        main(
            ["demo", "--out", out, "--label", "7", "--guidance-scale", "3", "--seed", "9", "--device", "cpu"]
        )
        == 0
    )
    expected = DemoSettings(out=Path(out), labels=(7,) * 10, guidance_scale=3.0, seed=9, device="cpu")
    assert seen == [expected]
    assert words == [WordsSettings(out=Path(out), seed=9, device="cpu")]
    assert fields == [FieldsSettings(out=Path(out), seed=9, device="cpu")]
    assert main(["demo"]) == 0
    assert seen[1] == DemoSettings()


def test_fields_are_fitted_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    pytest.importorskip("PIL")
    settings = FieldsSettings(out=tmp_path / "new", image_steps=3, sdf_steps=2, nerf_steps=2, device="cpu")
    written = run_fields_demo(settings)
    assert {path.name for path in written} == {path.name for path in settings.out.iterdir()}
    for path in written:
        assert min(plt.imread(path).shape[:2]) > 300, path
    assert not plt.get_fignums()
    text = capsys.readouterr().out
    for word in ("picture         3 steps", "surface         2 steps", "radiance field  2 steps", "held out"):
        assert word in text


def test_tables_of_the_report() -> None:
    from fastdiff_ops.demo.digits import ErrorCurve
    from fastdiff_ops.demo.timing import Timing

    errors = format_errors([ErrorCurve("ddim", (4, 8), (0.2, 0.1)), ErrorCurve("heun", (8, 16), (0.3, 0.1))])
    assert [line.split() for line in errors.splitlines()[1:2]] == [
        ["ddim", "2.00e-01", "1.00e-01", "-", "1.0"]
    ]
    timings = format_timings([Timing("fused", (1, 2), 1e-6), Timing("eager", (1, 2), 4e-6)])
    assert timings.splitlines()[-1].split()[-3:] == ["4.00", "µs", "4.00"]
