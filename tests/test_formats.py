"""What holds for every row format, whatever it is; how a row's format is known; what rows of each format say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import prune_cli
from prune_cli.data import formats
from prune_cli.data.formats._conversation import Conversation
from prune_cli.data.rows import read_rows as open_rows
from prune_cli.errors import PruneError
from prune_cli.pipeline.checks import read_plan
from tests.conftest import REPOSITORY, Prune, write_rows

PACKAGE = Path(prune_cli.__file__).parent
FORMATS = formats.names()
UNASKED = ("preference",)  # only read where --format names them

U: dict[str, Any] = {"role": "user", "content": "Hi"}
A: dict[str, Any] = {"role": "assistant", "content": "Hello"}
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
CALLED = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
ADD = {"name": "add", "description": "Add."}
HUMAN: dict[str, Any] = {"from": "human", "value": "Hi"}
GPT: dict[str, Any] = {"from": "gpt", "value": "Hello"}


def test_formats_are_found_by_their_files() -> None:
    """Every file of data/formats/ is a format, and declares all that a format has."""
    assert sorted(file.stem for file in (PACKAGE / "data/formats").glob("[!_]*.py")) == FORMATS
    declared = [entry for entry in vars(formats.Format) if not entry.startswith("_")]
    for name in FORMATS:
        known = formats.load(name)
        assert all(hasattr(known, entry) for entry in declared), name
        assert (known.__doc__ or "").startswith('{"' + known.KEYS[0]), name
        assert (
            isinstance(known.KEYS, tuple) and isinstance(known.BESIDE, tuple) and set(known.KEYS) <= set(known.EXAMPLE)
        )


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_knows_its_own_rows(name: str) -> None:
    """Its example is good and of this format alone: messages that end with the assistant's, or two texts."""
    known = formats.load(name)
    row = dict(known.EXAMPLE)
    assert [other for other in FORMATS if formats.load(other).matches(row)] == [name]
    assert known.check(row) is None and formats.Check(name, asked=True)({"id": "a", "kind": "b", **row}) is None
    if name in UNASKED:
        with pytest.raises(PruneError, match=f"--format {name}"):
            formats.detected(row)
    else:
        assert formats.detected({"id": "a", "kind": "b", **row}) == name
        assert formats.check(row) is None
    told = known.conversation(row)
    assert len(told.messages) == len(told.trained)
    assert told.messages or told.plain
    if told.messages:
        assert told.messages[-1]["role"] == "assistant" and told.trained[-1] and told.prompted
    assert row == known.EXAMPLE  # nothing is changed in place


@pytest.mark.parametrize("name", FORMATS)
def test_a_bad_row_of_a_format_is_told_in_words(name: str) -> None:
    """Without one of its keys, with another type, blank or empty there, the problem is one line that names the key."""
    known, check = formats.load(name), formats.Check(name, asked=True)
    for key in known.KEYS:
        without = {other: value for other, value in known.EXAMPLE.items() if other != key}
        values: list[Any] = [None, 3, " ", [], {}, [None]]
        for bad in (without, *({**known.EXAMPLE, key: value} for value in values)):
            problem = check(bad)
            assert problem and "; allowed: " in problem and "\n" not in problem, bad
            assert key in problem or "message 1 " in problem, bad


