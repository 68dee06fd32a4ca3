"""Rows that stand in a test set: found as by their definition, named, told, and never kept."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from prune_cli import tasks
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.data.rows import Rows
from prune_cli.data.rows import read_rows as open_rows
from prune_cli.methods import contamination
from prune_cli.numeric.words import words
from prune_cli.pipeline import results
from prune_cli.pipeline.checks import read_plan
from prune_cli.pipeline.page.outcomes import outcomes
from prune_cli.pipeline.row_checks import n_train
from tests.conftest import Prune, read_rows, write_rows

SAID = random.Random(0).choices([f"w{i}" for i in range(500)], k=4000)


def text(start: int, n: int) -> str:
    """n words of a long text; no 8-gram stands in it twice."""
    return " ".join(SAID[start : start + n])


def rows_of(folder: Path, name: str, rows: list[dict[str, Any]], task: str = "classification") -> Rows:
    """Rows of a task, on disk."""
    path = write_rows(folder / f"{name}.jsonl", rows)
    return open_rows(path, check=tasks.load(task).check, format="auto" if task == "generation" else None)


def labelled(*texts: str) -> list[dict[str, Any]]:
    """Rows of these texts."""
    return [{"text": said, "label": i % 2} for i, said in enumerate(texts)]


def grams(said: str) -> set[tuple[str, ...]]:
    """The 8-grams of its words."""
    of = words(said)
    return {tuple(of[i : i + 8]) for i in range(len(of) - 7)}


def test_it_is_what_the_definition_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against every pair of rows compared by sets of n-grams, at all lengths and overlaps, in blocks of seven."""
    draw = random.Random(1)
    train = [text(draw.randrange(300), draw.randrange(1, 40)) for _ in range(300)]
    test = [text(draw.randrange(300), draw.randrange(1, 40)) for _ in range(12)]
    expected: dict[int, float] = {}
    for i, row in enumerate(train):
        for other in test:
            shared, fewer = len(grams(row) & grams(other)), min(len(grams(row)), len(grams(other)))
            if words(row) == words(other) or 2 * shared > fewer:
                expected[i] = max(expected.get(i, 0), 2.0 if words(row) == words(other) else shared / fewer)
    rows, tests = rows_of(tmp_path, "train", labelled(*train)), rows_of(tmp_path, "test", labelled(*test))
    for at_once in (7, 4096):
        monkeypatch.setattr(contamination, "AT_ONCE", at_once)
        found = contamination.find(tasks.load("classification"), rows, [tests])
        assert [match.row for match in found] == sorted(expected) and 30 < len(found) < 290
    for match in found:
        shared = len(grams(train[match.row]) & grams(test[match.test_row]))
        fewer = min(len(grams(train[match.row])), len(grams(test[match.test_row])))
        same = words(train[match.row]) == words(test[match.test_row])
        assert expected[match.row] == (2.0 if same else shared / fewer)
        assert match.why == ("all words are the same" if same else f"{shared} of {fewer} 8-grams are shared")


def test_what_many_test_rows_have_counts_for_nothing(tmp_path: Path) -> None:
    """A form of words around every test row, but not a whole text that stands there often."""
    form = text(3000, 12)
    test = [f"{form} {text(20 * i, 9)}" for i in range(11)] + ["Good film!"] * 11
    train = [f"{form} {text(1000, 3)}", f"{form} {text(40, 9)}", "good film", "good films"]
    task, rows = tasks.load("classification"), rows_of(tmp_path, "train", labelled(*train))
    found = contamination.find(task, rows, [rows_of(tmp_path, "test", labelled(*test))])
    assert [(match.row, match.test_row) for match in found] == [(1, 2), (2, 11)]
    fewer = contamination.find(task, rows, [rows_of(tmp_path, "fewer", labelled(*test[:10]))])
    assert [match.row for match in fewer] == [0, 1]


