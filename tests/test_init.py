"""`prune init`: a pipeline file that fits the data, runs as it is, and says what was guessed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from prune_cli.pipeline.checks import read_plan
from prune_cli.runtime.terminal import clean
from tests.conftest import REPOSITORY, Prune, sentences, write_rows

SAMPLE = REPOSITORY / "sample_data"
TEN = "".join(f'{{"text": "a {i}", "label": {i % 2}}}\n' for i in range(10))
NLI = {"text": "premise", "text_pair": "hypothesis"}


def init(prune: Prune, folder: Path, *arguments: object) -> tuple[Any, str]:
    """The plan of the file that was written, all of its rows through the tokenizer, and what was told."""
    file = folder / "my.toml"
    done = prune("init", *arguments, "-o", file)
    assert done.code == 0, done.err
    assert done.out == f"{clean(str(file))}\n"
    told = [line.removeprefix("init: ") for line in done.err.splitlines() if line.startswith("init: ")]
    lines = file.read_text("utf-8").split("\n")
    assert all(f"# - {' '.join(line.split())}" in lines for line in told)
    return read_plan(file, tokenise=True), "\n".join(told)


@pytest.mark.parametrize(
    ("data", "model", "task", "methods"),
    [
        ("train.jsonl", "model", "classification", 7),
        ("choice/train.jsonl", "model", "choice", 6),
        ("generation/train.jsonl", "lm", "generation", 8),
    ],
)
def test_the_file_passes_the_checks(
    data: str, model: str, task: str, methods: int, tmp_path: Path, prune: Prune
) -> None:
    """Of every task: rows, lengths, methods and budgets are as the pipeline wants them."""
    lines = (SAMPLE / data).read_text().splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_text("".join(lines[:100]))
    plan, told = init(prune, tmp_path, tmp_path / "rows.jsonl", "--model", SAMPLE / model)
    assert plan.task == task and f"task: {task}, by the keys of the rows" in told
    assert len(plan.entries) == methods
    assert dict(plan.parts.shares) == {"validation": 0.2, "tests/test": 0.2}
    assert plan.finetune.max_length == plan.warmup.max_length == plan.represent.max_length <= 512
    assert "no row would be cut" in told


def test_files_by_their_names(tmp_path: Path, prune: Prune, data: Path, tiny_model: Path) -> None:
    """Of several files validation and test are known by their names; what is said counts first."""
    names = ("train", "validation", "test")
    plan, told = init(prune, tmp_path, *(data / f"{name}.jsonl" for name in names), "--model", tiny_model)
    assert [Path(path).resolve() for path in (plan.train, plan.validation, *plan.tests.values())] == [
        (data / f"{name}.jsonl").resolve() for name in names
    ]
    assert told.count("by its name") == 2
    more = ["--validation", data / "test.jsonl", "--test", f"own={data / 'validation.jsonl'}", "--model", tiny_model]
    (tmp_path / "my.toml").unlink()
    plan, told = init(prune, tmp_path, data / "train.jsonl", *more)
    assert (Path(plan.validation).name, list(plan.tests)) == ("test.jsonl", ["own"])
    done = prune("init", data / "train.jsonl", data / "train.jsonl")
    assert done.code == 1 and "2 files of training rows; allowed: one" in done.errors[0]
    none = prune("init", data / "validation.jsonl", data / "test.jsonl")
    assert none.code == 1 and "no training rows; by their names all are validation or test rows" in none.errors[0]


@pytest.mark.parametrize(
    ("row", "task", "fields"),
    [
        ({"sentence": "a film {}", "category": "good"}, "classification", {"text": "sentence", "label": "category"}),
        ({"premise": "a {}", "hypothesis": "b {}", "label": "good"}, "classification", NLI),
        ({"question": "what is {}?", "answer": "it is {}"}, "generation", {"prompt": "question", "response": "answer"}),
        ({"text": "a text {}"}, "generation", {}),
        ({"text": "a text {}", "label": "good"}, "classification", {}),
    ],
)
def test_keys_are_guessed(row: dict[str, str], task: str, fields: dict[str, str], tmp_path: Path, prune: Prune) -> None:
    """Well-known keys of other names are read as what they are, which is told; the task follows from them."""
    rows = [{key: value.replace("{}", f"number {i}") for key, value in row.items()} for i in range(40)]
    for i in range(0, 40, 2):
        rows[i] |= {key: "bad" for key, value in row.items() if value == "good"}
    data = write_rows(tmp_path / "rows.jsonl", rows)
    model = SAMPLE / ("lm" if task == "generation" else "model")
    plan, told = init(prune, tmp_path, data, "--model", model)
    assert plan.task == task and dict(plan.reading.fields) == fields
    assert ("fields: " in told) == bool(fields)


def test_names_that_toml_must_quote(tmp_path: Path, prune: Prune, tiny_model: Path) -> None:
    """Paths and labels with quotation marks, backslashes, line ends, other scripts; relative to the file's folder."""
    folder = tmp_path / 'a "b" \\ \x7f é #'
    folder.mkdir()
    rows = [{**row, "text": f"{row['text']} {i}"} for i, row in enumerate(sentences(40))]
    odd = write_rows(folder / "rows\t'x'.jsonl", [{**row, "label": f'{row["label"]}"\n\u202e#'} for row in rows])
    plan, _ = init(prune, folder, odd, "--model", tiny_model, "--test", f"a.b={odd}")
    assert Path(plan.train).resolve() == odd.resolve() and list(plan.tests) == ["a.b"]
    text = (folder / "my.toml").read_text("utf-8")
    assert str(tmp_path) not in text.replace(str(odd).replace("\x7f", "\\x7f"), "").split("\n\n", 1)[1]
    assert "\u202e" not in text


