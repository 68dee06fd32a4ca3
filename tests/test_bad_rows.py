"""Bad rows: all are told at once, or left out into a file where that is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prune_cli.artifacts.manifest import open_artifact
from prune_cli.data.rows import read_rows
from prune_cli.errors import PruneError
from prune_cli.tasks import classification
from tests.conftest import PATIENCE, REPOSITORY, Prune, sentences, write_rows

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
BROKEN = [  # a line each, and its problem
    ('{"text": "", "label": "positive"}', "text is blank"),
    ('{"text": "fine"', "broken JSON at column 16"),
    ("[1]", "the row is a list"),
    ('{"id": "row-1", "text": "again", "label": "positive"}', 'id "row-1" is that of data.jsonl:2 too'),
    ('{"text": "fine", "label": 3}', "label 3 is an integer, but the rows before it have string labels"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with data.jsonl: three good rows, the bad ones behind them, and a good one."""
    monkeypatch.chdir(tmp_path)
    good = [json.dumps(row) for row in sentences(4)]
    (tmp_path / "data.jsonl").write_text("\n".join([*good[:3], *(line for line, _ in BROKEN), good[3], ""]))
    return tmp_path


SELECT = ["select", "data.jsonl", "-o", "out", "--method", "random", "--keep", "1.0"]


def test_all_bad_rows_are_told_in_order(here: Path, prune: Prune) -> None:
    """Whatever is wrong with them, each is an error line of its own; nothing is made."""
    ran = prune(*SELECT)
    assert ran.code == 1 and len(ran.errors) == len(BROKEN) and not (here / "out").exists()
    for number, (told, (_, problem)) in enumerate(zip(ran.errors, BROKEN, strict=True), 4):
        assert told.startswith(f"data.jsonl:{number}: {problem}")


@pytest.mark.parametrize("n", [20, 21, 1234])
def test_the_first_twenty_are_told_and_the_rest_counted(n: int, here: Path, prune: Prune) -> None:
    """The first ones by place, ids that stand twice among them, however they were found."""
    rows: list[dict[str, Any]] = [{"id": 0, "text": "fine"}, {"id": 0, "text": "fine"}]
    write_rows(here / "data.jsonl", [*rows, *({f"key {i}": "fine"} for i in range(n - 1))])
    ran = prune(*SELECT)
    assert ran.errors[0].startswith("data.jsonl:2: id 0 is that of data.jsonl:1 too")
    assert [error.split(": ")[0] for error in ran.errors[:20]] == [f"data.jsonl:{i}" for i in range(2, 22)]
    more = "row" if n == 21 else "rows"
    assert ran.errors[20:] == ([f"data.jsonl: and {n - 20:,} more bad {more}"] if n > 20 else [])


def test_of_rows_with_one_problem_a_few_are_told(here: Path, prune: Prune) -> None:
    """Five of those that break one rule alike, and those behind them that break another."""
    rows: list[dict[str, Any]] = [{"text": " "}] * 40
    write_rows(here / "data.jsonl", [{"text": "fine"}, *rows, {"id": "", "text": "fine"}])
    ran = prune(*SELECT)
    assert [error.split(": ")[0] for error in ran.errors[:-1]] == [f"data.jsonl:{i}" for i in [*range(2, 7), 42]]
    assert ran.errors[-1] == "data.jsonl: and 35 more bad rows"


@pytest.mark.parametrize(
    ("rows", "hint"),
    [
        ([{"text": "a", "label": float(i)} for i in range(40)], "write it as a whole number"),
        ([{"text": "a", "label": i + 0.5} for i in range(40)], "--skip-bad FILE"),
        (
            [{"id": "a", "text": "a"}] + [{"id": "a", "text": f"b{i}"} for i in range(40)],
            "a row without an id gets its",
        ),
        ([{"text": i} for i in range(40)], "--skip-bad FILE"),
        (
            [{"question": "q", "choices": ["a", "b"], "label": i % 2} for i in range(40)],
            "--task choice reads these rows",
        ),
    ],
)
def test_a_rule_is_one_whatever_the_value(rows: list[dict[str, Any]], hint: str, here: Path, prune: Prune) -> None:
    """Of rows that break it five are told, and a way out that helps."""
    write_rows(here / "data.jsonl", rows)
    ran = prune(*SELECT)
    assert len(ran.errors) == 6 and f"hint: {hint}" in ran.err, ran.err


def test_what_ends_the_reading_is_told_behind_the_bad_rows(here: Path, prune: Prune) -> None:
    """A CSV that cannot be read on: the rows before are told, and where it broke."""
    (here / "data.csv").write_text('text,label\n,a\nfine,a,b\n"open,a\n')
    ran = prune("select", "data.csv", *SELECT[2:])
    told = ["data.csv:2: text is null", "data.csv:3: 3 cells; allowed: 2", "data.csv:4: broken CSV"]
    assert len(ran.errors) == 3 and all(map(str.startswith, ran.errors, told)), ran.err