def test_scripts_without_spaces(tmp_path: Path) -> None:
    """A Chinese test row within a longer row is found by its letters."""
    said = "今天天气很好我们一起去公园散步然后回家吃晚饭"
    task, rows = tasks.load("classification"), rows_of(tmp_path, "train", labelled(f"他说{said}好吗", said[::-1]))
    found = contamination.find(task, rows, [rows_of(tmp_path, "test", labelled(said))])
    assert [(match.row, match.why) for match in found] == [(0, "15 of 15 8-grams are shared")]


TASKS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {  # a test row, a row in it, another
    "choice": (
        {"question": "What is the lid of it?", "choices": ["loose", "tight"], "label": 1},
        {"question": "what is the lid of it", "choices": ["Loose", "Tight"], "label": 0},
        {"question": "What was the lid of it?", "choices": ["loose", "tight"], "label": 1},
    ),
    "generation": (
        {"prompt": "How many eggs are there?", "response": text(0, 30)},
        {"prompt": "How many eggs are there", "response": text(100, 30)},
        {"prompt": "How many eggs were there?", "response": text(100, 30)},
    ),
}


@pytest.mark.parametrize("task", TASKS)
def test_rows_of_each_task(tmp_path: Path, task: str) -> None:
    """Choices are words of a row; a prompt counts by itself, whatever is answered."""
    asked, row, other = TASKS[task]
    rows, tests = rows_of(tmp_path, "train", [other, row], task), rows_of(tmp_path, "test", [asked], task)
    assert [match.row for match in contamination.find(tasks.load(task), rows, [tests])] == [1]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """40 rows, 0, 3 and 7 of them in test.jsonl (its second and first row) or ood.jsonl."""
    train = [text(50 * i, 20) for i in range(40)]
    write_rows(tmp_path / "train.jsonl", labelled(*train))
    write_rows(tmp_path / "test.jsonl", labelled(train[3].upper(), f"{train[0]} {text(3500, 30)}"))
    write_rows(tmp_path / "ood.jsonl", labelled(text(3700, 20), train[7][:-20]))
    return tmp_path


def test_they_are_named_told_and_not_kept(here: Path, prune: Prune) -> None:
    """All of the others are kept at 100%; a line for each names it, its test row and why."""
    both = ["--decontaminate", here / "test.jsonl", "--decontaminate", here / "ood.jsonl"]
    command = ["select", here / "train.jsonl", "-o", here / "clean", "--method", "random", "--order", "data", *both]
    done = prune(*command, "--keep", "100%")
    assert done.code == 0, done.err
    count = f"3 of 40 rows stand in a test set and may not be kept: {here / 'test.jsonl'} 2, {here / 'ood.jsonl'} 1"
    assert (
        f"warning: {here / 'clean'}: {count}" in done.err and "kept 37 of 37 that may be kept, of 40 rows" in done.err
    )
    named = read_rows(here / "clean/contaminated.jsonl")
    assert [(line["id"], line["test_id"]) for line in named] == [(1, 2), (4, 1), (8, 2)]
    assert [line["where"] for line in named] == [f"{here / 'train.jsonl'}:{i}" for i in (1, 4, 8)]
    assert named[1]["test"] == f"{here / 'test.jsonl'}:1" and named[1]["why"] == "all words are the same"
    assert named[0]["why"] == "13 of 13 8-grams are shared"
    kept = (here / "clean/select.jsonl").read_text().splitlines()
    assert kept == [
        line for i, line in enumerate((here / "train.jsonl").read_text().splitlines()) if i not in (0, 3, 7)
    ]
    why = read_rows(here / "clean/why.jsonl")
    assert [i for i, line in enumerate(why) if line["left_out"] == "decontaminate"] == [0, 3, 7]
    assert open_artifact(here / "clean").about["warnings"] == [count] and count in prune("show", here / "clean").out
    assert "up to date" in prune(*command, "--keep", "100%").err
    assert "allowed: a number of rows from 1 to 37" in prune(*command, "--keep", "38", "--replace").err


