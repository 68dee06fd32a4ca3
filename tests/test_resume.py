"""Work that is killed goes on from where it was, to the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Prune, sentences, write_rows

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def kill_when(ready: Callable[[], bool], *arguments: object) -> None:
    """Run a command and kill it (SIGKILL: nothing can be tidied up) once `ready` says that it has got somewhere."""
    command = [sys.executable, "-m", "prune_cli", *map(str, arguments)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 100
    while not ready():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file but the manifest, which tells times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "train.jsonl", sentences(1200))


def test_represent_goes_on_after_a_kill(rows: Path, made: Path, tmp_path: Path, prune_process: Prune) -> None:
    """Killed in the middle, the same command takes up the saved batches and ends with an uninterrupted run's bytes."""

    def command(out: Path) -> list[object]:
        options = ["--kind", "hidden,dynamics,gradient", "--dim", 64, "--batch-size", 4, "--save-minutes", 0]
        return ["represent", rows, "-o", out, "--model", made / "warmup", *options]

    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert prune_process(*command(whole), env=ENVIRONMENT).code == 0
    part = out.with_name("killed.part")
    kill_when((part / ".progress.0.json").exists, *command(out))
    assert not out.exists()
    reached = json.loads((part / ".progress.0.json").read_text())
    assert reached["reached"][0] == 0  # still
    before = (part / "gradient.safetensors").stat().st_ino
    done = prune_process(*command(out), env=ENVIRONMENT)
    assert done.code == 0, done.err
    assert "going on from" in done.err
    assert (out / "gradient.safetensors").stat().st_ino == before  # the very file that was half filled
    assert digests(out) == digests(whole)
    assert not part.exists()


def test_finetune_goes_on_after_a_kill(rows: Path, tiny_model: Path, tmp_path: Path, prune_process: Prune) -> None:
    """Killed within the second epoch, training goes on from its last step to the same weights and dynamics."""

    def command(out: Path, minutes: float) -> list[object]:
        options = ["--checkpoints", "epoch", "--epochs", 2, "--batch-size", 16, "--learning-rate", "1e-2"]
        return ["finetune", rows, "-o", out, "--model", tiny_model, *options, "--save-minutes", minutes]

    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert prune_process(*command(whole, 10), env=ENVIRONMENT).code == 0
    resume = out.with_name("killed.part") / ".resume"

    def in_second_epoch() -> bool:
        return any(int(p.parent.name.split("-")[1]) > 80 for p in resume.glob("checkpoint-*/whole"))

    kill_when(in_second_epoch, *command(out, 0))
    assert not out.exists()
    done = prune_process(*command(out, 10), env=ENVIRONMENT)
    assert done.code == 0, done.err
    assert "going on from" in done.err
    assert digests(out) == digests(whole)
