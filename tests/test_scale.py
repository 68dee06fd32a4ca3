"""Memory on many rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Prune, sentences, write_rows

FEW, MANY = 20_000, 200_000
# A process starts with the peak of the one that forks it as its own: a small one in between keeps that of the tests out
MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def peak(*arguments: object) -> int:
    """Peak resident memory of a command, in the system's unit."""
    command = [sys.executable, "-c", MEASURE, sys.executable, "-m", "prune_cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=330, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.slow
def test_memory_stays_flat_from_20_000_rows_to_200_000(
    prune: Prune, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    """Ten times the rows take at most a tenth more memory, though what is written is ten times as much."""
    model = tmp_path / "model"
    quick = ["--epochs", 1, "--batch-size", 8]
    trained = prune("finetune", data / "train.jsonl", "-o", model, "--model", tiny_model, *quick)
    assert trained.code == 0, trained.err
    kinds = ["--kind", "hidden,dynamics,gradient", "--dim", 64, "--batch-size", 512]
    peaks, written = {}, {}
    for n in (FEW, MANY):
        rows, out = write_rows(tmp_path / f"{n}.jsonl", sentences(n)), tmp_path / f"represented-{n}"
        peaks[n] = peak("represent", rows, "-o", out, "--model", model, *kinds)
        written[n] = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    assert written[MANY] > 9 * written[FEW]
    assert peaks[MANY] <= 1.1 * peaks[FEW], peaks
