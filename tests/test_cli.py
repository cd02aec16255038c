"""The command line: each command, what it writes, its exit codes and messages."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from fastdiff_ops import cli
from fastdiff_ops.cli import main
from fastdiff_ops.schedules import EDM, FlowMatching, VPCosine, timesteps
from fastdiff_ops.solvers import SolverTable, make_table
from safetensors.torch import load_file

TOURS = ("tsp solve", "tsp generate", "tsp heatmap", "tsp compare", "tsp tune")
COMMANDS = ("demo", "sample", "masked-demo", "plan", "fit-image", "fit-sdf", "fit-nerf", "info", *TOURS)


def read_grey_png(path: Path) -> np.ndarray:
    """Decode a PNG as :func:`fastdiff_ops.demo.pictures.write_png` writes it, checking the checksums."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, colour) == (8, 0)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    return rows[:, 1:]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_that_parse(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    examples = [line.split() for line in text.splitlines() if line.startswith(f"  fastdiff-ops {command}")]
    assert examples
    for words in examples:
        words = words[: words.index(">")] if ">" in words else words
        cli.build_parser().parse_args(words[1:])


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command.split()[0] in text for command in COMMANDS)


def test_module_and_program_are_the_same() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "fastdiff_ops", "info", "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout)["torch"]["version"] == torch.__version__
    assert run.stderr == ""


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert torch.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["paint"], "paint"),
        (["plan", "--solver", "rk45"], "dpmpp_2m"),
        (["plan", "--steps", "0"], "positive integer"),
        (["plan", "--steps", "many"], "positive integer"),
        (["plan", "--schedule", "spiral"], "vp_cosine"),
        (["plan", "--schedule", "flow:shift=-1"], "shift"),
        (["plan", "--schedule", "discrete:beta=nope"], "nope"),
        (["plan", "--spacing", "zigzag"], "zigzag"),
        (["plan", "--spacing", "karras:sigma=7"], "sigma"),
        (["plan", "--family", "dpm"], "--spacing"),
        (["plan", "--option", "order"], "KEY=VALUE"),
        (["plan", "--option", "depth=3"], "depth"),
        (["plan", "--prediction-type", "epsilon"], "epsilon"),
        (["sample", "--label", "10"], "digit"),
        (["sample", "--n", "-3"], "positive integer"),
        (["sample", "--out", "digits.jpeg"], ".png"),
        (["demo", "--label", "x"], "digit"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_why(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "--table", "absent.json"], "absent.json"),
        (["plan", "--table", "broken.json"], "JSON"),
        (["sample", "--table", "edm.json"], "schedule"),
        (["sample", "--device", "quantum"], "quantum"),
        (["sample", "--out", "file/digits.png"], "file"),
    ],
)
def test_failure_exits_with_1_and_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("{")
    Path("file").write_text("")
    Path("edm.json").write_text(make_table("euler", EDM(), [80.0, 1.0]).to_json())
    assert main(arguments) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("fastdiff-ops: ")]
    assert len(lines) == 1
    assert message in lines[0]


def test_plan_prints_and_exports_exactly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "table.json"
    arguments = [
        "--solver",
        "dpmpp_3m",
        "--steps",
        "7",
        "--schedule",
        "flow:shift=1.5",
        "--spacing",
        "flow:shift=2",
    ]
    arguments += ["--option", "variant=heun", "--prediction-type", "velocity"]
    assert main(["plan", *arguments, "--export", str(file)]) == 0
    out = capsys.readouterr().out
    schedule = FlowMatching(shift=1.5)
    table = make_table("dpmpp_3m", schedule, timesteps(schedule, 7, "flow", shift=2.0), variant="heun").bind(
        "velocity"
    )
    assert str(table) in out
    assert SolverTable.from_json(file.read_text()) == table
    assert main(["plan", "--table", str(file)]) == 0
    assert str(table) in capsys.readouterr().out


def test_plan_takes_the_spacing_that_suits_the_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--steps", "5", "--schedule", "vp_cosine"]) == 0
    schedule = VPCosine()
    assert str(make_table("dpmpp_2m", schedule, timesteps(schedule, 5, "logSNR"))) in capsys.readouterr().out


