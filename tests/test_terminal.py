"""What a terminal, a path or an odd name could do to the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prune_cli.pipeline.entries import read_entry
from prune_cli.runtime.progress import each_once, note
from prune_cli.runtime.terminal import clean
from tests.conftest import REPOSITORY, Prune, sentences, write_rows


def test_control_characters_become_escapes() -> None:
    """Colours, bells, carriage returns and direction marks are written out; newline, tab and letters stay."""
    assert clean("a\x1b[31mb\rc\x07\u202ed\n\té漢") == "a\\x1b[31mb\\rc\\x07\\u202ed\n\té漢"
    assert clean("half \udce9") == "half \\udce9"


def test_labels_do_not_reach_the_terminal_raw(tmp_path: Path, prune: Prune) -> None:
    """A label with an escape sequence is harmless in messages and in `show`."""
    rows = [{**row, "label": "\x1b[2Jx" if i % 2 else "y", "id": f"\x07{i}"} for i, row in enumerate(sentences(6))]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    ran = prune("select", data, "-o", tmp_path / "kept", "--method", "random", "--keep", 3)
    assert ran.code == 0, ran.err
    for shown in (
        prune("show", tmp_path / "kept"),
        prune("select", data, "-o", data, "--method", "\x1b[2J", "--keep", 1),
    ):
        assert "\x1b" not in shown.out + shown.err and "\x07" not in shown.out + shown.err
        assert "\\x1b[2J" in shown.out + shown.err


@pytest.mark.parametrize("out", ["-", "..", "/proc/x/y"])
def test_a_place_that_is_no_name(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prune: Prune) -> None:
    """An artifact cannot be made there: one line, and no folder called `-`."""
    monkeypatch.chdir(tmp_path)
    data = write_rows(tmp_path / "rows.jsonl", sentences(6))
    ran = prune("select", data, "-o", out, "--method", "random", "--keep", 3)
    assert ran.code == 1 and len(ran.errors) == 1 and ran.errors[0].startswith(out)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_an_argument_that_is_no_text(tmp_path: Path) -> None:
    """A path whose bytes are not UTF-8 is refused in one line, before any work."""
    command: list[str | bytes] = [sys.executable, "-m", "prune_cli", "select", b"caf\xe9.jsonl"]
    command += ["-o", "kept", "--method", "random"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([*command, "--keep", "1"], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr == b"error: caf\\udce9.jsonl: an argument that is not UTF-8; allowed: UTF-8\n"


def test_an_output_around_or_within_an_input_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prune: Prune
) -> None:
    """Replacing an artifact must not take an input that lies in it along."""
    monkeypatch.chdir(tmp_path)
    data = write_rows(tmp_path / "rows.jsonl", sentences(12))
    start = ["select", data, "--method", "random", "--keep", 6, "-o"]
    assert prune(*start, "kept").code == 0
    within = prune("select", "kept", "--method", "random", "--keep", 3, "-o", "kept/again")
    assert within.errors == ["kept/again: lies in the input kept; choose another -o"]
    write_rows(tmp_path / "kept" / "inner.jsonl", sentences(6))
    around = prune("select", "kept/inner.jsonl", "--method", "random", "--keep", 3, "-o", "kept", "--force")
    assert around.code == 1 and len(around.errors) == 1
    assert (tmp_path / "kept" / "inner.jsonl").exists() and (tmp_path / "kept" / "select.jsonl").exists()


def test_an_interrupt_while_the_program_is_loaded(tmp_path: Path) -> None:
    """Ctrl-C before the command line is there ends with 130 and one line, without a traceback."""
    code = (
        "import sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'prune_cli.cli': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "from prune_cli.__main__ import main; main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("less", ("less", "none", "label")),
        ("less-keep", ("less", "keep", "label")),
        ("s2l-hidden-equal-group", ("s2l-hidden", "equal", "group")),
        ("hard_to_learn", ("hard-to-learn", "none", "label")),
    ],
)
def test_a_method_is_known_by_its_name_in_tables(name: str, expected: tuple[str, str, str]) -> None:
    """What a table prints can be put into a pipeline file."""
    entry = read_entry(name, Path())
    assert (entry.method.name, entry.balance, entry.balance_by) == expected


def test_in_a_block_each_note_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Behind it notes are said again."""
    for _ in range(2):
        with each_once():
            for text in ("rows were cut", "rows were cut", "done"):
                note(text)
    note("done")
    note("done")
    assert capsys.readouterr().err.splitlines() == ["rows were cut", "done"] * 2 + ["done"] * 2