@pytest.mark.parametrize("name", FORMATS)
def test_rows_of_a_format_come_out_as_they_came(name: str, tmp_path: Path, prune: Prune) -> None:
    """Kept rows are the same bytes, odd spacing and all; the kept rows are read again in the same format."""
    lines = [
        json.dumps({**formats.load(name).EXAMPLE, "n": n, "more": {"b": [1.50, None]}}).replace(": ", " :  ")
        for n in range(3)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    how = ["--task", "generation", *(["--format", name] if name in UNASKED else [])]
    ran = prune("select", tmp_path / "rows.jsonl", "-o", tmp_path / "kept", "--method", "random", "--keep", 3, *how)
    assert ran.code == 0, ran.err
    told = f"{tmp_path / 'rows.jsonl'}: rows of the format {name}"
    assert ran.err.count(told) == (name not in UNASKED)
    assert sorted((tmp_path / "kept/select.jsonl").read_text().splitlines()) == sorted(lines)
    again = prune("select", tmp_path / "kept", "-o", tmp_path / "again", "--method", "random", "--keep", 2)
    assert again.code == 0, again.err
    assert json.loads((tmp_path / "again/manifest.json").read_text())["about"]["format"] == name


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"question": "a"}, 'no "prompt"; the row has: "question"; allowed: '),
        ({"response": "a"}, 'no "prompt"; the row has: "response"; allowed: '),
        ({"prompt": "a", "id": 1}, 'no "response"; the row has: "prompt", "id"; allowed: '),
        ({"instruction": "a", "input": ""}, 'no "output"; the row has: "instruction", "input"; allowed: '),
        ({"messages": [], "prompt": "a"}, 'the row has "messages" and "prompt"; allowed: '),
        ({"messages": [], "response": "a"}, 'the row has "messages" and "response"; allowed: '),
        ({"messages": [], "conversations": []}, 'the row has "messages" and "conversations"; allowed: '),
    ],
)
def test_rows_of_no_format_or_several(row: dict[str, Any], problem: str) -> None:
    """The message says what the row has, and the keys of all formats."""
    told = formats.check(row)
    assert told and told.startswith(problem)
    keys = [key for name in FORMATS for key in formats.load(name).KEYS]
    assert all(f'"{key}"' in told.split("allowed: ")[1] for key in keys)
    with pytest.raises(PruneError):
        formats.detected(row)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"instruction": "a", "output": "b", "text": "c"}, "alpaca"),  # as tatsu-lab/alpaca has it
        ({"prompt": "a", "messages": [U, A]}, "messages"),
        ({"prompt": "a", "chosen": [U, A], "rejected": [U, A], "messages": [U, A]}, "messages"),
        ({"prompt": "a", "chosen": [U, A], "rejected": [U, A], "messages": [U, A]}, "preference"),
        ({"text": "a", "label": 1}, "text"),
    ],
)
def test_a_format_given_by_name_reads_rows_that_look_like_others(
    row: dict[str, Any], name: str, tmp_path: Path
) -> None:
    """What `auto` refuses or may not guess is read as it is asked for; the digest is that of this reading."""
    path = write_rows(tmp_path / "rows.jsonl", [row])
    rows = open_rows(path, check=None, format=name)
    assert rows.format == name
    assert rows.digest != open_rows(path, check=None).digest
    assert formats.conversation(rows[0], rows.format)


