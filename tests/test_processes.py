"""Several processes, started by torchrun, make the artifact that one process makes; killed, a rerun ends their work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prune_cli.artifacts import drafts
from prune_cli.artifacts.manifest import Recipe
from prune_cli.errors import PruneError
from prune_cli.represent import resume
from prune_cli.represent.resume import ResumeState
from prune_cli.runtime import processes
from tests.conftest import PATIENCE, Prune, sentences, write_rows
from tests.test_resume import ENVIRONMENT, digests

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "prune_cli"]


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start a command in two processes."""
    command = [*TORCHRUN, *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def of_rank(parent: int, rank: int) -> int:
    """The process of that rank among torchrun's children."""
    for folder in Path("/proc").iterdir():
        try:
            if not folder.name.isdigit() or f"\nPPid:\t{parent}\n" not in (folder / "status").read_text():
                continue
            if f"RANK={rank}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    raise AssertionError(f"no process of rank {rank}")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "train.jsonl", sentences(600))


@pytest.fixture(scope="module")
def whole(rows: Path, made: Path, prune: Prune, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes without an interruption."""
    out = tmp_path_factory.mktemp("whole") / "out"
    done = prune(*command(rows, made, out))
    assert done.code == 0, done.err
    return out


def command(rows: Path, made: Path, out: Path) -> list[object]:
    options = ["--kind", "hidden,dynamics,gradient", "--dim", 64, "--batch-size", 4, "--save-minutes", 0]
    return ["represent", rows, "-o", out, "--model", made / "warmup", *options]


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "more"), [(0, 2), (1, 1)])
def test_killed_and_run_again(
    rows: Path, made: Path, whole: Path, tmp_path: Path, prune: Prune, killed: int, more: int
) -> None:
    """kill -9 of either ends both; run again by two or by one, the bytes are those of one uninterrupted process."""
    out = tmp_path / "out"
    process = start(*command(rows, made, out))
    saved = tmp_path / f"out.part/.progress.{killed}.json"
    deadline = time.monotonic() + PATIENCE
    while not saved.exists():
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(of_rank(process.pid, killed), signal.SIGKILL)
    code, _, err = finish(process)
    assert code != 0
    assert "SIGKILL" in err or "Signal 9" in err  # torchrun says which process died, and of what
    assert not out.exists()
    if more == 2:
        code, printed, err = finish(start(*command(rows, made, out)))
        assert (code, printed) == (0, f"{out}\n"), err
        assert "going on from" in err
    else:
        done = prune(*command(rows, made, out))
        assert done.code == 0, done.err
    assert digests(out) == digests(whole)


@pytest.mark.slow
def test_two_make_what_one_makes(rows: Path, made: Path, whole: Path, tmp_path: Path) -> None:
    """Two processes from the start: the same bytes; again: up to date; each said once."""
    out = tmp_path / "out"
    code, printed, err = finish(start(*command(rows, made, out)))
    assert (code, printed) == (0, f"{out}\n"), err
    assert digests(out) == digests(whole)
    code, printed, err = finish(start(*command(rows, made, out)))
    assert (code, printed) == (0, f"{out}\n"), err
    assert err.count("represent: up to date") == 1


@pytest.mark.slow
def test_errors_are_told_once(rows: Path, made: Path, tmp_path: Path) -> None:
    """A bad row, found by both, is one line; a command that is the work of one process is refused in one."""
    bad = write_rows(tmp_path / "bad.jsonl", [*sentences(3), {"text": "the film", "label": None}])
    code, _, err = finish(start(*command(bad, made, tmp_path / "out")))
    assert code != 0
    assert err.count("error: ") == 1
    assert "bad.jsonl:4: label is null" in err
    code, _, err = finish(start("eval", "x", rows, "-o", tmp_path / "out"))
    assert code != 0
    assert err.count("error: eval: 2 processes; one is allowed") == 1


def test_what_is_certainly_done(tmp_path: Path) -> None:
    """As many processes with the same limits go on from their own states; others from where all have come."""
    limits = (2, 1000)
    assert resume.resume({}, 0, 2, limits) == ResumeState(2, limits, (0, 0), (0, 0), 1000)
    left = {0: ResumeState(2, limits, (0, 4), (1, 6), 500), 1: ResumeState(2, limits, (0, 4), (0, 12), 1000)}
    assert resume.resume(left, 0, 2, limits) == ResumeState(2, limits, (0, 12), (1, 6), 500)  # what fits is remembered
    assert resume.resume(left, 0, 1, limits) == ResumeState(1, limits, (0, 12), (0, 12), 1000)
    assert resume.resume(left, 1, 2, (4, 1000)) == ResumeState(2, (4, 1000), (0, 12), (0, 12), 1000)
    del left[1]  # of which nothing is known now
    assert resume.resume(left, 0, 1, limits).reached == (0, 4)
    left = {0: ResumeState(1, limits, (0, 12), (2, 0), 1000), 1: ResumeState(2, limits, (0, 4), (0, 8), 1000)}
    assert resume.resume(left, 0, 2, limits).reached == (2, 0)
    resume.save(tmp_path, 3, left[0])
    assert resume.read(tmp_path) == {3: left[0]}


@pytest.mark.slow
def test_processes_of_other_options_are_refused(rows: Path, made: Path, tmp_path: Path) -> None:
    """Started by hand with another batch size in each: they would leave out rows or do them twice."""
    words = " ".join(map(str, command(rows, made, tmp_path / "out")))
    torchrun = [*TORCHRUN[:-2], "--no-python", "bash", "-c"]
    script = f"exec {sys.executable} -m prune_cli {words.replace('--batch-size 4', '--batch-size $((4 + RANK))')}"
    process = subprocess.Popen(
        [*torchrun, script], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    code, _, err = finish(process)
    assert code != 0
    assert err.count("error: ") == 1
    assert "batch_size, tokens_per_batch: (4, 0) and (5, 0); the same in all processes is needed" in err
    assert not (tmp_path / "out").exists()


def test_a_draft_that_the_first_process_took_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the others then lack is told as a process that ended, not as a missing file."""
    monkeypatch.setattr(processes, "first", lambda: False)
    (tmp_path / "out.part").mkdir()
    with (
        pytest.raises(processes.PeerLost),
        drafts.draft(tmp_path / "out", Recipe("represent", {}, {}), {}, resumable=True) as draft,
    ):
        draft.path.rmdir()
        (draft.path / "rows.jsonl").write_text("")


@pytest.mark.parametrize("way", ["FSDP", "DEEPSPEED"])
def test_a_model_in_parts_is_refused(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What accelerate's settings ask for and is not done is told before any work."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", f"ACCELERATE_USE_{way}": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    with pytest.raises(PruneError, match=f"finetune: accelerate's settings ask for {way}; allowed: a whole model"):
        processes.join("finetune")
