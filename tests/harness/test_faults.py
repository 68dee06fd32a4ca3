"""Every call by which a command changes files fails once: killed there, interrupted, or out of disk.

After each the same command must end in the bytes of an undisturbed run and leave nothing else behind, and no artifact
that is half there may be taken for a whole one in between.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from prune_cli.artifacts.manifest import is_artifact, open_artifact
from tests.conftest import sentences, write_rows
from tests.harness.forks import COUNT, FULL, INTERRUPT, KILL, Command, Ended, Run, server
from tests.test_resume import digests

pytestmark = pytest.mark.slow
SAVES = ["--save-minutes", "0"]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with server() as serving:
        yield serving


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, made: Path, tiny_model: Path, data: Path) -> dict[str, str]:
    """The paths that the commands below name."""
    folder = tmp_path_factory.mktemp("inputs")
    few = write_rows(folder / "few.jsonl", sentences(6))
    other = write_rows(folder / "other.jsonl", sentences(7))
    file = folder / "pipeline.toml"
    file.write_text(
        f"""train = "{few}"\nvalidation = "{other}"\nmodel = "{tiny_model}"\nmethods = ["random", "el2n"]
keep = [0.5]\nseeds = [0]\n[tests]\nfew = "{few}"\n[warmup]\nepochs = 1\nbatch_size = 3\n[finetune]\nepochs = 1
batch_size = 3\n"""
    )
    names = {"few": few, "other": other, "model": tiny_model, "made": made, "data": data, "pipeline": file}
    return {name: str(path) for name, path in names.items()}


TRAIN = "finetune {few} --model {model} --batch-size 3 --epochs 2 --learning-rate 1e-2"
COMMANDS = {
    "score": "score {few} --method random",
    "select": "select {made}/score --method top --keep 3",
    "represent": "represent {few} --model {made}/warmup --kind hidden,dynamics,gradient --dim 32 --batch-size 3",
    "influence": "represent {few} --model {made}/warmup --kind influence --target-data {other} --batch-size 4",
    "finetune": f"{TRAIN} --keep-checkpoints epoch --keep-moments",
    "lora": f"{TRAIN} --tune lora --lora-rank 2 --keep-checkpoints epoch",
    "eval": "eval {made}/warmup {few} {other}",
    "pipeline": "pipeline {pipeline} --device cpu",
}
REPLACED = ("score", "select", "represent", "finetune")  # tried again over an artifact of another recipe
RESUMED = ("represent", "influence", "finetune", "lora")
# Of a command that makes the same calls again and again (at each step, or in each stage): one fault in so many.
EVERY = {"pipeline": 5, "finetune": 3, "lora": 3}


def command(name: str, inputs: dict[str, str], folder: Path, at: int = 0, action: int = COUNT) -> Command:
    """One of COMMANDS, which makes `out` in a folder."""
    words = [word.format(**inputs) for word in COMMANDS[name].split()]
    words += [*(SAVES if name in RESUMED else []), "-o", str(folder / "out")]
    return Command(tuple(words), str(folder), at, action)


def halves(folder: Path) -> list[str]:
    """Artifacts whose manifest can be read, but which are not whole: what no reader may see."""
    bad = []
    for path in {manifest.parent for manifest in folder.rglob("manifest.json")}:
        if path.name.endswith(".part") or not is_artifact(path):
            continue
        artifact = open_artifact(path)
        bad += [f"{path}: {name}" for name in artifact.files if not (path / name).is_file()]
        for name in artifact.files:
            artifact.file(name)
    return bad


def check_ended(ended: Ended, action: int) -> None:
    """Killed without a word, or one line; never a traceback, never a hang."""
    assert "Traceback" not in ended.err, ended.err
    if action == KILL:
        assert ended.code in (-9, 0), ended
    elif action == INTERRUPT:
        assert ended.code in (130, 0), ended
    else:
        assert ended.code in (0, 1), ended
        assert len(ended.errors) == ended.code, ended.err


def left_over(folder: Path) -> list[str]:
    """What a command should not leave: drafts, old versions, scratch files."""
    names = [path.name for path in folder.rglob("*")]
    return [name for name in names if name.startswith(".") or name.endswith((".part", ".replaced", ".tmp"))]


@pytest.mark.parametrize(
    ("name", "again"), [*((name, False) for name in COMMANDS), *((name, True) for name in REPLACED)]
)
def test_a_fault_at_every_call(
    name: str, again: bool, run: Run, inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At each call: killed, interrupted, or the disk full from there on. Then the command again, undisturbed.

    again: an artifact of another recipe is there already, and is replaced.
    """
    before = tmp_path / "before"
    if again:
        before.mkdir()
        other = run(other_recipe(name, inputs, before))[0]
        assert other.code == 0, other.err

    def prepared(folder: Path) -> Path:
        if again:
            shutil.copytree(before, folder)
        else:
            folder.mkdir()
        return folder

    more = ("--replace",) if again else ()
    whole = prepared(tmp_path / "whole")
    first = run(with_words(command(name, inputs, whole), more))[0]
    assert first.code == 0, first.err
    wanted, calls = digests(whole), first.seen
    assert calls, "faults.c counts nothing here"
    assert not left_over(whole)
    tally: Counter[str] = Counter()
    for at in range(1, calls + 1):
        for action in (KILL, INTERRUPT, FULL):
            if (at + action) % EVERY.get(name, 1):
                continue
            folder = prepared(tmp_path / f"{at}-{action}")
            ended = run(with_words(command(name, inputs, folder, at, action), more))[0]
            check_ended(ended, action)
            assert not halves(folder), (at, action)
            done = run(with_words(command(name, inputs, folder), more))[0]
            assert done.code == 0, (at, action, done.err)
            assert digests(folder) == wanted, (at, action, ended.err, done.err)
            assert not left_over(folder), (at, action)
            tally[f"{action}"] += 1
            shutil.rmtree(folder)
    with capsys.disabled():
        print(f"\n{name}{' again' if again else ''}: {calls} calls, {sum(tally.values())} faults")


def other_recipe(name: str, inputs: dict[str, str], folder: Path) -> Command:
    """A command that makes the same artifact of other rows, or fewer."""
    made = command(name, {**inputs, "few": inputs["other"]}, folder)
    return with_words(made, ("--keep", "2")) if name == "select" else made


def with_words(given: Command, words: tuple[str, ...]) -> Command:
    """The command with more arguments."""
    return Command((*given.arguments, *words), given.folder, given.at, given.action, given.writes, given.kill_after)