def test_what_repeats_and_what_leaks_is_told(tmp_path: Path, prune: Prune, data: Path, tiny_model: Path) -> None:
    """Training rows that repeat a text, and those whose text is in a test set."""
    rows = [{"text": f"{row['text']} {i}", "label": row["label"]} for i, row in enumerate(sentences(60))]
    rows += rows[3:10]
    train = write_rows(tmp_path / "rows.jsonl", rows)
    test = write_rows(tmp_path / "held.jsonl", rows[:5])
    texts = [row["text"] for row in rows]
    _, told = init(prune, tmp_path, train, "--test", test, "--model", tiny_model)
    shared = sum(text in texts[:5] for text in texts)
    assert f"{shared} training rows have a text that stands in held too" in told
    assert f"{len(texts) - len(set(texts))} training rows repeat the text of an earlier one" in told
    assert "\n# decontaminate = true" in (tmp_path / "my.toml").read_text()


def test_labels_that_look_alike_are_told(tmp_path: Path, prune: Prune, tiny_model: Path) -> None:
    """They differ by case or blanks alone, and are labels of their own."""
    rows = [{"text": f"film number {i}", "label": ("good", "Good ", "bad")[i % 3]} for i in range(60)]
    _, told = init(prune, tmp_path, write_rows(tmp_path / "rows.jsonl", rows), "--model", tiny_model)
    assert "labels: 'Good ' and 'good' are different labels" in told
    assert told.count("are different labels") == 1


def test_a_small_data_set_runs_too(tmp_path: Path, prune: Prune, tiny_model: Path) -> None:
    """Ten rows are split and planned."""
    data = write_rows(tmp_path / "rows.jsonl", [{"text": f"a {i}", "label": i % 2} for i in range(10)])
    plan, _ = init(prune, tmp_path, data, "--model", tiny_model)
    assert dict(plan.parts.shares) == {"validation": 0.2, "tests/test": 0.2} and plan.keep == ("0.3", "0.5")


def test_without_a_model_lengths_are_guessed(prune: Prune, data: Path) -> None:
    """The file is printed with a model of the hub, and says that tokens were not counted."""
    done = prune("init", data / "train.jsonl")
    assert done.code == 0
    assert 'model = "distilbert/distilbert-base-uncased"' in done.out
    assert "as no --model was given" in done.err and "--model counts them" in done.err
    write_rows(data / "foreign.jsonl", [{"text": f"хороший фильм {i}", "label": i % 2} for i in range(10)])
    assert "multilingual" in prune("init", data / "foreign.jsonl").out


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"text": "a", "label": "x"}\n{"text": "b", "label": "x"}', "all rows have the label 'x'"),
        ('{"text": "a", "label": "x"}\n{"text": "b"}', 'rows.jsonl:2: no "label"; '),
        ('{"text": "a", "label": "x"}\n{"text": " ", "label": "y"}', "rows.jsonl:2: text is blank"),
        ('{"this": 1}', 'rows.jsonl:1: no "text"'),
        ("", "rows.jsonl:1: no rows"),
        ('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}', "rows.jsonl: too few rows to split off what was "),
        (
            '{"text": "a", "label": 1}\n' * 20 + '{"text": "a", "label": 0}',
            "has no row; rows of one text stay together",
        ),
        (TEN + '{"text": "a", "label": 0, "group": 1}', "rows.jsonl:1: key group is missing, which other rows have"),
    ],
)
def test_rows_that_cannot_be_trained_on(content: str, problem: str, tmp_path: Path, prune: Prune) -> None:
    """Are told as the other commands tell them, and nothing is written."""
    (tmp_path / "rows.jsonl").write_text(content)
    done = prune("init", tmp_path / "rows.jsonl", "-o", tmp_path / "my.toml")
    assert done.code == 1 and problem in done.errors[0]
    assert not (tmp_path / "my.toml").exists()


