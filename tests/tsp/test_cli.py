"""The commands below ``tsp``: files in, tours out, exit codes, one line for every mistake."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastdiff_ops import tsp
from fastdiff_ops.cli import main
from fastdiff_ops.tsp import solve_command
from fastdiff_ops.tsp.files import load_heatmap, read_problems, save_heatmap
from fastdiff_ops.tsp.text_format import TextInstance

N = 40


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, count: int = 1, n: int = N) -> np.ndarray:
    points = tsp.generate(n, count)
    tsp.write_text(name, [TextInstance(xy) for xy in points])
    return points


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_solve_a_batch(capsys: pytest.CaptureFixture[str]) -> None:
    points = write("x.txt", 3)
    assert main(["tsp", "solve", "x.txt", "--iterations", "2000", "--out", "tours.txt", "--json"]) == 0
    lines = list(tsp.read_text("tours.txt"))
    report = printed(capsys)
    assert [line["name"] for line in report] == ["x-1", "x-2", "x-3"]
    for xy, line, said in zip(points, lines, report, strict=True):
        np.testing.assert_array_equal(line.coords, xy)
        assert said["length"] == pytest.approx(float(tsp.tour_length(xy, line.tour)), rel=1e-12)
        assert said["iterations"] >= 2000 and said["stopped_by"] == "iterations"
        assert "tour" not in said


def test_iterations_alone_give_the_same_tour(capsys: pytest.CaptureFixture[str]) -> None:
    write("x.txt")
    found = []
    for threads in ("1", "2"):
        assert main(["tsp", "solve", "x.txt", "--iterations", "500", "--threads", threads, "--json"]) == 0
        found.append(printed(capsys)[0])
    assert found[0]["tour"] == found[1]["tour"]
    assert sorted(found[0]["tour"]) == list(range(N))


def test_instances_of_different_sizes_share_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.txt").write_text("0 0 1 0 1 1 0 1\n0 0 2 0 2 2 0 2 1 1\n")
    assert main(["tsp", "solve", "x.txt"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("x-1: 4 cities, length 4,")
    assert out[1].startswith("x-2: 5 cities, length 8.8284")
    assert out[2].startswith("mean of 2: length 6.4142")


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("0 0 1 0 1 1 0 1 output 1 3 2 4 1\n"))
    assert main(["tsp", "solve", "-"]) == 0
    assert capsys.readouterr().out.startswith("stdin: 4 cities, length 4, -17.157 % of the file's tour")


def test_tsplib_to_tour_and_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tsplib95", reason="TSPLIB files are read by tsplib95")
    pytest.importorskip("matplotlib", reason="draws pictures")
    assert main(["tsp", "generate", "--n", str(N), "--out", "x.tsp"]) == 0
    files = ["--out", "x.tour", "--plot", "x.png", "--curve", "c.png"]
    assert main(["tsp", "solve", "x.tsp", "--iterations", "3000", "--opt", "1e9", *files]) == 0
    text = capsys.readouterr().out
    instance = tsp.read_tsplib("x.tsp")
    assert instance.metric == "euc_2d" and (instance.coords == instance.coords.round()).all()
    length = instance.tour_length(tsp.read_tour("x.tour"))
    assert f"length {length:.10g}, {100 * (length / 1e9 - 1):.3f} % above 1000000000" in text
    assert Path("x.tour").read_text().startswith(f"NAME : x\nCOMMENT : Length {length:.12g}\n")
    for picture in ("x.png", "c.png"):
        assert Path(picture).read_bytes().startswith(b"\x89PNG")


def test_the_search_ends_at_the_optimum(capsys: pytest.CaptureFixture[str]) -> None:
    angles = np.arange(N) * (2 * np.pi / N)
    tsp.write_text("x.txt", [(np.stack([np.cos(angles), np.sin(angles)], -1), None)])
    optimum = N * 2 * np.sin(np.pi / N)
    arguments = ["--opt", f"{optimum * (1 + 1e-6):.15g}", "--time", "600", "--json"]
    assert main(["tsp", "solve", "x.txt", *arguments]) == 0
    report = printed(capsys)[0]
    assert report["stopped_by"] == "gap"
    assert report["gap_percent"] <= 1e-4


@pytest.fixture
def listening() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, also where tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_interruption_writes_the_best_tour(monkeypatch: pytest.MonkeyPatch) -> None:
    points = write("x.txt", n=200)[0]

    def solve(*arguments: Any, **options: Any) -> Any:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        return tsp.solve(*arguments, **options)

    monkeypatch.setattr(solve_command, "solve", solve)
    assert main(["tsp", "solve", "x.txt", "--time", "600", "--out", "x.tour"]) == 130
    assert tsp.tour_length(points, tsp.read_tour("x.tour")) < 0.3 * 200  # a random one has 104


def test_settings(capsys: pytest.CaptureFixture[str]) -> None:
    write("x.txt", n=200)
    tours = []
    for settings in ("{}", '{"segment": 3}', '{"segment": null}'):
        Path("s.json").write_text(settings)
        assert main(["tsp", "solve", "x.txt", "--iterations", "50", "--config", "s.json", "--json"]) == 0
        tours.append(printed(capsys)[0]["tour"])
    assert tours[0] == tours[2]
    assert tours[0] != tours[1]


def test_heatmaps_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    points = write("x.txt", 2)
    for kind, heat in (("knn", tsp.knn_prior_heatmap(points)), ("softdist", tsp.softdist_heatmap(points))):
        assert main(["tsp", "heatmap", "x.txt", "--kind", kind, "--out", "h.npz"]) == 0
        (ids, weights), edge_index = load_heatmap("h.npz")
        expected = tsp.Heatmap.from_any(heat)
        assert edge_index is None
        np.testing.assert_array_equal(ids, expected.ids)
        np.testing.assert_allclose(weights, expected.weights, rtol=1e-6)
        assert main(["tsp", "solve", "x.txt", "--heatmap", "h.npz", "--iterations", "10"]) == 0
    assert "neighbours of each of 40 cities" in capsys.readouterr().out


def test_formats_of_heatmaps() -> None:
    dense = np.random.default_rng(0).random((5, 5)).astype(np.float32)
    expected = tsp.Heatmap.from_any(dense)
    edge_index = np.stack(np.divmod(np.arange(25), 5))
    save_heatmap("ids.npz", np.tile(np.arange(5), (5, 1)), dense)
    np.save("dense.npy", dense)
    np.savez("one.npz", dense)
    csr = {"indptr": np.arange(6) * 5, "indices": np.tile(np.arange(5), 5), "data": dense.ravel()}
    np.savez("csr.npz", **csr, format="csr")
    np.savez("edges.npz", weights=dense.ravel(), edge_index=edge_index)
    np.savetxt("plain.txt", dense, fmt="%.9g")
    Path("counted.txt").write_text("5\n" + Path("plain.txt").read_text())
    for file in ("ids.npz", "dense.npy", "one.npz", "csr.npz", "edges.npz", "plain.txt", "counted.txt"):
        heatmap, edges = load_heatmap(file)
        found = tsp.Heatmap.from_any(heatmap, n=5 if edges is not None else None, edge_index=edges)
        np.testing.assert_array_equal(found.ids, expected.ids, err_msg=file)
        np.testing.assert_array_equal(found.weights, expected.weights, err_msg=file)


def test_nothing_is_unpickled() -> None:
    np.savez("x.npz", ids=np.array([{}], dtype=object), weights=np.zeros(1))
    np.save("x.npy", np.array([{}], dtype=object))
    for file in ("x.npz", "x.npy"):
        with pytest.raises(ValueError, match="allow_pickle=False"):
            load_heatmap(file)


def test_generate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tsp", "generate", "--n", "20", "--count", "3"]) == 0
    found = list(tsp.read_text(io.StringIO(capsys.readouterr().out)))
    np.testing.assert_array_equal([line.coords for line in found], tsp.generate(20, 3))
    assert found[0].tour is None
    arguments = ["--n", "20", "--count", "3", "--kind", "clustered", "--seed", "7", "--time", "0.1"]
    assert main(["tsp", "generate", *arguments, "--out", "t.txt"]) == 0
    points = tsp.generate(20, 3, kind="clustered", seed=7)
    for line, xy in zip(read_problems("t.txt"), points, strict=True):
        np.testing.assert_array_equal(line.instance.coords, xy)
        assert line.tour is not None
        assert tsp.tour_length(xy, line.tour) <= tsp.tour_length(xy, tsp.two_opt(xy, np.arange(20))) * 1.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solve", "absent.tsp"], "absent.tsp"),
        (["solve", "empty.txt"], "no instance"),
        (["solve", "broken.txt"], "line 1: "),
        (["solve", "x.atsp"], "ATSP"),
        (["solve", "x.txt", "--time", "0"], "number > 0"),
        (["solve", "x.txt", "--iterations", "0"], "positive integer"),
        (["solve", "x.txt", "--opt", "best"], "number > 0"),
        (["solve", "x.txt", "--opt", "3"], "2 instances|the file has 2"),
        (["solve", "x.txt", "--out", "x.tour"], ".txt file"),
        (["solve", "x.txt", "--plot", "x.png"], "one instance"),
        (["solve", "x.txt", "--out", "absent/x.txt"], "no such folder"),
        (["solve", "x.txt", "--heatmap", "small.npy"], "heatmap"),
        (["solve", "x.txt", "--heatmap", "odd.npz"], "got a"),
        (["solve", "x.txt", "--heatmap", "absent.npy"], "absent.npy"),
        (["solve", "x.txt", "--config", "empty.txt"], ""),
        (["solve", "x.txt", "--config", "odd.json"], "colour"),
        (["solve", "x.txt", "--device", "quantum"], "quantum"),
        (["solve", "x.txt", "--method", "magic"], "magic"),
        (["generate", "--n", "9", "--count", "2", "--out", "x.tsp"], "one instance"),
        (["heatmap", "sizes.txt", "--out", "h.npz"], "differ in size"),
        (["compare", "--solvers", "oracle"], "oracle"),
    ],
)
def test_bad_input_exits_with_2_and_one_line(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    write("x.txt", 2)
    Path("empty.txt").write_text("")
    Path("broken.txt").write_text("0 0 1\n")
    Path("x.atsp").write_text("NAME: x\nTYPE: ATSP\n")
    Path("odd.json").write_text('{"colour": 1}')
    Path("sizes.txt").write_text("0 0 1 1\n0 0 1 1 2 2\n")
    np.save("small.npy", np.ones((3, 3)))
    np.savez("odd.npz", a=np.ones(3), b=np.ones(3))
    before = sorted(Path().iterdir())
    assert main(["tsp", *arguments]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    last = captured.err.splitlines()[-1]
    assert last.startswith("fastdiff-ops") and any(part in last for part in message.split("|"))
    assert sorted(Path().iterdir()) == before  # found out before anything was written