def test_the_first_row_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file is told once; a row of another format after it is an error with its line; so is a text with a label."""
    path = write_rows(tmp_path / "rows.jsonl", [{"text": "a"}, {"text": "b"}, {"prompt": "a", "response": "b"}])
    with pytest.raises(PruneError) as failure:
        open_rows(path, check=None, format="auto")
    told = f"{path}:3: a row of the format prompt_response, after rows of text; allowed: rows of one format"
    assert failure.value.message == told
    assert str(failure.value.hint).startswith(
        "write all in one format; --format text or prompt_response with --skip-bad"
    )
    path = write_rows(tmp_path / "labels.jsonl", [{"text": "a", "label": 1}])
    with pytest.raises(
        PruneError, match=r"labels.jsonl:1: the row has a label beside its text.*--format text"
    ) as failure:
        open_rows(path, check=None, format="auto")
    assert failure.value.hint == "--format text"
    write_rows(tmp_path / "good.jsonl", [{"text": "a"}, {"text": "b"}])
    assert open_rows(tmp_path / "good.jsonl", check=None, format="auto").format == "text"
    assert capsys.readouterr().err == f"{tmp_path / 'good.jsonl'}: rows of the format text\n"


def test_a_format_of_other_tasks_or_of_none_is_refused(tmp_path: Path, prune: Prune) -> None:
    """Rows to classify have no format; an unknown one is told with those there are."""
    data = REPOSITORY / "sample_data/train.jsonl"
    start = ["select", data, "-o", tmp_path / "out", "--method", "random", "--keep", 3, "--format"]
    ran = prune(*start, "alpaca")
    assert ran.errors == ["format: alpaca; rows of the task classification have no formats; leave it out"]
    ran = prune(*start, "csv", "--task", "generation")
    assert ran.errors == [f"format: csv; allowed: auto, {', '.join(FORMATS)}"]


def said(row: dict[str, Any], name: str) -> Conversation:
    """What a good row says."""
    assert formats.Check(name, asked=True)(row) is None
    return formats.conversation(row, name)


def test_alpaca() -> None:
    """The input stands on a line below the instruction; system and history come first; the published prompt else."""
    row = {"instruction": "Add.", "input": "2, 3", "output": "5", "system": "Sum.", "history": [["Hi", "Hello"]]}
    told = said(row, "alpaca")
    assert told.messages == [
        {"role": "system", "content": "Sum."},
        U,
        A,
        {"role": "user", "content": "Add.\n2, 3"},
        {"role": "assistant", "content": "5"},
    ]
    assert told.trained == [False, False, True, False, True]
    assert told.plain is None
    for given in ({"input": ""}, {"input": None}, {}):
        assert said({"instruction": "Add.", "output": "5", **given}, "alpaca").plain == (
            "Below is an instruction that describes a task. Write a response that appropriately completes the "
            "request.\n\n### Instruction:\nAdd.\n\n### Response:",
            "5",
        )
    plain = said({"instruction": "Add.", "input": "2, 3", "output": "5"}, "alpaca").plain
    assert plain and plain[0].endswith("\n\n### Instruction:\nAdd.\n\n### Input:\n2, 3\n\n### Response:")


def test_sharegpt() -> None:
    """Roles become those of templates; calls and tools are parsed; an empty list of tools is none."""
    call: dict[str, Any] = {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2}}'}
    row = {
        "conversations": [HUMAN, call, {"from": "observation", "value": ""}, GPT],
        "system": "Be.",
        "tools": json.dumps([ADD]),
    }
    told = said(row, "sharegpt")
    assert [message["role"] for message in told.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert told.messages[2] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}],
    }
    assert told.trained == [False, False, True, False, True]
    assert told.tools == [{"type": "function", "function": ADD}]
    assert said({"conversations": [HUMAN, GPT], "tools": "[]", "system": ""}, "sharegpt").tools is None


def test_messages() -> None:
    """Calls, tools, parts, weights and empty system texts, as OpenAI and LLaMA-Factory have them."""
    parts = [{"type": "text", "text": "He"}, {"type": "text", "value": "llo"}]
    system = {"role": "system", "content": ""}
    tool = {"role": "tool", "content": "4", "tool_call_id": "1"}
    calls = {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": 0}
    row = {"messages": [system, U, calls, tool, {"role": "assistant", "content": parts}], "tools": [ADD]}
    told = said(row, "messages")
    assert told.messages == [
        system,
        U,
        {"role": "assistant", "content": None, "tool_calls": [CALLED]},
        tool,
        A,
    ]
    assert told.trained == [False, False, False, False, True]
    thought = [
        {"type": "reasoning", "value": "Hm."},
        {"type": "tool_call", "value": '{"name": "add", "arguments": {}}'},
    ]
    (_, answer) = said({"messages": [U, {"role": "assistant", "content": thought}]}, "messages").messages
    assert answer["reasoning_content"] == "Hm."
    assert answer["tool_calls"] == [{"type": "function", "function": {"name": "add", "arguments": {}}}]
    weighed = [{**U, "loss_weight": 0.0}, {**A, "loss_weight": 0.0}, U, {**A, "loss_weight": 1.0}]
    assert said({"messages": weighed}, "messages").trained == [False, False, False, True]


def test_completions_and_texts() -> None:
    """Texts are no messages; of messages only those of the completion are trained on."""
    assert said({"prompt": "a", "completion": " b"}, "prompt_completion") == Conversation(plain=("a", " b"))
    told = said({"prompt": [U, A, U], "completion": [A, U, A]}, "prompt_completion")
    assert told.trained == [False, False, False, True, False, True]
    assert said({"text": "a"}, "text") == Conversation(plain=("", "a"))
    assert not said({"text": "a"}, "text").prompted


PREFERRED: list[dict[str, Any]] = [
    {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
    {"prompt": [U], "chosen": [A], "rejected": [{**A, "content": "No"}]},
    {"chosen": [U, A], "rejected": [U, {**A, "content": "No"}]},
    {"prompt": "Hi", "chosen": [U, A], "rejected": [U, {**A, "content": "No"}]},
    {"conversations": [HUMAN], "chosen": GPT, "rejected": {**GPT, "value": "No"}},
    {"instruction": "Hi", "input": "", "chosen": "Hello", "rejected": "No"},
]


@pytest.mark.parametrize("row", PREFERRED)
def test_preferences_are_read_for_the_chosen_side(row: dict[str, Any]) -> None:
    """However the answers are written, what is read is the question and the chosen one."""
    told = said(row, "preference")
    assert told.messages == [U, A]
    assert told.trained == [False, True]


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("alpaca", {"instruction": "a", "output": ""}, "output is blank"),
    ("alpaca", {"instruction": "a", "output": "b", "input": 3}, "input 3 is an integer; allowed: a string"),
    (
        "alpaca",
        {"instruction": "a", "output": "b", "history": [["x"]]},
        'pair 1 of history ["x"] is a list; allowed: a list',
    ),
    ("sharegpt", {"conversations": [GPT]}, "conversations has 1; allowed: two or more"),
    ("sharegpt", {"conversations": [GPT, HUMAN]}, "the last message of conversations is from human; allowed: gpt"),
    (
        "sharegpt",
        {"conversations": [HUMAN, {"from": "bing", "value": "a"}]},
        "message 2 is from 'bing'; allowed: human, gpt",
    ),
    ("sharegpt", {"conversations": [HUMAN, {"from": "gpt"}]}, 'message 2 has no "value"; allowed: '),
    (
        "sharegpt",
        {"conversations": [HUMAN, {"from": "function_call", "value": "add()"}]},
        "value of message 2 is no JSON",
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "system", "value": "a"}, HUMAN, GPT], "system": "b"},
        "a system text stands in",
    ),
    ("sharegpt", {"conversations": [HUMAN, GPT], "tools": "add"}, "tools is no JSON; allowed: a list"),
    ("messages", {"messages": [U, {**A, "weight": 0}]}, "every message of messages by the assistant has the weight 0"),
    ("messages", {"messages": [U, {**A, "weight": 0.5}]}, "weight of message 2 0.5 is a float; allowed: 0"),
    ("messages", {"messages": [{**U, "weight": 1}, A]}, "weight of message 1 is 1 and its role user; allowed: 0"),
    ("messages", {"messages": [U, {**A, "content": None}]}, "content of message 2 is null; allowed: a string"),
    (
        "messages",
        {"messages": [U, {**A, "tool_calls": [{}]}]},
        "call 1 of tool_calls of message 2 {} is an object; allowed: ",
    ),
    (
        "messages",
        {"messages": [{**U, "tool_calls": [CALL]}, A]},
        "message 1 has tool_calls and the role user; allowed: ",
    ),
    ("messages", {"messages": [{**U, "content": [{"type": "image_url"}]}, A]}, "part 1 of message 1 {"),
    ("messages", {"messages": [U, A], "tools": [{}]}, "tool 1 {} is an object; allowed: an object with the name"),
    (
        "prompt_completion",
        {"prompt": "a", "completion": [A]},
        "of prompt and completion one is a list; allowed: two texts",
    ),
    ("prompt_completion", {"prompt": [], "completion": [A]}, "prompt has no message; allowed: one or more"),
    ("prompt_completion", {"prompt": [U], "completion": [U]}, "the last message of completion has the role user"),
    ("preference", {"chosen": "a", "rejected": "b"}, 'chosen "a" is a string; allowed: a text or messages that follow'),
    ("preference", {"prompt": "x", "chosen": "a", "rejected": " "}, "with rejected, response is blank"),
    ("preference", {"prompt": "x", "chosen": "a", "rejected": [A]}, 'chosen "a" is a string, rejected [{"'),
]


@pytest.mark.parametrize(("name", "row", "problem"), BAD)
def test_bad_rows_are_told_with_what_is_allowed(name: str, row: dict[str, Any], problem: str, tmp_path: Path) -> None:
    """One line with file and line, after a good row."""
    path = write_rows(tmp_path / "rows.jsonl", [formats.load(name).EXAMPLE, row])
    with pytest.raises(PruneError) as failure:
        open_rows(path, check=None, format=name)
    told = failure.value.message
    assert told.startswith(f"{path}:2: {problem}")
    assert "; allowed: " in told and "\n" not in told


def test_a_pipeline_has_a_format(tmp_path: Path) -> None:
    """Its rows are read as `format` says, in every stage; an unknown one is told with the file's other mistakes."""
    sample = REPOSITORY / "sample_data"
    text = (sample / "generation.toml").read_text("utf-8")
    for name in ("generation/", "lm"):
        text = text.replace(f'"{name}', f'"{sample / name}' + ("/" if name.endswith("/") else ""))
    write_rows(tmp_path / "train.jsonl", [{**PREFERRED[0], "group": "a", "id": i} for i in range(9)])
    text = "\n".join(
        f'train = "{tmp_path / "train.jsonl"}"' if line.startswith("train ") else line for line in text.splitlines()
    )
    (tmp_path / "all.toml").write_text(f'format = "csv"\n{text}', "utf-8")
    with pytest.raises(PruneError, match="format: csv; allowed: auto, alpaca"):
        read_plan(tmp_path / "all.toml")
    (tmp_path / "all.toml").write_text(text, "utf-8")
    with pytest.raises(PruneError, match=r"train.jsonl:1: the row compares two answers"):
        read_plan(tmp_path / "all.toml")


