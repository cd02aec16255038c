"""What the command ``plan`` refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastdiff_ops.cli import main
from fastdiff_ops.schedules import EDM
from fastdiff_ops.solvers import make_table

CHOICES = [
    ["--solver", "dpmpp_2m"],
    ["--steps", "10"],
    ["--spacing", "karras"],
    ["--family", "native"],
    ["--final-sigma", "zero"],
    ["--option", "eta=0"],
]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        *(("plan", arguments) for arguments in [*CHOICES, ["--schedule", "vp_cosine"]]),
        *(("sample", arguments) for arguments in CHOICES),
    ],
)
def test_what_the_table_says_is_not_chosen_again(
    command: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even as it is by default."""
    file = tmp_path / "table.json"
    file.write_text(make_table("euler", EDM(), [80.0, 1.0]).to_json())
    assert main([command, "--table", str(file), *arguments]) == 2
    captured = capsys.readouterr()
    assert f"{arguments[0]} has no effect with --table" in captured.err
    assert captured.out == ""


def test_steps_that_no_run_can_make(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--steps", "16777215"]) == 2
    assert "expected at most 16777214, got '16777215'" in capsys.readouterr().err


def test_steps_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan"]) == 0
    assert "dpmpp_2m" in (out := capsys.readouterr().out)
    assert "10 evaluations" in out
    assert main(["plan", "--help"]) == 0
    assert "(default 10)" in capsys.readouterr().out