def test_with_an_earlier_selection(here: Path, prune: Prune) -> None:
    """Rows must be within and in no test set; a row that is neither is said to be in a test set."""
    data = here / "train.jsonl"
    assert prune("select", data, "-o", here / "first", "--method", "random", "--keep", 20, "--seed", 1).code == 0
    inside = [line["kept"] for line in read_rows(here / "first/why.jsonl")]
    command = ["select", data, "-o", here / "out", "--method", "random", "--keep", "100%", "--within", here / "first"]
    assert prune(*command, "--decontaminate", here / "test.jsonl").code == 0
    for i, line in enumerate(read_rows(here / "out/why.jsonl")):
        assert line["left_out"] == ("decontaminate" if i in (0, 3) else None if inside[i] else "within")
        assert line["kept"] == (line["left_out"] is None)


def test_a_changed_test_set_makes_it_stale(here: Path, prune: Prune) -> None:
    """And rows that all stand in a test set are an error."""
    data, test = here / "train.jsonl", here / "test.jsonl"
    command = ["select", data, "-o", here / "out", "--method", "random", "--keep", 5, "--decontaminate", test]
    assert prune(*command).code == 0
    write_rows(test, labelled(text(3600, 20)))
    assert "input test rows 1 changed" in prune(*command).err
    done = prune(*command, "--replace")
    assert done.code == 0 and "stand in a test set" not in done.err
    assert (here / "out/contaminated.jsonl").read_text() == ""
    write_rows(test, [json.loads(line) for line in data.read_text().splitlines()])
    assert "no row may be kept; left out by decontaminate 40; allowed" in prune(*command, "--replace").err


PLAN = """
train = "train.jsonl"
model = "{model}"
methods = ["random", "full"]
keep = [0.5]
seeds = [0]
decontaminate = true

[tests]
ood = "ood.jsonl"
{test}

[finetune]
steps = 1
"""


def test_a_pipeline_leaves_them_out_of_all(here: Path, prune: Prune, tiny_model: Path) -> None:
    """Every step has the rest for its rows, and a share is one of it; what was left out is told at the end."""
    plan = PLAN.format(model=tiny_model, test='test = "test.jsonl"')
    (here / "plan.toml").write_text(plan)
    done = prune("pipeline", here / "plan.toml", "-o", here / "run")
    assert done.code == 0, done.err
    told = f"3 of 40 rows stand in a test set and may not be kept: {here / 'ood.jsonl'} 1, {here / 'test.jsonl'} 2"
    assert f"warning: {told}" in done.err
    assert len(read_rows(here / "run/decontaminated/contaminated.jsonl")) == 3
    about = {name: open_artifact(here / f"run/methods/{name}/seed-0/select").about for name in SELECTED}
    assert {name: (found["rows"], found["kept"]) for name, found in about.items()} == SELECTED
    again = prune("pipeline", here / "plan.toml", "-o", here / "run")
    assert "nothing to do" in again.err and f"warning: {told}" in again.err
    assert told in outcomes(results.read(here / "run"))["warnings"]  # of the page
    (here / "run/results.jsonl").unlink()
    assert prune("pipeline", here / "plan.toml", "-o", here / "run").code == 0  # still a run's folder


SELECTED = {"random/keep-0.5": (37, 19), "full/keep-100%": (37, 37)}


def test_a_pipeline_that_splits_its_test_rows(here: Path, prune: Prune, tiny_model: Path) -> None:
    """The rest is compared with the rows that were split off too: what is planned is what the step then finds."""
    rows = read_rows(here / "train.jsonl")
    write_rows(here / "train.jsonl", [*rows, *({**row, "text": row["text"] + " more"} for row in rows[10:30])])
    (here / "plan.toml").write_text(PLAN.format(model=tiny_model, test="test = 0.3"))
    made = prune("pipeline", here / "plan.toml", "-o", here / "run", "--only", "decontaminate")
    assert made.code == 0, made.err
    about = open_artifact(here / "run/decontaminated").about
    plan = read_plan(here / "plan.toml")
    assert about["rows"] == 42 and about["kept"] == n_train(plan) < 41
    assert prune("estimate", here / "plan.toml", "-o", here / "run", "--seconds", 1).code == 0
