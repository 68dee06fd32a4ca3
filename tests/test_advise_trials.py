"""Trials of its own: rounds on sub-pools, a journal from which a killed run goes on, and the answer."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import prune_cli
from prune_cli.artifacts import files
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.errors import PruneError
from prune_cli.pipeline.advise import journal, pools, trials
from prune_cli.pipeline.advise import rounds as rounds_of
from prune_cli.pipeline.advise.ground import fitting
from prune_cli.pipeline.advise.rounds import Question, Round
from prune_cli.pipeline.advise.trials import seconds_of, toml
from tests.conftest import Prune, Ran, read_rows, sentences, write_rows

SETTINGS = """
train = "train.jsonl"
validation = "validation.jsonl"
model = "{model}"
methods = [
    "s2l",
    {{method = "less", balance = "keep"}},
    {{name = "long", representation = "none", score = "length", select = "top"}},
]
keep = [0.5]
seeds = [0, 1]

[tests]
test = "test.jsonl"

[warmup]
epochs = 2
batch_size = 8

[represent]
dim = 64

[finetune]
epochs = 1
batch_size = 8
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data and settings; sub-pools keep four rows or more, and a step takes ten seconds."""
    write_rows(tmp_path / "train.jsonl", sentences(24))
    write_rows(tmp_path / "validation.jsonl", sentences(8, start=100))
    write_rows(tmp_path / "test.jsonl", sentences(12, start=200))
    (tmp_path / "my.toml").write_text(SETTINGS.format(model=tiny_model))
    monkeypatch.setattr(pools, "LEAST_KEPT", 4)
    clock: Iterator[int] = count(step=10)
    monkeypatch.setattr(journal, "monotonic", lambda: float(next(clock)))
    return tmp_path


def advise(folder: Path, prune: Prune, budget: str, *more: object, out: str = "out") -> Ran:
    ran = prune("advise", folder / "my.toml", "-o", folder / out, "--keep", "50%", "--budget", budget, *more)
    assert ran.code == 0, ran.err
    return ran


def lines(folder: Path, kind: str, out: str = "out") -> list[dict[str, Any]]:
    return [line for line in read_rows(folder / out / "journal.jsonl") if kind in line]


@pytest.mark.slow
def test_rounds_and_a_run_that_is_killed(folder: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round has its own sub-pool; a run killed in the second goes on to the same advice, a third does nothing."""
    # a round: warm-up, two representations, score, then selection, training and evaluation of three methods,
    # random thrice, and full: about 25 steps; so there is time for about three rounds of the smallest sub-pool
    whole = advise(folder, prune, "700s", "--json", out="whole")
    answer = whole.json()
    assert answer["trials"]["pool"] == 8 and answer["trials"]["rows"] == 24 and answer["trials"]["rounds"] == 2
    assert answer["trials"]["stop"] == "no time for another round"
    pools = [{row["id"] for row in read_rows(path)} for path in sorted(folder.glob("whole/round-*/pool/select.jsonl"))]
    assert [len(pool) for pool in pools] == [8, 8] and pools[0] != pools[1]
    kept = open_artifact(folder / "whole/round-0/run/methods/less-keep/keep-50%/select")
    assert kept.about["kept"] == 4

    from prune_cli.pipeline.run import run as made

    calls: list[str] = []

    def killed(file: Path, out: Path, **how: Any) -> Any:
        calls.append(file.name)
        if file.name == "round-1.toml":
            raise KeyboardInterrupt
        return made(file, out, **how)

    monkeypatch.setattr(trials, "run", killed)
    command = ["advise", folder / "my.toml", "-o", folder / "out", "--keep", "50%", "--budget"]
    assert prune(*command, "700s").code == 130
    assert calls == ["random-0.toml", "round-0.toml", "random-1.toml", "round-1.toml"]
    calls.clear()

    def counted(file: Path, out: Path, **how: Any) -> Any:
        calls.append(file.name)
        return made(file, out, **how)

    monkeypatch.setattr(trials, "run", counted)
    resumed = advise(folder, prune, "700s", "--json").json()
    assert calls == ["random-1.toml", "round-1.toml"]
    for one, other in zip(resumed["advice"], answer["advice"], strict=True):
        assert {k: v for k, v in one.items() if k != "picks"} == {k: v for k, v in other.items() if k != "picks"}
    calls.clear()
    again = advise(folder, prune, "700s", "--json").json()
    assert not calls and again == resumed
    words = prune(*command, "700s").out
    assert "2 rounds on 8 of 24 rows" in words and "need not be so on all rows" in words

    path = folder / "out/journal.jsonl"  # as one was before finds were tried on all rows
    path.write_text(path.read_text().replace(', "confirm": false', ""))
    assert advise(folder, prune, "700s", "--json").json() == resumed

    other = prune(*command, "800s")
    assert other.errors == [f"{folder / 'out'}: budget: 700 s, by which rounds were planned; choose it, or another -o"]