def test_plan_of_a_discrete_schedule_with_diffusers_spacing(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--schedule", "discrete:beta=scaled_linear,reading=diffusers", "--family", "dpm"]
    assert main(["plan", "--steps", "4", "--spacing", "linspace", *arguments]) == 0
    assert "999" in capsys.readouterr().out


def test_plan_draws(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "plan.png"
    assert main(["plan", "--steps", "6", "--plot", str(file)]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert file.stat().st_size > 5000


def test_sample_writes_the_same_digits_in_every_format(tmp_path: Path) -> None:
    common = ["sample", "--n", "12", "--steps", "8", "--device", "cpu", "--seed", "5"]
    for suffix in ("png", "npz", "safetensors"):
        assert main([*common, "--out", str(tmp_path / f"new/digits.{suffix}")]) == 0
    arrays = np.load(tmp_path / "new/digits.npz")
    tensors = load_file(tmp_path / "new/digits.safetensors")
    assert arrays["images"].shape == (12, 1, 16, 16)
    assert arrays["labels"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert np.array_equal(arrays["images"], tensors["images"].numpy())
    assert np.array_equal(arrays["labels"], tensors["labels"].numpy())
    picture = read_grey_png(tmp_path / "new/digits.png")
    assert picture.shape == (2 * 68, 10 * 68)
    assert picture[68:, 2 * 68 :].min() == 255  # two digits in the second row, then paper
    assert picture[68:, : 2 * 68].min() < 50
    assert picture.max() == 255


def test_sample_depends_on_seed_label_and_guidance(tmp_path: Path) -> None:
    def draw(*arguments: str) -> np.ndarray:
        file = tmp_path / "digits.npz"
        common = ["sample", "--n", "2", "--steps", "4", "--device", "cpu", "--label", "3", "--out", str(file)]
        assert main([*common, *arguments]) == 0
        return np.load(file)["images"]

    first = draw("--seed", "1")
    assert np.array_equal(first, draw("--seed", "1"))
    others = [
        draw("--seed", "2"),
        draw("--seed", "1", "--label", "4"),
        draw("--seed", "1", "--guidance-scale", "1"),
    ]
    assert all(np.abs(first - other).max() > 0.1 for other in others)


def test_sample_follows_a_table_from_a_file(tmp_path: Path) -> None:
    schedule = VPCosine()
    table = make_table("dpmpp_2m", schedule, timesteps(schedule, 6, "time_uniform"))
    (tmp_path / "table.json").write_text(table.to_json())
    common = ["sample", "--n", "2", "--device", "cpu"]
    by_table, by_name = str(tmp_path / "a.npz"), str(tmp_path / "b.npz")
    assert main([*common, "--table", str(tmp_path / "table.json"), "--out", by_table]) == 0
    assert main([*common, "--steps", "6", "--spacing", "time_uniform", "--out", by_name]) == 0
    assert np.array_equal(np.load(by_table)["images"], np.load(by_name)["images"])


def test_interrupt_in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["fastdiff_ops.show_versions"], "show_versions", interrupt)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "fastdiff-ops: interrupted\n"


@pytest.mark.slow
def test_control_c_ends_a_run_with_130(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fastdiff_ops", "sample", "--steps", "4000", "--device", "cpu"]
    log, deadline = tmp_path / "stderr", time.monotonic() + 100
    command += ["--out", str(tmp_path / "x.png")]

    def listen() -> None:  # a test run in the background of a shell inherits deafness to SIGINT
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stderr=stderr, preexec_fn=listen) as process,
    ):
        try:
            while "evaluation" not in log.read_text() and time.monotonic() < deadline:
                time.sleep(0.1)  # until the progress bar shows that sampling has begun
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()
    assert log.read_text().rstrip().endswith("fastdiff-ops: interrupted")
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_disaster() -> None:
    command = f"{sys.executable} -m fastdiff_ops plan --steps 4000 | head -n 1"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("dpmpp_2m")
    assert run.stderr == ""
