"""Kills at any moment, two makers at once, and readers while an artifact is made again."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from prune_cli.artifacts.manifest import open_artifact
from tests.harness.forks import KILL, Command, Run, server
from tests.harness.test_faults import check_ended, command, halves, inputs, left_over, with_words
from tests.test_resume import digests

__all__ = ["inputs"]  # a fixture
pytestmark = pytest.mark.slow
KILLS = 25  # of each of four commands


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with server(preload=False) as serving:
        yield serving


def after(given: Command, seconds: float) -> Command:
    """The command, killed after some time."""
    return Command(given.arguments, given.folder, kill_after=seconds)


@pytest.mark.parametrize("name", ["select", "represent", "finetune", "pipeline"])
def test_kills_at_random(
    name: str, run: Run, inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed again and again at moments drawn at random, a command ends in the bytes of an undisturbed run."""
    rng = random.Random(name)
    start = time.monotonic()
    assert run(command(name, inputs, tmp_path / "whole"))[0].code == 0
    seconds, wanted = time.monotonic() - start, digests(tmp_path / "whole")
    kills, runs = 0, 0
    while kills < KILLS and runs < KILLS:
        folder = tmp_path / f"run-{runs}"
        folder.mkdir()
        runs += 1
        for _ in range(6):
            ended = run(after(command(name, inputs, folder), rng.uniform(0, 0.8 * seconds)))[0]
            check_ended(ended, KILL)
            assert not halves(folder)
            kills += ended.code != 0
        done = run(command(name, inputs, folder))[0]
        assert done.code == 0, done.err
        assert digests(folder) == wanted
        assert not left_over(folder)
        shutil.rmtree(folder)
    with capsys.disabled():
        print(f"\n{name}: {kills} kills in {runs} runs")


@pytest.mark.parametrize("name", ["select", "score", "represent", "finetune"])
def test_two_makers(
    name: str, run: Run, inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of several processes that make one artifact at once, each makes it, finds it made, or says that another does."""
    assert run(command(name, inputs, tmp_path / "whole"))[0].code == 0
    wanted = digests(tmp_path / "whole")
    tally: Counter[str] = Counter()
    for i in range(10):
        folder = tmp_path / f"run-{i}"
        folder.mkdir()
        for ended in run(*[command(name, inputs, folder)] * 3):
            assert ended.code in (0, 1), ended.err
            assert "Traceback" not in ended.err
            if ended.code:
                assert "another process is making this artifact" in ended.errors[0], ended.err
                tally["refused"] += 1
            else:
                tally["up to date" if "up to date" in ended.err else "made"] += 1
        assert digests(folder) == wanted
        assert not left_over(folder)
    assert tally["made"] >= 10  # one each time, unless it was made twice over
    with capsys.disabled():
        print(f"\n{name}: {dict(tally)}")


def test_makers_of_two_recipes(run: Run, inputs: dict[str, str], tmp_path: Path) -> None:
    """Two commands that make different things of one name: the artifact is one of the two, whole."""
    wanted = []
    for keep in ("2", "4"):
        assert run(with_words(command("select", inputs, tmp_path / keep), ("--keep", keep)))[0].code == 0
        wanted.append(digests(tmp_path / keep))
    tmp_path.joinpath("both").mkdir()
    both = [with_words(command("select", inputs, tmp_path / "both"), ("--keep", k, "--replace")) for k in ("2", "4")]
    for _ in range(20):
        for ended in run(*both):
            assert ended.code in (0, 1), ended.err
            assert len(ended.errors) == ended.code, ended.err
        assert digests(tmp_path / "both") in wanted
        assert not left_over(tmp_path / "both")


def test_readers_while_an_artifact_is_made_again(
    run: Run, inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each reads the old or the new one, and its result names the one that it holds."""
    kept = tmp_path / "kept" / "out"
    rows: dict[str, list[str]] = {}  # digest of the rows -> their ids
    makers = []
    for keep in ("2", "4"):
        maker = with_words(command("select", inputs, tmp_path / "kept"), ("--keep", keep, "--replace"))
        assert run(maker)[0].code == 0
        ids = [json.loads(line)["id"] for line in (kept / "select.jsonl").read_text().splitlines()]
        rows[open_artifact(kept).about["digest"]] = ids
        makers.append(maker)
    tally: Counter[str] = Counter()
    for i in range(40):
        out = tmp_path / f"read-{i}"
        reader = Command(("score", str(kept), "--method", "random", "-o", str(out)), str(out))
        looker = Command(("show", str(kept)), str(out))
        made, looked, read = run(makers[i % 2], looker, reader)
        assert made.code == 0, made.err
        assert "Traceback" not in looked.err + read.err
        for ended in (looked, read):
            assert ended.code in (0, 1)
            assert [error for error in ended.errors if "made again while" not in error] == []
        tally[f"show {looked.code}"] += 1
        tally[f"score {read.code}"] += 1
        if read.code == 0:
            named = open_artifact(out).manifest["recipe"]["inputs"]["rows"]
            scored = [json.loads(line)["id"] for line in (out / "score.jsonl").read_text().splitlines()]
            assert scored == rows[named]
    with capsys.disabled():
        print(f"\n{dict(tally)}")
    assert tally["score 0"] + tally["show 0"] > 60
