"""Kept rows for others: what comes out is what went in, in a form that the trainer's own loader reads.

LLaMA-Factory's converter, axolotl's loader and TRL's SFTTrainer were run on these exports once. Asked here is what the
documentation of the first two says, and what TRL made of its own (trl_export.json).

axolotl 0.19 (transformers 5.16, no GPU): the lines of axolotl.yaml with a base_model, SmolLM2 or one whose template
has tools, through `load_cfg`, then `load_datasets` or, with `rl`, `load_preference_datasets`. All rows of each form
came out. Chats have the tokens that prune trains on, texts and pairs of texts the labels too. In chats axolotl's labels
lack what a template puts around a turn: the line end behind its last token, an empty <think>. Alpaca comes in Alpaca's
own prompt. Of messages it reads tool_calls only where the template's loop calls a message `message`.
"""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml  # type: ignore[import-untyped]  # comes with the library datasets, without types

import prune_cli
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.data import formats
from prune_cli.data.rows import read_rows as open_rows
from prune_cli.errors import PruneError
from prune_cli.tasks import conversations
from tests import trl_labels
from tests.conftest import Prune, read_rows, sentences, write_rows
from tests.trl_export import DOCUMENTED, FILE, TEMPLATE, TRAINED, exported, loaded, selected

TRL = json.loads(FILE.read_text("utf-8"))
ROLES = {"role": "from", "content": "value"}
OPENAI = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "function",
    "system_tag": "system",
}
SAID = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Bye"}]
CONVERTED = {"formatting": "sharegpt", "columns": {"messages": "conversations"}}
COMPARED = {"chosen": "chosen", "rejected": "rejected"}
# of each documented form: its entry in dataset_info.json but for the file, and its lines for axolotl but for the file
READ: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "alpaca": (
        {"columns": {"prompt": "instruction", "query": "input", "response": "output"}},
        {"type": "alpaca"},
    ),
    "alpaca history": (
        {
            "columns": {
                "prompt": "instruction",
                "query": "input",
                "response": "output",
                "system": "system",
                "history": "history",
            }
        },
        {"type": "chat_template"},
    ),
    "sharegpt": (
        CONVERTED,
        {"type": "chat_template", "field_messages": "conversations", "message_property_mappings": ROLES},
    ),
    "sharegpt tools": (
        {
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "system": "system", "tools": "tools"},
        },
        {"type": "chat_template"},
    ),
    "messages": (
        {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": OPENAI},
        {"type": "chat_template", "field_messages": "messages"},
    ),
    "messages tools": (
        {"formatting": "sharegpt", "columns": {"messages": "conversations", "tools": "tools"}},
        {"type": "chat_template", "field_messages": "messages", "field_tools": "tools"},
    ),
    "prompt_response": ({"columns": {"prompt": "prompt", "response": "response"}}, {"type": "chat_template"}),
    "prompt_completion": (
        {"columns": {"prompt": "prompt", "response": "completion"}},
        {
            "type": {
                "field_instruction": "prompt",
                "field_output": "completion",
                "format": "{instruction}",
                "no_input_format": "{instruction}",
            }
        },
    ),
    "prompt_completion messages": (CONVERTED, {"type": "chat_template", "message_field_training": "weight"}),
    "text": ({"columns": {"prompt": "text"}}, {"type": "completion", "field": "text"}),
    "preference": (
        {"ranking": True, "columns": {"prompt": "prompt", **COMPARED}},
        {"type": "chat_template.default", "field_messages": "prompt"},
    ),
    "preference messages": (
        {**CONVERTED, "ranking": True, "columns": {"messages": "conversations", **COMPARED}},
        {"type": "chat_template.default", "field_messages": "prompt"},
    ),
    "preference whole": (
        {**CONVERTED, "ranking": True, "columns": {"messages": "conversations", **COMPARED}},
        {"type": "chat_template.argilla_chat"},
    ),
    "preference alpaca": (
        {"ranking": True, "columns": {"prompt": "instruction", "query": "input", **COMPARED}},
        {"type": "chat_template.default", "field_messages": "messages"},
    ),
    "preference sharegpt": (
        {**CONVERTED, "ranking": True, "columns": {"messages": "conversations", **COMPARED}},
        {"type": "chat_template.default", "field_messages": "messages"},
    ),
}
KEPT_AS_THEY_CAME = {  # the others are converted
    "llamafactory": set(DOCUMENTED)
    - {"messages tools", "prompt_completion messages", "preference messages", "preference whole"},
    "axolotl": set(DOCUMENTED)
    - {"alpaca history", "sharegpt tools", "prompt_response", "prompt_completion messages"}
    - {"preference alpaca", "preference sharegpt"},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_format_has_documented_rows() -> None:
    """A new format needs its rows here, and a word on how each trainer reads them."""
    assert {name.split()[0] for name in DOCUMENTED} == set(formats.names())
    assert set(READ) == set(DOCUMENTED)


def without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table, in which a key that it lacked is null."""
    return {key: value for key, value in row.items() if value is not None}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_rows_come_out_whole(name: str, here: Path, prune: Prune) -> None:
    """JSONL has the bytes, Parquet and the folder for datasets every key in its order and every value with its type."""
    rows = DOCUMENTED[name]
    kept = selected(rows, name.split()[0], here)
    for form in ("jsonl", "parquet", "datasets"):
        assert prune("export", kept, "-o", form, "--for", form).code == 0
    assert (here / "jsonl/kept.jsonl").read_bytes() == (here / "rows.jsonl").read_bytes()
    keys = list(dict.fromkeys(key for row in rows for key in row))
    for given in (loaded(here / "datasets"), read_with_json(here / "parquet/kept.parquet")):
        assert list(given[0]) == keys
        assert list(map(without_nulls, given)) == list(map(without_nulls, rows))
    if not any(isinstance(value, list | dict) for row in rows for value in row.values()):
        assert prune("export", kept, "-o", "csv", "--for", "csv").code == 0
        with (here / "csv/kept.csv").open(newline="") as file:
            read = list(csv.DictReader(file))
        for row, cells in zip(rows, read, strict=True):
            written = {key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()}
            assert {key: text for key, text in written.items() if text not in ("", "null")} == {
                key: cell for key, cell in cells.items() if cell
            }


def read_with_json(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file, columns of the type JSON read, by nothing but pyarrow."""
    table = pyarrow.parquet.read_table(path)

    def value(given: Any, kind: pyarrow.DataType) -> Any:
        if given is None:
            return None
        if isinstance(kind, pyarrow.JsonType):
            return json.loads(given)
        if pyarrow.types.is_list(kind):
            return [value(entry, kind.value_type) for entry in given]
        if pyarrow.types.is_struct(kind):
            return {entry.name: value(given[entry.name], entry.type) for entry in kind}
        return given

    return [{f.name: value(row[f.name], f.type) for f in table.schema} for row in table.to_pylist()]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_llamafactory_and_axolotl_are_told_how_to_read_the_rows(name: str, here: Path, prune: Prune) -> None:
    """What is written beside the rows is what the documentations say of such rows; they are the bytes that came in, or
    are converted and that is told; no other key is lost.
    """
    rows = DOCUMENTED[name]
    kept = selected(rows, name.split()[0], here)
    for form, expected in zip(("llamafactory", "axolotl"), READ[name], strict=True):
        ran = prune("export", kept, "-o", form, "--for", form)
        assert ran.code == 0, ran.err
        as_it_came = name in KEPT_AS_THEY_CAME[form]
        assert ("the rows get" in ran.err) != as_it_came
        assert ((here / form / "kept.jsonl").read_bytes() == (here / "rows.jsonl").read_bytes()) == as_it_came
        entry, config = (
            json.loads((here / form / "dataset_info.json").read_text())["kept"] if form == "llamafactory" else {},
            yaml.safe_load((here / form / f"{form}.yaml").read_text()),
        )
        if form == "llamafactory":
            assert entry == {"file_name": "kept.jsonl", **expected}
            stage = {"text": "pt", "preference": "dpo"}.get(name.split()[0], "sft")
            assert config == {"stage": stage, "dataset_dir": ".", "dataset": "kept"}
        else:
            rl = {"rl": "dpo"} if name.startswith("preference") else {}
            assert config == {
                **rl,
                "datasets": [{"path": "kept.jsonl", "ds_type": "json", "split": "train", **expected}],
            }
        for row, written in zip(rows, read_rows(here / form / "kept.jsonl"), strict=True):
            gone = {"messages", "prompt", "completion", "tools"} if form == "llamafactory" else {"system", "tools"}
            assert {key: row[key] for key in row.keys() - gone - COMPARED.keys()}.items() <= written.items()


def test_messages_with_tools_as_llamafactory_documents_them(here: Path, prune: Prune) -> None:
    """A call is the JSON of its function with arguments as an object, a result an observation, tools JSON text."""
    kept = selected(DOCUMENTED["messages tools"], "messages", here)
    assert prune("export", kept, "-o", "out", "--for", "llamafactory").code == 0
    first, second = read_rows(here / "out/kept.jsonl")
    assert [turn["from"] for turn in first["conversations"]] == ["human", "function_call", "observation", "gpt"]
    assert json.loads(first["conversations"][1]["value"]) == {"name": "weather", "arguments": {"city": "Paris"}}
    assert json.loads(second["conversations"][1]["value"])["arguments"] == {"a": 2, "b": 0.5}
    assert [tool["name"] for tool in json.loads(first["tools"])] == ["weather"]
    assert first["parallel_tool_calls"] is False and "messages" not in first


@pytest.mark.parametrize("name", TRAINED)
def test_trl_trains_on_what_prune_trains_on(name: str, tmp_path: Path) -> None:
    """The export is the one that SFTTrainer was given; its tokens and its loss were those of prune for these rows."""
    assert read_with_json(exported(name, tmp_path) / "train.parquet") == TRL[name]["rows"]
    rows = open_rows(tmp_path / "rows.jsonl", check=None, format=name.split()[0])
    tokenizer = trl_labels.tokenizer(TEMPLATE, marked=True)
    ours = conversations.tokens(rows, range(len(rows)), tokenizer, loss_on="all")
    for made, row in zip(TRL[name]["made"], ours, strict=True):
        assert made["ids"] == list(row.ids)
        trained = [i for i in made["trained"] if i]  # nothing stands before the first token, which none can learn
        assert trained == row.trained.nonzero()[0].tolist()


@pytest.mark.parametrize(
    ("trainer", "key", "row"),
    [
        ("axolotl", "messages", {"prompt": "Hi", "response": "Bye"}),
        ("llamafactory", "conversations", {"prompt": SAID[:1], "completion": SAID[1:]}),
        ("trl", "completion", {"prompt": "Hi", "response": "Bye"}),
    ],
)
def test_a_key_of_the_user_s_that_is_written_over_is_told(
    trainer: str, key: str, row: dict[str, Any], here: Path, prune: Prune
) -> None:
    """What rows are converted to may need a key that they have for something else; without it nothing is told."""
    for more, told in (({}, False), ({key: "mine"}, True)):
        write_rows(here / "rows.jsonl", [row | more | {"n": 1}])
        how = ["--task", "generation", "--format", "prompt_response" if "response" in row else "prompt_completion"]
        assert prune("select", "rows.jsonl", "-o", "kept", "--method", "random", "--keep", 1, "--force", *how).code == 0
        ran = prune("export", "kept", "-o", "out", "--for", trainer, "--force")
        assert ran.code == 0, ran.err
        assert (f"the rows' own {key} makes room for what they are converted to" in ran.err) == told


def test_llama_factory_keeps_keys_that_are_not_of_the_old_form(here: Path, prune: Prune) -> None:
    """A prompt beside messages is the user's own; spaces and commas in --why change nothing."""
    tool = {"name": "f", "parameters": {}}
    write_rows(here / "rows.jsonl", [{"messages": SAID, "tools": [tool], "prompt": "mine"}])
    how = ["--task", "generation", "--format", "messages"]
    assert prune("select", "rows.jsonl", "-o", "kept", "--method", "random", "--keep", 1, *how).code == 0
    assert prune("export", "kept", "-o", "out", "--for", "llamafactory", "--why", "id").code == 0
    made = read_rows(here / "out/kept.jsonl")[0]
    assert (made["prompt"], made["id"], set(made)) == ("mine", 1, {"conversations", "tools", "prompt", "id"})
    assert "up to date" in prune("export", "kept", "-o", "out", "--for", "llamafactory", "--why", " id,").err


def test_what_trl_would_misread_is_left_out_and_told(here: Path, prune: Prune) -> None:
    """Nothing but keys that TRL reads by itself; renamed keys get TRL's names; untrained messages are told."""
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello", "weight": 0}]
    rows = [{"talk": [*said, *said[:1], {"role": "assistant", "content": "Bye"}], "labels": [1], "prompt": "x", "n": 1}]
    write_rows(here / "rows.jsonl", rows)
    how = ["--task", "generation", "--field", "messages=talk", "--format", "messages"]
    assert prune("select", "rows.jsonl", "-o", "kept", "--method", "random", "--keep", 1, *how).code == 0
    ran = prune("export", "kept", "-o", "out", "--for", "trl")
    assert ran.code == 0, ran.err
    assert loaded(here / "out") == [{"messages": rows[0]["talk"], "n": 1}]
    assert "left out, as TRL would read it: labels, prompt" in ran.err
    assert "the key talk becomes messages" in ran.err
    assert "1 of 1 rows have messages by the assistant that are not to be trained on; TRL trains on them" in ran.err
    ran = prune("export", "kept", "-o", "axolotl", "--for", "axolotl")
    config = yaml.safe_load((here / "axolotl/axolotl.yaml").read_text())["datasets"][0]
    assert (config["field_messages"], config["message_field_training"]) == ("talk", "weight")


def test_rows_that_llamafactory_skips_are_told(here: Path, prune: Prune) -> None:
    """Two messages by the user, one after the other: its converter leaves such a row out."""
    good = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    kept = selected([{"messages": good}, {"messages": [good[0], *good]}], "messages", here)
    ran = prune("export", kept, "-o", "out", "--for", "llamafactory")
    assert "export: 1 of 2 rows are left out by LLaMA-Factory" in ran.err and f"{kept}/select.jsonl:2" in ran.err


def test_the_card_says_what_rows_were_chosen_from(here: Path, prune: Prune) -> None:
    """An earlier selection, test sets, and the target set of the selection or of the score behind it."""
    texts = [f"row number {i} of many" for i in range(12)]
    for name, some in (("train", texts), ("test", texts[:2]), ("goal", texts[5:6])):
        write_rows(here / f"{name}.jsonl", [{"text": text, "label": "a"} for text in some])
    chosen = ["--keep", "50%", "--within", "first", "--decontaminate", "test.jsonl"]
    for command in (
        ["select", "train.jsonl", "-o", "first", "--method", "random", "--keep", 10],
        ["score", "train.jsonl", "-o", "near", "--method", "bm25", "--target", "goal.jsonl"],
        ["select", "near", "-o", "kept", "--method", "top", *chosen],
        ["export", "kept", "-o", "out", "--for", "datasets"],
    ):
        ran = prune(*command)
        assert ran.code == 0, ran.err
    shutil.rmtree(here / "near")  # what was behind the selection may be gone or another by then
    assert prune("export", "kept", "-o", "out", "--for", "datasets", "--force").code == 0
    card = (here / "out/README.md").read_text()
    about = open_artifact(here / "kept").about
    rows = f"rows | {about['kept']} of 12 ({about['kept'] / 12:.1%}), of {about['candidates']} that may be kept"
    assert 8 <= about["candidates"] < 10
    for told in (rows, "within | first", "decontaminated by | test.jsonl", "target set | goal.jsonl"):
        assert f"| {told} |" in card


def test_rows_to_classify_and_multiple_choice(here: Path, prune: Prune, made: Path) -> None:
    """They come out whole with a card that says how they were chosen, and are nothing for a trainer of texts."""
    ran = prune("export", made / "kept", "-o", "out", "--for", "datasets")
    assert ran.code == 0, ran.err
    assert loaded(here / "out") == read_rows(made / "kept/select.jsonl")
    head, card = (here / "out/README.md").read_text().split("---\n")[1:]
    assert yaml.safe_load(head)["size_categories"] == ["n<1K"]
    recipe = open_artifact(made / "kept").manifest["key"]
    for told in ("rows | 12 of 24 (50.0%)", "from | train.jsonl", "method | top of the scores of less"):
        assert f"| {told} |" in card
    assert f"| recipe | {recipe} |" in card
    told = "for: trl; the rows are of the task classification, and it trains language models; allowed: csv, datasets, "
    assert prune("export", made / "kept", "-o", "trl", "--for", "trl").errors[0].startswith(told)
    assert not (here / "trl").exists()
    rows = [
        {"question": "The lid is _.", "choices": ["loose", "tight"], "label": 1},
        {"question": "Sky?", "choices": {"text": ["blue", "red"], "label": ["A", "B"]}, "answerKey": "A"},
    ]
    write_rows(here / "choice.jsonl", rows)
    select = ["select", "choice.jsonl", "-o", "kept", "--method", "random", "--keep", 2, "--task", "choice"]
    assert prune(*select).code == 0
    assert prune("export", "kept", "-o", "choice", "--for", "datasets").code == 0
    assert list(map(without_nulls, loaded(here / "choice"))) == rows


def test_columns_of_why(here: Path, prune: Prune, made: Path) -> None:
    """They stand behind each row's own keys, in the rows' order, and the rest of the line stays as it was."""
    why = {line["id"]: line for line in read_rows(made / "kept/why.jsonl")}
    for order in ("data", "best"):
        select = ["select", made / "score", "-o", order, "--method", "top", "--keep", 6, "--order", order]
        assert prune(*select).code == 0
        assert prune("export", order, "-o", f"{order}-out", "--for", "jsonl", "--why", "rank,score").code == 0
        lines = (here / order / "select.jsonl").read_text().splitlines()
        written = (here / f"{order}-out/kept.jsonl").read_text().splitlines()
        for before, after in zip(lines, written, strict=True):
            told = why[json.loads(before)["id"]]
            assert after == f'{before[:-1]}, "rank": {told["rank"]}, "score": {told["score"]!r}}}'
    clash = prune("export", made / "kept", "-o", "out", "--for", "csv", "--why", "id")
    assert clash.errors[0].startswith(f"{made}/kept/select.jsonl:1: the row has a key id of its own; allowed: ")
    unknown = prune("export", made / "kept", "-o", "out", "--for", "csv", "--why", "weight")
    assert unknown.errors == [f"why: weight; allowed: columns of {made}/kept/why.jsonl, each once: id, rank, score"]


def test_csv_says_what_it_cannot_hold(here: Path, prune: Prune) -> None:
    """A list or an object is an error with its column, or JSON text if asked for; line ends and quotes come back."""
    rows = [
        {"text": 'a "b",\r\nc\rd', "label": True, "meta": None},
        {"text": "é", "label": False, "meta": {"a": [1]}},
    ]
    write_rows(here / "rows.jsonl", [{**row, "label": int(row["label"])} for row in rows])  # type: ignore[call-overload]
    assert prune("select", "rows.jsonl", "-o", "kept", "--method", "random", "--keep", 2).code == 0
    ran = prune("export", "kept", "-o", "out", "--for", "csv")
    assert ran.errors == ["kept/select.jsonl:2: meta holds an object; allowed in CSV: text, numbers, true, false, null"]
    assert prune("export", "kept", "-o", "out", "--for", "csv", "--nested", "json").code == 0
    with (here / "out/kept.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["text", "label", "meta"],
            ['a "b",\r\nc\rd', "1", ""],
            ["é", "0", '{"a": [1]}'],
        ]
    assert prune("export", "kept", "-o", "other", "--for", "jsonl", "--nested", "json").code == 1


def test_rows_of_every_source(here: Path, prune: Prune) -> None:
    """CSV, packed JSONL, Parquet and a saved data set: the kept rows are those of the source."""
    import datasets

    rows = sentences(4)
    saved: Any = datasets.Dataset.from_list(rows)
    saved.save_to_disk("saved")
    saved.to_parquet("rows.parquet")
    saved.to_csv("rows.csv", index=False)
    (here / "rows.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    for i, source in enumerate(("saved", "rows.parquet", "rows.csv", "rows.jsonl.gz")):
        assert prune("select", source, "-o", f"kept{i}", "--method", "random", "--keep", 4, "--order", "data").code == 0
        assert prune("export", f"kept{i}", "-o", f"out{i}", "--for", "parquet").code == 0
        assert read_with_json(here / f"out{i}/kept.parquet") == rows


def test_an_export_is_an_artifact(here: Path, prune: Prune, made: Path) -> None:
    """Up to date on a rerun, the same bytes elsewhere, refused over another, never over or within what it reads; the
    manifest is no data to the library datasets; the function makes what the command makes.
    """
    export = ["export", made / "kept", "--for", "datasets", "-o"]
    assert prune(*export, "out").code == 0
    assert prune("show", "out").out.startswith("out: 12 kept rows for datasets")
    assert "export: up to date" in prune(*export, "out").err
    assert prune_cli.export(made / "kept", here / "out", for_="datasets").about == {"rows": 12, "for": "datasets"}
    assert prune(*export, "other").code == 0
    assert (here / "other/train.parquet").read_bytes() == (here / "out/train.parquet").read_bytes()
    refused = prune(*export, "out", "--why", "rank")
    assert refused.errors == ['out: holds another artifact: options.why null -> "rank"']
    assert prune(*export, "out", "--why", "rank", "--replace").code == 0
    assert list(loaded(here / "out")[0])[-1] == "rank"
    (here / "mine").mkdir()
    (here / "mine/notes.txt").write_text("mine")
    assert prune(*export, "mine").code == 1 and (here / "mine/notes.txt").exists()
    shutil.copytree(made / "kept", here / "kept")
    assert "lies in the input" in prune("export", "kept", "-o", "kept/out", "--for", "jsonl").errors[0]
    assert prune("export", made / "score", "-o", "scores", "--for", "jsonl").code == 1
    assert (
        prune(*export[:2], "-o", "none", "--for", "keras").errors[0].startswith("for: keras; allowed: axolotl, csv, ")
    )
    with pytest.raises(PruneError, match="for_: missing"):
        prune_cli.export(made / "kept", here / "none")