def test_bad_rows_are_left_out_into_a_file(here: Path, prune: Prune) -> None:
    """The good rows are kept as they came; the bad ones are told with place, reason and content, and counted."""
    ran = prune(*SELECT, "--skip-bad", "bad/rows.jsonl")
    assert ran.code == 0, ran.err
    assert "data.jsonl: 5 bad rows are left out, 4 are kept" in ran.err
    kept = (here / "out/select.jsonl").read_text().splitlines()
    assert sorted(map(json.dumps, sentences(4))) == sorted(kept)
    assert open_artifact(here / "out").about["bad_rows"] == 5
    told = [json.loads(line) for line in (here / "bad/rows.jsonl").read_text().splitlines()]
    assert [line["where"] for line in told] == [f"data.jsonl:{i}" for i in range(4, 9)]
    for line, (text, problem) in zip(told, BROKEN, strict=True):
        assert line["problem"].startswith(problem)
        held = json.loads(text) if text.endswith("}") else None
        assert line.get("row") == held and line.get("text") == (None if held else text)
    again = prune(*SELECT, "--skip-bad", "bad/rows.jsonl")
    assert "up to date" in again.err and len((here / "bad/rows.jsonl").read_text().splitlines()) == 5


def test_a_row_that_is_left_out_decides_nothing_for_others(here: Path) -> None:
    """Neither its id nor the type of its label, whatever is wrong with it; here a number that JSON does not have."""
    bad = '{"id": 5, "text": "a", "label": 1, "weight": NaN}'
    good = [json.dumps({"id": i, "text": f"good {i}", "label": "positive"}) for i in (5, 6)]
    for drop in ((), ("other",)):
        path = here / "data.jsonl"
        path.write_text("\n".join([bad, *good, bad.replace("5", "6"), ""]))
        rows = read_rows(path, check=classification.check, skip_bad=True, drop=drop)
        assert [row["id"] for row in rows] == [5, 6] and rows.left_out and rows.left_out.count == 2
        rows.write(here / "kept.jsonl")
        assert (here / "kept.jsonl").read_text().splitlines() == good


def test_left_out_rows_change_no_ids_and_no_digest(here: Path) -> None:
    """What is kept is what a file of the good rows alone would hold; ids are still the lines of the file read."""
    rows = read_rows("data.jsonl", check=classification.check, skip_bad=True)
    good = read_rows(write_rows(here / "good.jsonl", sentences(4)), check=None)
    assert rows.digest == good.digest and rows.where(3) == "data.jsonl:9"
    write_rows(here / "a.jsonl", [{"text": "a"}, {"text": ""}, {"text": "c"}])
    rows = read_rows("a.jsonl", check=classification.check, skip_bad=True)
    assert rows.ids == [1, 3] and [row["text"] for row in rows] == ["a", "c"]


def test_no_file_but_a_list_of_bad_rows_is_replaced(here: Path, prune: Prune) -> None:
    """Least of all the data themselves; a dry run writes nothing; without bad rows the list is empty."""
    before = (here / "data.jsonl").read_bytes()
    ran = prune(*SELECT, "--skip-bad", "data.jsonl")
    assert ran.errors == ["data.jsonl: exists and is no list of bad rows; choose another --skip-bad"]
    assert (here / "data.jsonl").read_bytes() == before
    assert prune(*SELECT, "--skip-bad", "bad.jsonl", "--dry-run").code == 0 and not (here / "bad.jsonl").exists()
    assert prune(*SELECT, "--skip-bad", "bad.jsonl").code == 0 and (here / "bad.jsonl").stat().st_size
    write_rows(here / "data.jsonl", sentences(4))
    assert prune(*SELECT, "--skip-bad", "bad.jsonl").code == 0 and not (here / "bad.jsonl").stat().st_size


def test_bad_rows_alone_are_no_rows(here: Path) -> None:
    """Where all are bad there is nothing to go on with."""
    write_rows(here / "data.jsonl", [{"text": ""}] * 3)
    with pytest.raises(PruneError, match=r"data.jsonl:1: no rows, but for 3 bad ones") as told:
        read_rows("data.jsonl", check=classification.check, skip_bad=True)
    assert told.value.also == ("data.jsonl:1: text is blank; allowed: a string that is not blank",)
    assert told.value.hint is None
    write_rows(here / "data.jsonl", [{"review": "a film"}] * 3)
    with pytest.raises(PruneError) as told:
        read_rows("data.jsonl", check=classification.check, skip_bad=True)
    assert "--field text=review" in str(told.value.hint)


PLAN = """
train = "data.jsonl"
tests = {{test = "test.jsonl"}}
model = {model}
methods = ["random"]
keep = [2]
seeds = [0]
"""


