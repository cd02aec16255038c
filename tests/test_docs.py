"""The documentation is true: its examples run, its tables name what exists, its links lead somewhere."""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from fastdiff_ops import schedules
from fastdiff_ops.cli import build_parser, main
from fastdiff_ops.solvers import make_table, registry, solver_names
from fastdiff_ops.solvers.start import default_timesteps

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.M | re.S)
LOOSE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PICTURE_BYTES = 150_000


class Block(NamedTuple):
    """A fenced block of a page; `line` is that of its first line of text."""

    language: str
    note: str
    text: str
    line: int


def blocks(page: Path, language: str) -> list[Block]:
    text = page.read_text()
    found = [
        Block(m[1], m[2].strip(), m[3], text.count("\n", 0, m.start()) + 2) for m in FENCE.finditer(text)
    ]
    return [block for block in found if block.language == language]


def table_under(heading: str) -> dict[str, list[str]]:
    """Rows of the README's first table under a heading, by the name in their first cell."""
    section = re.search(rf"^#+ {re.escape(heading)}$(.*?)(^#|\Z)", README.read_text(), re.M | re.S)
    assert section, f"README has no section {heading!r}"
    rows = [line.strip("|").split("|") for line in section[1].splitlines() if line.startswith("| `")]
    assert rows, f"{heading!r} has no table"
    return {re.findall(r"`(\w+)", row[0])[0]: [cell.strip() for cell in row[1:]] for row in rows}


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to write into, and a registry of solvers that examples may extend."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_SOLVERS", dict(registry._SOLVERS))


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page: Path) -> None:
    """All blocks of a page, in order, in one namespace; a print with a comment prints that comment."""
    for library in ("diffusers", "transformers"):
        if f"from {library} import" in page.read_text():
            pytest.importorskip(library)
    namespace: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page, "python"):
        if block.note == "gpu" and not torch.cuda.is_available():
            compile(block.text, page.name, "exec")
            continue
        printed = io.StringIO()
        # the empty lines make a traceback show the page's own line numbers
        code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        promised = re.findall(r"^print\(.*\)  # (.*)$", block.text, re.M)
        if promised:
            assert printed.getvalue().splitlines() == promised, f"{page.name}, line {block.line}"


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_print_what_is_shown(page: Path) -> None:
    """Blocks `console` show a command line and its output, where `...` stands for anything."""
    for block in blocks(page, "console"):
        for entry in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
            command, _, expected = entry.partition("\n")
            program, *arguments = shlex.split(command)
            assert program == "fastdiff-ops", command
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
                assert main(arguments) == 0, command
            assert doctest.OutputChecker().check_output(expected, printed.getvalue(), LOOSE), (
                f"{page.name}, line {block.line}: {command}\n{printed.getvalue()}"
            )


def test_table_of_solvers() -> None:
    """Every solver is listed, with its evaluations on n steps and its slots of history."""
    rows = table_under("Solvers")
    assert sorted(rows) == solver_names()
    schedule, n = schedules.VE(), 12
    for name, (_, evaluations, slots, _, _) in rows.items():
        table = make_table(name, schedule, default_timesteps(schedule, n, None))
        assert len(table) == eval(re.sub(r"(\d)n", r"\1 * n", evaluations.strip("`")), {"n": n}), name
        assert table.n_hist == int(slots), name  # on other grids a weight may vanish


def test_table_of_schedules() -> None:
    rows = table_under("Schedules")
    classes = {n for n in schedules.__all__ if isinstance(getattr(schedules, n), type)} - {"NoiseSchedule"}
    assert set(rows) == classes
    for name, (kind, *_) in rows.items():
        assert getattr(schedules, name).kind == kind.strip("`")


def test_table_of_spacings() -> None:
    from fastdiff_ops.schedules.diffusers_spacings import spacings_on
    from fastdiff_ops.schedules.spacings import _NATIVE

    text = README.read_text()
    on_table = spacings_on(schedules.Discrete.from_table("linear"))
    for name in {*_NATIVE, *on_table, *(s for family in on_table.values() for s in family)}:
        assert f"`{name}`" in text, name


def test_commands_and_targets_exist() -> None:
    text = README.read_text()
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)) <= targets | {"help"}
    known = build_parser().format_help()
    for command in re.findall(r"fastdiff-ops ([a-z][a-z-]*)", text):
        assert re.search(rf"\n    {command}\s", known), command


def test_environment_variables_exist() -> None:
    """What the README lists is read somewhere, and what the package reads is listed."""
    folders = ("python", "csrc", "tests/cuda_emulation")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.*")] + [ROOT / "setup.py"]
    suffixes = {".py", ".h", ".cpp", ".cu"}
    code = "\n".join(path.read_text() for path in sources if path.suffix in suffixes)
    pattern = r"\bFASTDIFF_OPS_[A-Z]+(?:_[A-Z]+)*\b"
    used = set(re.findall(rf'"({pattern})"', code))
    assert set(re.findall(pattern, README.read_text())) == used


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    for link in re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)$", FENCE.sub("", target.read_text()), re.M) if anchor else []
        slugs = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
        assert not anchor or anchor in slugs, link


def test_paths_in_text_exist() -> None:
    """Files named in backticks, such as `csrc/ops.cpp`, are there; <family> and globs are patterns."""
    for page in PAGES:
        for name in re.findall(r"`((?:csrc|python|tests|tools|bench|docs)/[^`\s]*)`", page.read_text()):
            if "<" not in name and "*" not in name:
                assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "pictures").iterdir())
    assert pictures
    for path in pictures:
        assert path.stat().st_size < PICTURE_BYTES, f"{path.name}: {os.path.getsize(path)} bytes"
