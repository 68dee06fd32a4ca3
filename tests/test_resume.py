"""Work that is killed goes on from where it was, to the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prune_cli.artifacts import files
from prune_cli.represent import resume as progress
from prune_cli.runtime import interrupt
from prune_cli.training import resume, trainer
from tests.conftest import PATIENCE, REPOSITORY, Prune, sentences, write_rows

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def kill_when(ready: Callable[[], bool], *arguments: object) -> None:
    """Run a command and kill it (SIGKILL: nothing can be tidied up) once `ready` says that it has got somewhere."""
    command = [sys.executable, "-m", "prune_cli", *map(str, arguments)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + PATIENCE
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
    return write_rows(tmp_path_factory.mktemp("rows") / "train.jsonl", sentences(480))


@pytest.mark.slow
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


@pytest.mark.slow
def test_finetune_goes_on_after_a_kill(rows: Path, tiny_model: Path, tmp_path: Path, prune_process: Prune) -> None:
    """Killed within the second epoch, training goes on from its last step to the same weights and dynamics."""

    def command(out: Path, minutes: float) -> list[object]:
        options = ["--keep-checkpoints", "epoch", "--epochs", 2, "--batch-size", 16, "--learning-rate", "1e-2"]
        return ["finetune", rows, "-o", out, "--model", tiny_model, *options, "--save-minutes", minutes]

    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert prune_process(*command(whole, 10), env=ENVIRONMENT).code == 0
    resume = out.with_name("killed.part") / ".resume"

    def in_second_epoch() -> bool:
        return any(int(p.parent.name.split("-")[1]) > 32 for p in resume.glob("checkpoint-*/whole"))

    kill_when(in_second_epoch, *command(out, 0))
    assert not out.exists()
    done = prune_process(*command(out, 10), env=ENVIRONMENT)
    assert done.code == 0, done.err
    assert "going on from" in done.err
    assert digests(out) == digests(whole)


def training(out: Path, data: Path, model: Path, *more: object) -> list[object]:
    """A training of 7 steps in 3 epochs (of 3 steps, the last in part) that saves its state after every step."""
    options = ["--steps", 7, "--batch-size", 8, "--keep-checkpoints", "epoch", "--keep-moments", "--save-minutes", 0]
    return ["finetune", data / "train.jsonl", "-o", out, "--model", model, *options, *more]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, prune: Prune, data: Path, tiny_model: Path) -> dict[str, str]:
    """The files of that training, uninterrupted."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert prune(*training(out, data, tiny_model)).code == 0
    return digests(out)


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the training end as at a kill once the state of a step is whole."""
    original = resume.seal

    def sealed(out: Path, state: Path) -> None:
        original(out, state)
        if resume.step_of(state) == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(resume, "seal", sealed)


@pytest.mark.parametrize(
    ("step", "lost"), [(3, "checkpoint"), (3, "a file of it"), (6, "half a file of it"), (6, "nothing")]
)
def test_a_state_after_an_epoch_has_its_checkpoint(
    step: int,
    lost: str,
    prune: Prune,
    data: Path,
    tiny_model: Path,
    tmp_path: Path,
    whole: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped right after an epoch's last state, its checkpoint is there; where it was lost, it is made again."""
    command = training(tmp_path / "out", data, tiny_model)
    with monkeypatch.context() as patch:
        stop_after(step, patch)
        assert prune(*command).code == 130
    checkpoint = tmp_path / "out.part" / "checkpoints" / str(step // 3)
    assert sorted(path.name for path in checkpoint.iterdir()) == FILES
    if lost == "checkpoint":
        shutil.rmtree(checkpoint)
    elif lost == "a file of it":
        (checkpoint / "moments.safetensors").unlink()
    elif lost == "half a file of it":
        os.truncate(checkpoint / "model.safetensors", 1000)
    ran = prune(*command)
    assert ran.code == 0, ran.err
    start = step if lost == "nothing" else step - 1
    assert f"finetune, steps: going on from {start} of 7" in ran.err
    assert digests(tmp_path / "out") == whole


FILES = ["config.json", "model.safetensors", "moments.safetensors"]


@pytest.mark.parametrize("call", [1, 2])
def test_killed_while_a_checkpoint_is_kept(
    call: int,
    prune: Prune,
    data: Path,
    tiny_model: Path,
    tmp_path: Path,
    whole: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A checkpoint that was not written to its end has no name yet, nor is there a state behind it."""
    command, calls = training(tmp_path / "out", data, tiny_model), 0
    original = files.sync_folder

    def stopping(folder: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        original(folder)

    with monkeypatch.context() as patch:
        patch.setattr("prune_cli.training.checkpoints.sync_folder", stopping)
        assert prune(*command).code == 130
    part = tmp_path / "out.part"
    assert [path.name for path in (part / "checkpoints").glob("*")] == [str(e) for e in range(1, call)]
    assert max(map(resume.step_of, (part / ".resume").iterdir())) == 3 * call - 1
    assert prune(*command).code == 0
    assert digests(tmp_path / "out") == whole


DAMAGE: dict[str, Callable[[Path], object]] = {
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "rng_state.pth", "record.safetensors", "whole"])
def test_a_damaged_state_is_not_gone_on_from(
    name: str,
    how: str,
    prune: Prune,
    data: Path,
    tiny_model: Path,
    tmp_path: Path,
    whole: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line tells of it, and the state before it is taken, or the start; the bytes are those of a whole run."""
    command = training(tmp_path / "out", data, tiny_model)
    with monkeypatch.context() as patch:
        stop_after(5, patch)
        assert prune(*command).code == 130
    states = tmp_path / "out.part" / ".resume"
    assert sorted(path.name for path in states.iterdir()) == ["checkpoint-4", "checkpoint-5"]
    DAMAGE[how](states / "checkpoint-5" / name)
    told = ["resume state of step 5 is damaged; going on from step 4"]
    if name == "whole" and how == "gone":
        told = []  # as of a state that was not written to its end
    start = 4
    if name == "optimizer.pt":
        DAMAGE[how](states / "checkpoint-4" / name)
        told = [f"resume state of step {step} is damaged; starting from the first step" for step in (5, 4)]
        start = 0
    ran = prune(*command)
    assert ran.code == 0, ran.err
    assert [line for line in ran.err.splitlines() if "resume state" in line] == told
    assert (f"going on from {start} of 7" in ran.err) == (start > 0)
    assert digests(tmp_path / "out") == whole


def send_at(call: int, times: int, number: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Send this process a signal in a call for a batch's loss; returns the calls that went on after it."""
    original, calls, ended = trainer._Trainer.compute_loss, 0, []

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            for _ in range(times):
                os.kill(os.getpid(), number)
        loss = original(*arguments, **keywords)
        ended.append(calls)
        return loss

    monkeypatch.setattr(trainer._Trainer, "compute_loss", interrupted)
    return ended


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, as it does where tests do not run in the background; SIGTERM does as well."""
    monkeypatch.setattr(interrupt, "_came", False)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        assert signal.signal(number, handler) is signal.default_int_handler  # it was put back


@pytest.mark.parametrize(  # two batches a step, three steps an epoch
    ("call", "step", "number"),
    [(3, 2, signal.SIGINT), (5, 3, signal.SIGINT), (6, 3, signal.SIGTERM), (9, 5, signal.SIGINT)],
)
def test_an_interrupted_step_is_finished_and_saved(
    number: int,
    call: int,
    step: int,
    prune: Prune,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    signals: None,
) -> None:
    """At Ctrl-C or SIGTERM the step under way is finished and saved, after its epoch's checkpoint where it ends one."""
    write_rows(tmp_path / "train.jsonl", sentences(24))

    def command(out: str) -> list[object]:
        return training(tmp_path / out, tmp_path, tiny_model, "--batch-size", 4, "--accumulate", 2, "--save-minutes", 9)

    assert prune(*command("whole")).code == 0
    with monkeypatch.context() as patch:
        ended = send_at(call, 1, number, patch)
        ran = prune(*command("out"))
    assert (ran.code, ended[-1]) == (130, 2 * step)
    part = tmp_path / "out.part"
    assert [path.name for path in (part / ".resume").iterdir()] == [f"checkpoint-{step}"]
    assert (part / "checkpoints" / "1").exists() == (step >= 3)
    ran = prune(*command("out"))
    assert f"finetune, steps: going on from {step} of 7" in ran.err
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_a_second_ctrl_c_leaves_at_once(
    prune: Prune, data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: None
) -> None:
    """Two in one step: it is not finished, and nothing of it is saved."""
    with monkeypatch.context() as patch:
        ended = send_at(5, 2, signal.SIGINT, patch)
        assert prune(*training(tmp_path / "out", data, tiny_model)).code == 130
    assert ended[-1] == 4
    states = (tmp_path / "out.part" / ".resume").iterdir()
    assert max(map(resume.step_of, states)) == 4


def test_ctrl_c_in_the_last_step_is_not_lost(
    prune: Prune, data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: None
) -> None:
    """It ends the command as any other; the state before it is gone on from, to the same bytes."""
    assert prune(*training(tmp_path / "whole", data, tiny_model)).code == 0
    with monkeypatch.context() as patch:
        send_at(7, 1, signal.SIGINT, patch)
        assert prune(*training(tmp_path / "out", data, tiny_model)).code == 130
    ran = prune(*training(tmp_path / "out", data, tiny_model))
    assert "finetune, steps: going on from 6 of 7" in ran.err
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def lose_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def change(text: str, other: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(path.read_text().replace(text, other))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("gradient.safetensors", Path.unlink),
        ("gradient.safetensors", lose_half),
        ("gradient.safetensors", DAMAGE["zeros"]),
        ("hidden.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-200] + bytes(200))),
        (".hidden.sums", Path.unlink),
        (".progress.0.json", lambda path: path.write_text("{")),
        (".progress.0.json", change('"reached": [0', '"reached": [1')),
        (".progress.0.json", change('"tokens": ', '"tokens": 1')),
    ],
)
def test_a_damaged_draft_of_represent_is_not_gone_on_from(
    name: str,
    damage: Callable[[Path], object],
    prune: Prune,
    data: Path,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is saved is known by its checksums; with any of it lost, the walk starts anew, to the same bytes."""

    def command(out: str) -> list[object]:
        options = ["--kind", "hidden,gradient", "--dim", 64, "--batch-size", 4, "--save-minutes", 0]
        return ["represent", data / "train.jsonl", "-o", tmp_path / out, "--model", made / "warmup", *options]

    assert prune(*command("whole")).code == 0
    save, calls = progress.save, []

    def stopping(*arguments: Any) -> None:
        save(*arguments)
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(progress, "save", stopping)
        assert prune(*command("out")).code == 130
    damage(tmp_path / "out.part" / name)
    ran = prune(*command("out"))
    assert ran.code == 0, ran.err
    told = "what an interrupted run saved is damaged; starting from the first row" in ran.err
    assert told == (not name.startswith(".progress"))
    assert "going on" not in ran.err
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