def test_a_file_that_is_there_is_kept(tmp_path: Path, prune: Prune, data: Path) -> None:
    """Unless --force is given; standard input is no file."""
    file = tmp_path / "folder/my.toml"
    assert prune("init", data / "train.jsonl", "-o", file).code == 0
    file.write_text("mine")
    done = prune("init", data / "train.jsonl", "-o", file)
    assert done.code == 1 and file.read_text() == "mine" and "hint: --force" in done.err
    assert prune("init", data / "train.jsonl", "-o", file, "--force").code == 0
    assert 'task = "classification"' in file.read_text()
    before = (data / "train.jsonl").read_bytes()
    done = prune("init", data / "train.jsonl", "-o", data / "train.jsonl", "--force")
    assert "is one of the inputs" in done.errors[0] and (data / "train.jsonl").read_bytes() == before
    assert "-: no such file; allowed: a data file" in prune("init", "-").errors[0]
    assert f"{data}: is not a file; allowed: a data file" in prune("init", data).errors[0]


def test_bad_rows_and_a_chat_template_go_into_the_file(tmp_path: Path, prune: Prune) -> None:
    """Bad rows are left out, and the pipeline alone writes them; paths are seen from the folder of the file."""
    rows = [{"prompt": f"What is {i}?", "response": f"It is {i}."} for i in range(20)]
    data = write_rows(tmp_path / "rows.jsonl", [*rows, {"prompt": "What?"}])
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }} .{{ eos_token }}{% endfor %}")
    given = [data, "--model", SAMPLE / "lm", "--skip-bad", tmp_path / "bad.jsonl", "--chat-template", template]
    (tmp_path / "sub").mkdir()
    plan, told = init(prune, tmp_path / "sub", *given)
    assert "20 train rows" in told and "bad rows are left out; the pipeline writes them into" in told
    assert plan.bad_rows is not None and plan.bad_rows.resolve() == tmp_path / "bad.jsonl"
    assert not plan.bad_rows.exists()
    for table in (plan.warmup, plan.finetune):
        assert Path(str(table.chat_template)).resolve() == template
    plain = init(prune, tmp_path / "sub", *given[:-2], "--force")[1]
    assert plain.split("lengths: ")[1] != told.split("lengths: ")[1]
    done = prune("init", SAMPLE / "train.jsonl", "--chat-template", template)
    assert "rows of the task classification are no conversations; leave it out" in done.errors[0]


@pytest.mark.parametrize(("words", "limit", "max_length"), [(5000, None, 8192), (5000, 3000, 3000), (700, 3000, 1024)])
def test_one_long_response(words: int, limit: int | None, max_length: int, tmp_path: Path, prune: Prune) -> None:
    """It is never cut: there is room for it where the model has any; where it has none, that and its place are told."""
    base = tmp_path / "model"
    shutil.copytree(SAMPLE / "lm", base)
    for name, key, value in (
        ("config.json", "max_position_embeddings", 100_000),
        ("tokenizer_config.json", "model_max_length", limit or 100_000),
    ):
        path = base / name
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    rows = [{"prompt": f"What is {i}?", "response": f"It is {i}."} for i in range(40)]
    rows[7]["response"] = "a " * words
    data = write_rows(tmp_path / "rows.jsonl", rows)
    done = prune("init", data, "-o", tmp_path / "my.toml", "--model", base)
    assert done.code == 0, done.err
    assert f"max_length = {max_length}\n" in (tmp_path / "my.toml").read_text()
    unfit = f"1 rows have a response too long for the {limit or 0:,} tokens that the model takes; the pipeline refuses"
    assert (unfit in done.err and f"the first is {data}:8" in done.err) == (words > (limit or words))


@pytest.mark.slow
@pytest.mark.parametrize(("data", "model"), [("train.jsonl", "model"), ("generation/train.jsonl", "lm")])
def test_the_file_runs_as_it_is(data: str, model: str, tmp_path: Path, prune: Prune) -> None:
    """On few rows, to the table."""
    lines = (SAMPLE / data).read_text().splitlines(keepends=True)[:60]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    init(prune, tmp_path, tmp_path / "rows.jsonl", "--model", SAMPLE / model)
    done = prune("pipeline", tmp_path / "my.toml", "-o", tmp_path / "runs", "--device", "cpu")
    assert done.code == 0, done.err
    assert "less" in done.out
