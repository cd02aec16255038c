"""The study of the encodings' quality, in miniature."""

from __future__ import annotations

import json

import encoding_quality
import pytest
from encoding_quality import ARMS, CUBIC, TASKS, entries, main, options_of


@pytest.mark.parametrize("n", TASKS)
def test_equal_parameters(n):
    """At most as many as the cubic grid, and not far fewer: dense levels grow in jumps.

    The control has the growth of what it controls.
    """
    for table in TASKS[n].tables:
        cubic = entries(n, CUBIC, options_of(n, table, CUBIC))
        for arm in ("axis, equal parameters", "density, equal parameters"):
            assert 0.85 * cubic <= entries(n, arm, options_of(n, table, arm)) <= cubic
        same = options_of(n, table, "axis, equal parameters")["per_level_scale"]
        assert options_of(n, table, "cubic, growth of axis")["per_level_scale"] == same


def test_a_small_study(tmp_path, capsys, monkeypatch):
    """Runs are kept one by one, repeat exactly, are not repeated, and are compared seed by seed."""
    path = tmp_path / "results.json"
    command = ["--results", str(path), "--dimensions", "2", "--log2-tables", "8", "--steps", "0.005"]
    arms = ["--arms", CUBIC, "density"]
    fit = encoding_quality.fit

    def interrupted(*run):
        if len(json.loads(path.read_text())["runs"] if path.exists() else []) == 3:
            raise KeyboardInterrupt
        return fit(*run)

    monkeypatch.setattr(encoding_quality, "fit", interrupted)
    main([*command, *arms, "--seeds", "2"])
    assert len(json.loads(path.read_text())["runs"]) == 3
    monkeypatch.setattr(encoding_quality, "fit", fit)
    capsys.readouterr()
    main([*command, *arms, "--seeds", "2"])
    table = capsys.readouterr().out
    runs = json.loads(path.read_text())["runs"]
    assert [(run["arm"], run["seed"]) for run in runs] == [
        (CUBIC, 100), ("density", 100), (CUBIC, 101), ("density", 101)
    ]  # fmt: skip
    gaps = [runs[i + 1]["psnr"] - runs[i]["psnr"] for i in (0, 2)]
    error = abs(gaps[0] - gaps[1]) / 2  # of the mean of two
    assert f"| {sum(gaps) / 2:+.2f} ± {error:.2f} (" in table and "| 2 | 2^8 | 2 |" in table
    assert fit(2, 8, "density", 101, 0.02, 2)["psnr"] == runs[3]["psnr"]
    before = path.read_text()
    main([*command, "--report", "--arms", *ARMS])
    assert path.read_text() == before and capsys.readouterr().out == table