def test_a_pipeline_leaves_bad_rows_out(here: Path, prune: Prune, tiny_model: Path) -> None:
    """Without being asked it tells those of all files; asked, it goes on, and a list holds those of all files."""
    write_rows(here / "test.jsonl", [{**row, "note": "x"} for row in sentences(3)] + [{"text": ""}])
    plan = PLAN.format(model=json.dumps(str(tiny_model)))
    (here / "p.toml").write_text(plan)
    ran = prune("pipeline", "p.toml", "-o", "runs", "--dry-run")
    assert [error.split(": ")[0] for error in ran.errors] == [
        *(str(f"data.jsonl:{i}") for i in range(4, 9)),
        "test.jsonl:4",
    ]
    (here / "p.toml").write_text('skip_bad = "bad.jsonl"\ndrop = ["note"]\n' + plan + "[finetune]\nsteps = 1\n")
    ran = prune("pipeline", "p.toml", "-o", "runs", "--dry-run")
    assert ran.code == 0 and ran.err.count(" left out, ") == 2 and not (here / "bad.jsonl").exists()
    assert prune("pipeline", "p.toml", "-o", "runs", "--only", "select random keep 2 seed 0").code == 0
    part = (here / "bad.jsonl").read_bytes()
    ran = prune("pipeline", "p.toml", "-o", "runs")
    assert ran.code == 0, ran.err
    assert (here / "bad.jsonl").read_bytes() == part
    told = [json.loads(line)["where"] for line in (here / "bad.jsonl").read_text().splitlines()]
    assert told == [*(f"data.jsonl:{i}" for i in range(4, 9)), "test.jsonl:4"]
    assert "nothing to do, 3 up to date" in prune("pipeline", "p.toml", "-o", "runs").err


def test_a_dry_run_of_a_pipeline_tokenises(here: Path, prune: Prune) -> None:
    """A response that does not fit is told before anything runs, for each length that something is cut to."""
    row = {"prompt": "Say one.", "response": "one"}
    write_rows(here / "data.jsonl", [row, {"prompt": "Say a lot.", "response": "one two three " * 20}, row])
    write_rows(here / "test.jsonl", [row])
    model = REPOSITORY / "sample_data/lm"
    plan = 'task = "generation"\n' + PLAN.format(model=json.dumps(str(model))) + "[finetune]\nmax_length = 20\n"
    (here / "p.toml").write_text(plan)
    ran = prune("pipeline", "p.toml", "-o", "runs", "--dry-run")
    assert len(ran.errors) == 1 and ran.errors[0].startswith("data.jsonl:2: response of "), ran.err
    (here / "p.toml").write_text(plan.replace("20", "400"))
    assert prune("pipeline", "p.toml", "-o", "runs", "--dry-run").code == 0


@pytest.mark.parametrize("data", ["part-*.jsonl", "./part-*.jsonl"])
def test_the_list_of_bad_rows_is_no_data(
    data: str, tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pattern that reads it too is refused, before there is such a file; a hidden file is none of a pattern's."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "part-1.jsonl", [*sentences(4), {"text": " "}])
    select = ["select", data, "-o", "out", "--method", "random", "--keep", 2, "--skip-bad"]
    told = f"skip_bad: part-bad.jsonl; it would be read as data, by {data}; allowed: another file"
    assert prune(*select, "part-bad.jsonl").errors == [told]
    assert [path.name for path in tmp_path.iterdir()] == ["part-1.jsonl"]
    assert prune(*select, ".part-bad.jsonl").code == prune(*select, "bad/part-2.jsonl", "--force").code == 0


def test_what_is_no_json_on_standard_input(prune: Prune, tmp_path: Path) -> None:
    """A CSV, say: what is read there is told."""
    ran = prune("select", "-", "-o", tmp_path / "out", *SELECT[4:], stdin=b"text,label\na,1\n")
    assert ran.code == 1 and "hint: standard input is read as lines of JSON" in ran.err
    ran = prune("select", "-", "-o", tmp_path / "out", *SELECT[4:], stdin=b'{"text": "a"}\n{"text":\n')
    assert ran.code == 1 and "hint: --skip-bad FILE" in ran.err


def test_two_processes_write_one_list(tmp_path: Path) -> None:
    """Runs that share a folder begin by writing it: none takes the other's half-written file away."""
    write_rows(tmp_path / "data.jsonl", [{"text": "fine"}, {"text": ""}])
    code = (
        "import sys; from pathlib import Path; from prune_cli.data.open import Reading, open_rows, write_bad_rows\n"
        "from prune_cli.tasks import classification\n"
        "rows = open_rows('data.jsonl', Reading(skip_bad=True, format=None), classification.check)\n"
        "for _ in range(200): write_bad_rows(Path('bad.jsonl'), [rows])\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT) for _ in range(2)]
    assert [run.wait(PATIENCE) for run in runs] == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "data.jsonl"]