GOOD: dict[str, Any] = {"prompt": "Hi", "response": "Hello"}
SEVERAL: dict[str, Any] = {**GOOD, "messages": [U, A]}  # bad as it looks, good as prompt and response


def test_all_bad_rows_are_told_as_of_the_first_good_one(tmp_path: Path, prune: Prune) -> None:
    """A bad row decides nothing: neither one of no format, nor one of a format that the others are not of."""
    rows = [{"answer": "b"}, {"text": " "}, GOOD, {**GOOD, "response": ""}, {"text": "a"}, SEVERAL, GOOD]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    ran = prune("select", path, "-o", tmp_path / "out", "--method", "random", "--keep", 1, "--task", "generation")
    problems = ['no "prompt"', "text is blank", "response is blank", "a row of the format text, after", "the row has "]
    assert len(ran.errors) == len(problems), ran.err
    for number, told, problem in zip((1, 2, 4, 5, 6), ran.errors, problems, strict=True):
        assert told.startswith(f"{path}:{number}: {problem}")
    kept = open_rows(path, check=None, format="auto", skip_bad=True)
    assert kept.format == "prompt_response" and kept.ids == [3, 7]
    good = write_rows(tmp_path / "good.jsonl", [GOOD] * 2)
    assert kept.digest == open_rows(good, check=None, ids=[3, 7], format="prompt_response").digest
    assert open_rows(path, check=None, format="prompt_response", skip_bad=True).ids == [3, 6, 7]


@pytest.mark.parametrize("how", [[], ["--format", "prompt_response"]])
def test_rows_behind_a_score_are_read_as_they_were(how: list[str], tmp_path: Path, prune: Prune) -> None:
    """By how they look or as they were said to be: the same bad rows are left out when they are read again."""
    path = write_rows(tmp_path / "rows.jsonl", [GOOD, SEVERAL, {**GOOD, "response": ""}, GOOD])
    common = ["--task", "generation", "--skip-bad", tmp_path / "bad.jsonl"]
    ran = prune("score", path, "-o", tmp_path / "score", "--method", "random", *common, *how)
    assert ran.code == 0, ran.err
    ran = prune("select", tmp_path / "score", "-o", tmp_path / "kept", "--method", "top", "--keep", "1.0")
    assert ran.code == 0, ran.err
    about = json.loads((tmp_path / "kept/manifest.json").read_text())["about"]
    assert (about["format"], about["kept"]) == ("prompt_response", 3 if how else 2)
