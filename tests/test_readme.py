"""What the README shows works, and its table of methods is the one that the tool has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prune_cli.methods import method as methods
from tests.conftest import REPOSITORY, sentences, write_rows

TEXT = (REPOSITORY / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which `prune` is this one."""
    command = tmp_path / "bin" / "prune"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m prune_cli "$@"\n')
    command.chmod(0o755)
    return {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}


def run(command: list[str], folder: Path, shell: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=shell, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_worked_example(tmp_path: Path, shell: dict[str, str]) -> None:
    """The commands of the worked example run as they stand, on the sample data."""
    (tmp_path / "sample_data").symlink_to(REPOSITORY / "sample_data")
    run(["sh", "-e", "-c", blocks("sh")[0]], tmp_path, shell)
    assert (tmp_path / "runs" / "metrics" / "metrics.json").is_file()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_makefile(tmp_path: Path, shell: dict[str, str], tiny_model: Path) -> None:
    """The rules for a user's own project make everything once; touched data costs a look; changed data a remake."""
    (tmp_path / "Makefile").write_text(blocks("make")[0])
    write_rows(tmp_path / "train.jsonl", sentences(24))
    command = ["make", "runs/model/manifest.json", f"MODEL={tiny_model}"]
    assert run(command, tmp_path, shell).count("made in") == 5
    assert run(command, tmp_path, shell) == ""
    os.utime(tmp_path / "train.jsonl")
    assert run(command, tmp_path, shell).count("up to date") == 5
    assert run(command, tmp_path, shell) == ""
    write_rows(tmp_path / "train.jsonl", sentences(30))
    assert run(command, tmp_path, shell).count("made in") == 5


def test_the_table_of_methods() -> None:
    """The README names every published method with its halves and its source."""
    for method in methods.published().values():
        cells = (
            method.name,
            method.representation,
            method.score,
            method.select,
            method.objective,
            method.source,
        )
        assert "| " + " | ".join(cells) + " |" in TEXT
