"""Keys read under other names, where the files of a command call them differently."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from prune_cli.artifacts.manifest import open_artifact
from prune_cli.data import fields
from prune_cli.data.open import Reading, open_rows
from prune_cli.errors import PruneError
from tests.conftest import REPOSITORY, Prune

TEXTS = ["the film is good", "the plot is bad", "a fine cast", "a dull story"]
WORDS = ["--field", "text=sentence", "--field", "text=review", "--field", "text=text"]


def written(path: Path, key: str, **more: str) -> str:
    """A file of rows whose text stands under a key."""
    path.write_text("".join(json.dumps({key: text, **more, "label": i % 2}) + "\n" for i, text in enumerate(TEXTS)))
    return str(path)


def test_of_several_keys_each_file_is_read_by_the_first_it_has(tmp_path: Path) -> None:
    """The order of the keys decides, not that of the rows; a name among its own keys is no renaming."""
    reading = Reading(fields.parse_fields(WORDS[1::2]), format=None)
    for key, more, expected in (
        ("sentence", {}, {"text": "sentence"}),
        ("review", {}, {"text": "review"}),
        ("review", {"sentence": "chosen"}, {"text": "sentence"}),
        ("text", {}, {}),
    ):
        rows = open_rows(written(tmp_path / "rows.jsonl", key, **more), reading, None)
        assert rows.fields == expected
        assert [row["text"] for row in rows] == (["chosen"] * 4 if more else TEXTS)
    late = tmp_path / "late.jsonl"
    late.write_text('{"label": 0}\n{"label": 0, "review": "a"}\n')
    with pytest.raises(PruneError, match=r'late.jsonl:1: no key "review" to read as "text"'):
        open_rows(str(late), reading, None)
    assert open_rows(written(tmp_path / "other.jsonl", "words"), reading, None).fields == {}
    one = Reading(fields.parse_fields(WORDS[1:2]), format=None)
    with pytest.raises(PruneError, match=r'other.jsonl:1: no key "sentence" to read as "text"') as told:
        open_rows(written(tmp_path / "other.jsonl", "words"), one, None)
    assert str(told.value.hint).startswith("--skip-bad FILE")  # none of its keys looks like a text's


def test_hints_name_all_keys_that_look_alike(tmp_path: Path, prune: Prune, tiny_model: Path) -> None:
    """The label's and the response's too; rows of a format that have none of the keys are left as they are."""
    rows = tmp_path / "rows.jsonl"
    command = ["represent", rows, "-o", tmp_path / "rep", "--kind", "lexical"]
    asked = {"question": "Add 2 and 3.", "answer": "5"}
    alpaca = {"instruction": "Add.", "input": "2 and 3", "output": "5"}
    for row, more, hint in (
        (
            {"review": "a film", "sentiment": 1},
            [],
            "hint: --field text=review --field label=sentiment reads these keys",
        ),
        (asked, ["--task", "generation"], "hint: --field prompt=question --field response=answer reads these keys"),
        (
            alpaca,
            ["--task", "generation", "--field", "prompt=question"],
            "--field prompt=question --field prompt=prompt",
        ),
        ({"sentence;category": "a film;good"}, [], "hint: cells that look separated by semicolons"),
    ):
        rows.write_text(json.dumps(row) + "\n")
        done = prune(*command, *more)
        assert done.code == 1 and hint in done.err, done.err
    rows.write_text(json.dumps({"messages": [{"role": "user", "content": "Add"}]}) + "\n")
    told = prune(*command, "--task", "generation", "--format", "alpaca").err
    assert 'no "instruction"' in told and "--task generation reads" not in told
    rows.write_text(json.dumps(alpaca) + "\n")
    both = ["--task", "generation", "--field", "prompt=question", "--field", "prompt=prompt"]
    assert prune(*command, *both).code == 0


def test_keys_of_a_table_decide_how_its_labels_are_read(tmp_path: Path) -> None:
    """Whole numbers are read as integers in the label column of each file, whatever it is called."""
    reading = Reading({"label": ("y", "class")}, format=None)
    for name in ("y", "class"):
        table = tmp_path / f"{name}.csv"
        table.write_text(f"text,{name}\na,1\nb,0\n")
        assert [row["label"] for row in open_rows(str(table), reading, None)] == [1, 0]


def test_rows_and_target_with_keys_of_their_own(tmp_path: Path, prune: Prune) -> None:
    """Both files of one command; what is kept comes out as it came in, and is read again without being told how."""
    rows = written(tmp_path / "rows.jsonl", "sentence")
    target = written(tmp_path / "target.jsonl", "review")
    command = ["select", rows, "-o", tmp_path / "kept", "--method", "round_robin", "--on", "text", "--keep", 2]
    refused = prune(*command, "--target", target, *WORDS[:2])
    assert refused.code == 1 and 'target.jsonl:1: no key "sentence" to read as "text"' in refused.errors[0]
    assert (
        f"{WORDS[2]} {WORDS[3]}, or {' '.join(WORDS[:4])} where files differ, which reads in each the one"
        in refused.err
    )
    done = prune(*command, "--target", target, *WORDS)
    assert done.code == 0, done.err
    artifact = open_artifact(tmp_path / "kept")
    assert artifact.about["fields"] == {"text": "sentence"}
    assert all("sentence" in json.loads(line) for line in artifact.file("select.jsonl").read_text().splitlines())
    again = prune(*command, "--target", target, *WORDS)
    assert again.code == 0 and "up to date" in again.err


def test_several_keys_are_refused_on_standard_input(prune: Prune) -> None:
    """It can be read but once, and what its first rows have would be known too late."""
    told = prune("represent", "-", "-o", "rep", "--kind", "lexical", *WORDS, stdin=b'{"text": "a"}\n')
    assert told.code == 1
    assert told.errors == [
        "field: text=sentence, text=review, text=text; allowed for rows on standard input: one key for each name"
    ]


@pytest.mark.parametrize("value", ["{text = 3}", "{text = []}", "3", '{text = ["a", "a"]}', '{text = [""]}'])
def test_pipeline_files_with_wrong_fields(value: str, tmp_path: Path, prune: Prune) -> None:
    """One line says what is allowed."""
    (tmp_path / "p.toml").write_text(f'train = "rows.jsonl"\nfields = {value}\n')
    told = prune("pipeline", tmp_path / "p.toml", "--dry-run")
    assert told.code == 1 and any("field" in line and "allowed: " in line for line in told.errors)


def test_init_writes_all_keys_that_were_given(tmp_path: Path, prune: Prune, tiny_model: Path) -> None:
    """The file that it writes reads rows and test set, and the dry run opens both."""
    rows, test = (tmp_path / name for name in ("rows.jsonl", "test.jsonl"))
    rows.write_text("".join(json.dumps({"sentence": f"film number {i}", "label": i % 2}) + "\n" for i in range(60)))
    test.write_text("".join(json.dumps({"review": f"plot number {i}", "label": i % 2}) + "\n" for i in range(60)))
    file = tmp_path / "p.toml"
    done = prune("init", rows, "-o", file, "--test", f"far={test}", "--model", tiny_model, *WORDS[:4])
    assert done.code == 0, done.err
    assert tomllib.loads(file.read_text())["fields"] == {"text": ["sentence", "review"]}
    dry = prune("pipeline", file, "-o", tmp_path / "run", "--dry-run")
    assert dry.code == 0, dry.err


def test_init_guesses_the_keys_of_all_files(tmp_path: Path, prune: Prune, tiny_model: Path) -> None:
    """Rows, and two test sets that call text and label differently, one by the very names."""
    for name, key, label in (("train", "sentence", "label"), ("test", "review", "sentiment"), ("ood", "text", "label")):
        rows = ({key: f"film number {i} of {name}", label: i % 2} for i in range(60))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "p.toml"
    files = [tmp_path / "train.jsonl", tmp_path / "test.jsonl", "--test", f"ood={tmp_path / 'ood.jsonl'}"]
    done = prune("init", *files, "-o", file, "--model", tiny_model)
    assert done.code == 0, done.err
    assert "fields: sentence or text or review is read as text, label or sentiment is read as label" in done.err
    plan = tomllib.loads(file.read_text())
    assert {key: set(value) for key, value in plan["fields"].items()} == {
        "text": {"sentence", "text", "review"},
        "label": {"label", "sentiment"},
    }
    dry = prune("pipeline", file, "-o", tmp_path / "run", "--dry-run")
    assert dry.code == 0, dry.err


def test_init_reads_files_of_several_formats(tmp_path: Path, prune: Prune) -> None:
    """Alpaca to train on, messages and question with answer to test on; no format is then said for all."""
    alpaca = [{"instruction": f"Add {i}.", "input": f"{i} and {i}", "output": str(2 * i)} for i in range(60)]
    turns = [[{"role": "user", "content": f"Add {i}"}, {"role": "assistant", "content": "5"}] for i in range(20)]
    asked = [{"question": f"Add {i} and {i}.", "answer": str(2 * i)} for i in range(20)]
    for name, rows in (("train", alpaca), ("messages", [{"messages": turn} for turn in turns]), ("asked", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "p.toml"
    tests = [word for name in ("messages", "asked") for word in ("--test", f"{name}={tmp_path / name}.jsonl")]
    done = prune("init", tmp_path / "train.jsonl", *tests, "-o", file, "--model", REPOSITORY / "sample_data" / "lm")
    assert done.code == 0, done.err
    table = tomllib.loads(file.read_text())
    assert table["fields"] == {"prompt": ["prompt", "question"], "response": ["response", "answer"]}
    assert "format" not in table
    dry = prune("pipeline", file, "-o", tmp_path / "run", "--dry-run")
    assert dry.code == 0, dry.err


@pytest.mark.parametrize(
    ("pair", "meant"),
    [("lable=y", "label"), ("txt=sentence", "text"), ("responce=y", "response"), ("mesages=m", "messages")],
)
def test_a_mistyped_name_is_refused(pair: str, meant: str, tmp_path: Path, prune: Prune) -> None:
    """Nothing would be read under it, and the rows would lack what was meant."""
    rows = written(tmp_path / "rows.jsonl", "text")
    ran = prune("select", rows, "-o", tmp_path / "out", "--method", "random", "--keep", 1, "--field", pair)
    assert ran.errors[0].endswith(f"{pair}; no key is read as {pair.partition('=')[0]}; did you mean {meant}?")
    assert fields.parse_fields(["label2=label", "label=gold"])["label2"] == "label"  # out of the way
    assert fields.parse_fields(["question_stem=q"]) == {"question_stem": "q"}  # of another task, perhaps