def test_a_budget_that_the_first_round_spends(folder: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials stop, a step later at most; the same command with more time goes on from what was made."""
    made: list[str] = []

    def steps(file: Path, out: Path, *, tell: Any, **how: Any) -> None:
        for i in range(4):
            made.append(f"{file.name} {i}")
            tell(f"finetune {i}", "")

    monkeypatch.setattr(trials, "run", steps)
    command = ["advise", folder / "my.toml", "-o", folder / "out", "--keep", "50%", "--budget"]
    ran = prune(*command, "20s")
    assert ran.code == 1 and len(made) == 4
    assert ran.errors[0].startswith("budget: 20 s; 40 s were spent within the first round, before which nothing")
    assert len(lines(folder, "step")) == 4 and not lines(folder, "ended")
    assert prune(*command, "60s").errors[0].startswith("budget: 60 s; ")
    assert [line["budget"] for line in lines(folder, "budget")] == [20, 60]
    prune(*command, "2000s")  # fails past the first round, of which nothing was really made
    assert lines(folder, "ended")
    assert prune(*command, "3000s").errors == [
        f"{folder / 'out'}: budget: 2000 s, by which rounds were planned; choose it, or another -o"
    ]


@pytest.mark.slow
def test_all_rows_where_there_is_time(folder: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """With time enough all rounds share the rows and what is made of them; seeds are their own, methods fewer."""
    monkeypatch.setattr(pools, "ROUNDS", 1)  # or there would be time for all rows many times over
    ran = advise(folder, prune, "1000s", "--json", "--margin", "0")
    answer = ran.json()["trials"]
    assert answer["pool"] == 24 and answer["rounds"] >= 2
    made = {path.parent.name for path in folder.glob("out/all/run/methods/random/*/*/eval")}
    assert len(made) == 3 * answer["rounds"]
    warmups = [line["round"] for line in lines(folder, "step") if line["step"] == "warmup" and line["round"] > 0]
    assert warmups == list(range(1, answer["rounds"] + 1))  # of which all but the first were up to date
    assert len(list(folder.glob("out/*/run/warmup"))) == 2  # and the one of the first, small sub-pool
    assert [line["round"] for line in lines(folder, "decided")] == list(range(1, answer["rounds"] + 1))


@pytest.mark.slow
@pytest.mark.parametrize(("budget", "how"), [("2000s", "confirmed"), ("700s", "no time"), ("450s", "slow")])
def test_a_find_is_tried_on_all_rows(
    folder: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch, budget: str, how: str
) -> None:
    """What is better on sub-pools is tried alone on all rows, by rounds that count alone, where there is time.

    Where that time was foretold and was not there, the advice is still that of the sub-pools.
    """
    monkeypatch.setattr(pools, "ROUNDS", 100)  # so that sub-pools are the smallest
    if how == "slow":
        monkeypatch.setattr(trials, "time_to_confirm", lambda *_: 0.0)
    seen: list[tuple[int, list[int], float]] = []

    def decide(question: Question, rounds: list[Round], methods: tuple[str, ...], *more: float) -> Any:
        decision, advice = rounds_of.decide(question, rounds, methods, *more)
        seen.append((question.pool, [len(entry.values) for entry in rounds], question.budget))
        if question.pool == 8:
            decision = replace(decision, stop="a method is better than random", better=("s2l",))
        return decision, advice

    monkeypatch.setattr(trials, "decide", decide)
    ran = advise(folder, prune, budget, "--margin", "0", "--json")
    told = ran.json()["trials"]
    assert seen[0][0] == 8
    if how != "confirmed":
        assert told["found"] is None and told["pool"] == 8 and told["rounds"] == 1
        assert [pool for pool, *_ in seen] == ([8, 24] if how == "slow" else [8])
        assert told["stop"] == "a method is better than random"
        return
    assert told["found"] == {"methods": ["s2l"], "pool": 8, "rounds": 1}
    assert told["pool"] == 24 and told["rounds"] == len(seen) - 1 >= 2
    assert [pool for pool, *_ in seen[1:]] == [24] * told["rounds"]
    assert seen[-1][1] == [3] * told["rounds"]  # random, full and s2l, of these rounds alone
    used = sum(line["seconds"] for line in lines(folder, "step") if line["round"] == 0)
    assert seen[-1][2] == 2000 - used
    assert {path.name for path in folder.glob("out/all/run/methods/*")} == {"full", "random", "s2l"}
    words = advise(folder, prune, budget, "--margin", "0").out
    assert f"in 1 round on 8, so tried on all rows: s2l; then {told['rounds']} rounds on 24 of 24 rows: " in words
    assert "need not be so on all rows" not in words


@pytest.mark.slow
def test_from_data_alone(folder: Path, prune: Prune, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are proposed, the target set is halved and that is told; the commands choose rows of all the data."""
    monkeypatch.chdir(folder)
    asked = ["--model", tiny_model, "--target", "validation.jsonl", "--keep", "50%", "--budget", "300s"]
    ran = prune("advise", "train.jsonl", "-o", "out", *asked, "--methods", "s2l,less-keep", "--json")
    assert ran.code == 0, ran.err
    assert "one half of validation.jsonl is the target set" in ran.err
    halves = [
        {row["id"] for row in read_rows(folder / f"out/target/{name}/select.jsonl")} for name in ("measured", "train")
    ]
    assert [len(half) for half in halves] == [4, 4] and not halves[0] & halves[1]
    (advice,) = ran.json()["advice"]
    assert advice["test"] == "measured" and [pick["method"] for pick in advice["picks"]] == ["random"]
    (command,) = advice["picks"][0]["commands"]
    assert command.startswith("prune select train.jsonl -o out/full/kept --method random --keep 50%")
    assert prune(*shlex.split(command)[1:]).code == 0
    assert len(read_rows(folder / "out/full/kept/select.jsonl")) == 12


def test_what_is_asked_for(folder: Path, prune: Prune) -> None:
    """What is missing or does not fit is told in a line."""
    train = folder / "train.jsonl"
    missing = prune("advise", train, "-o", folder / "out").errors[0]
    assert missing.startswith("--keep, --budget, --model, --target: missing")
    asked = ["-o", folder / "out", "--keep", "50%", "--budget"]
    assert prune("advise", folder / "my.toml", *asked, "1d").errors == [
        "budget: 1d; allowed: a time such as 30s, 20m or 2h"
    ]
    both = prune("advise", folder / "my.toml", *asked, "30s", "--target", train)
    assert both.errors[0].startswith("target: given beside ")
    none = prune("advise", folder / "my.toml", *asked, "30s", "--methods", "random,full")
    assert none.errors[0].startswith("methods: none to try")


@pytest.mark.parametrize(("steps", "seconds"), [(None, 94), (40, 76)])
def test_what_rounds_take_is_foretold(steps: int | None, seconds: float) -> None:
    """Worked by hand: a round on 25 of 100 rows took 10 + 4 + 2 + 1 s for all methods; then 0.5, 3 and 2, 3 and 2 s.

    On all rows, twice, without the second method: 4 · (10 + 4 + 1) + 2 once; 4 · (0.5 + 3) + 2 each time, where a
    training of so many steps takes 3 s on any rows. Five rounds with both: 62 + 5 · (4 · 6.5 + 4) = 212.
    """
    probed = [("warmup", 10.0), ("represent train gradient", 4.0), ("represent validation gradient", 2.0)]
    probed += [("score less", 1.0), ("select less keep 0.1", 0.5)]
    for name in ("less", "rds"):
        probed += [(f"finetune {name} keep 0.1 seed 0", 3.0), (f"eval {name} keep 0.1 seed 0", 2.0)]
    ground: Any = SimpleNamespace(n=100, steps=steps)
    assert pools.time_to_confirm(ground, 25, probed, {"rds"}) == pytest.approx(seconds)
    if steps is None:
        assert pools.pool_size(ground, 25, probed, 212.1) == 100
        assert pools.pool_size(ground, 25, probed, 211.0) == 42  # 25 · (211 / 5 − 6) / 21.5


def test_times() -> None:
    """A number and a unit."""
    assert [seconds_of(text) for text in ("30s", "20m", "2h", "1.5h")] == [30, 1200, 7200, 5400]
    for wrong in ("", "0s", "2", "-1m", "2 hours"):
        with pytest.raises(PruneError):
            seconds_of(wrong)


def test_which_methods_fit() -> None:
    """Those that a task's rows can be represented for; with labels relevance is balanced by them."""
    of_labels = fitting("classification", labelled=True, has_target=True)
    assert {"hard-to-learn", "s2l", "less-keep", "prototypicality"} <= set(of_labels)
    assert not {"random", "full", "none", "longest", "less", "ifd", "less-exact", "less-adam"} & set(of_labels)
    assert not any(name.startswith("less") for name in fitting("classification", labelled=True, has_target=False))
    assert {"ifd", "less", "rds", "perplexity"} <= set(fitting("generation", labelled=False, has_target=True))


def test_tables_are_read_again() -> None:
    """What is written is the TOML of what was given."""
    import tomllib

    table = {
        "train": 'a "file"\n.jsonl',
        "fields": {"text": "my key"},
        "methods": ["full", {"name": "x", "select_options": {"k": 3}}],
        "finetune": {"learning_rate": 1e-5, "keep_moments": True},
    }
    assert tomllib.loads(toml(table)) == json.loads(json.dumps(table))


def test_a_journal_outlives_a_kill(tmp_path: Path) -> None:
    """Cut off anywhere, it is what its whole lines say; a line may hold any letter; another file is no journal."""
    path = tmp_path / "journal.jsonl"
    asked = {"given": "a\u2028b é"}
    made = journal.Journal(path)
    made.same("asked", asked)
    made.within(60.0)
    whole = path.read_bytes()
    lines = [json.loads(line) for line in whole.splitlines()]
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        again = journal.Journal(path)
        assert again.lines == lines[: whole[:end].count(b"\n")]
        again.same("asked", asked)
        again.within(60.0)
        assert path.read_bytes() == whole
    for other in (b"my notes", b"my\nnotes\n", b'{"a": 1}\n', b'{"asked": 1}\n\xff\n', b"\n"):
        path.write_bytes(other)
        with pytest.raises(PruneError, match="no journal of trials"):
            journal.Journal(path)
        assert path.read_bytes() == other


def test_one_process_at_a_time_makes_trials(folder: Path, prune: Prune) -> None:
    """Another over the same folder is told so, and changes nothing."""
    (folder / "out").mkdir()
    with files.alone(folder / "out"):
        done = prune("advise", folder / "my.toml", "-o", folder / "out", "--keep", "50%", "--budget", "60s")
    assert done.errors == [f"{folder / 'out'}: another process works there; wait for it, or choose another name"]
    assert not [*(folder / "out").iterdir()]


def test_the_function_asks_as_the_command_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers and lists stand for their texts, seconds for a budget."""
    asked: list[Any] = []

    def taken(given: str, metric: str | None, margin: float | None, what: Any) -> Any:
        asked.append(what)
        raise PruneError("enough")

    monkeypatch.setattr(trials, "answer", taken)
    for keep, budget, methods in ((0.1, 60, ["less", "rds"]), ("0.1", "60s", "less,rds")):
        with pytest.raises(PruneError, match="enough"):
            prune_cli.advise(folder / "my.toml", out=folder / "out", keep=keep, budget=budget, methods=methods)
    assert asked[0] == asked[1] and asked[0].keep == "0.1" and seconds_of(asked[0].budget) == 60
