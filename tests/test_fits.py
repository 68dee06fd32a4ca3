"""`prune select --fits`: rows that a model has no room for are named, told, and never kept."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from prune_cli.artifacts.manifest import open_artifact
from prune_cli.data.rows import read_rows as open_rows
from prune_cli.errors import PruneError
from prune_cli.models.find import find
from prune_cli.models.load import load_tokenizer
from prune_cli.tasks import generation
from tests.conftest import REPOSITORY, Prune, read_rows, write_rows

LM = REPOSITORY / "sample_data/lm"
LIMIT = 24
WORDS = [1, 30, 3, 12, 40, 16, 18, 20, 22, 2]  # of each row's response


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Ten rows, some of whose responses are longer than LIMIT tokens."""
    said = [{"prompt": f"How is {i}?", "response": " ".join(["good"] * n)} for i, n in enumerate(WORDS)]
    return write_rows(tmp_path / "train.jsonl", said)


def command(rows: Path, out: str, *more: object) -> list[object]:
    """Keep all rows that may be kept, as they came."""
    keep = ["--method", "random", "--keep", "100%", "--order", "data", "--task", "generation"]
    return ["select", rows, "-o", rows.parent / out, *keep, "--fits", LM, *more]


def refused(rows: Path, limit: int) -> dict[int, int]:
    """The rows that training refuses, each tried alone, and the tokens of their responses by the tokenizer itself."""
    tokenizer, found = load_tokenizer(find(str(LM))), {}
    for i, row in enumerate(read_rows(rows)):
        alone = open_rows(write_rows(rows.parent / "one.jsonl", [row]), check=generation.check, format="auto")
        try:
            generation.encode(alone, tokenizer, limit, [])
        except PruneError:
            own = AutoTokenizer.from_pretrained(LM)
            said = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]
            whole = own.apply_chat_template(said, tokenize=True, return_dict=False)
            before = own.apply_chat_template(said[:1], tokenize=True, return_dict=False, add_generation_prompt=True)
            found[i] = len(whole) - len(before)
    return found


def test_rows_without_room_are_named_told_and_not_kept(rows: Path, prune: Prune) -> None:
    """Those that training refuses, and no others; what is kept is trained on as it is."""
    done = prune(*command(rows, "kept", "--max-length", LIMIT))
    assert done.code == 0, done.err
    out, found = rows.parent / "kept", refused(rows, LIMIT)
    assert 2 < len(found) < 7 and len(set(found.values())) > 2
    named = read_rows(out / "too_long.jsonl")
    assert named == [{"id": i + 1, "where": f"{rows}:{i + 1}", "tokens": n} for i, n in found.items()]
    kept = [line for i, line in enumerate(rows.read_text().splitlines()) if i not in found]
    assert (out / "select.jsonl").read_text().splitlines() == kept
    assert [i for i, line in enumerate(read_rows(out / "why.jsonl")) if line["left_out"] == "fits"] == list(found)
    told = f"{len(found)} of 10 rows are too long for {LM}, {LIMIT} tokens, and may not be kept"
    assert f"warning: {out}: {told}" in done.err and open_artifact(out).about["warnings"] == [told]
    trained = ["finetune", out, "-o", rows.parent / "model", "--model", LM, "--steps", 1, "--max-length", LIMIT]
    assert prune(*trained, "--device", "cpu").code == 0
    made = open_artifact(out)
    assert made.inputs["model"] == find(str(LM)).digest and made.origin("model").samefile(LM)
    assert "task generation" in made.manifest["recipe"]["code"]
    assert 'options.keep "100%" -> "10"' in prune(*command(rows, "kept", "--max-length", LIMIT, "--keep", 10)).err
    longer = prune(*command(rows, "kept", "--max-length", LIMIT + 1))
    assert longer.code == 1 and "max_length" in longer.err
    assert "up to date" in prune(*command(rows, "kept", "--max-length", LIMIT)).err


def test_a_trained_model_says_how_long(rows: Path, prune: Prune) -> None:
    """Without --max-length it is as in training, else what the tokenizer takes; said where none is left out."""
    write_rows(rows.parent / "short.jsonl", read_rows(rows)[:1])
    trained = ["finetune", rows.parent / "short.jsonl", "-o", rows.parent / "model", "--model", LM, "--steps", 1]
    assert prune(*trained, "--task", "generation", "--max-length", LIMIT, "--device", "cpu").code == 0
    assert prune(*command(rows, "kept", "--fits", rows.parent / "model")).code == 0
    assert open_artifact(rows.parent / "kept").about["kept"] == 10 - len(refused(rows, LIMIT))
    done = prune(*command(rows, "all"))
    assert f"fits: none of 10 rows is too long for {LM}, 128 tokens" in done.err
    assert (rows.parent / "all/too_long.jsonl").read_text() == ""


def test_texts_without_a_prompt_are_cut(prune: Prune, tmp_path: Path) -> None:
    """So none of them is too long."""
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": "good " * n} for n in WORDS])
    done = prune(*command(texts, "kept", "--max-length", LIMIT))
    assert done.code == 0 and "fits: none of 10 rows" in done.err


def test_rows_that_training_takes_are_taken(prune: Prune, tmp_path: Path) -> None:
    """A last turn of weight 0 is none to be trained on alone, but with the turns before it."""
    said = [{"role": "user", "content": "How is it?"}, {"role": "assistant", "content": "good"}] * 2
    weighed = [*said[:3], {**said[3], "weight": 0}]
    rows = write_rows(tmp_path / "chats.jsonl", [{"messages": weighed}, {"messages": said}])
    trained = ["finetune", rows, "-o", tmp_path / "model", "--model", LM, "--steps", 1, "--task", "generation"]
    assert prune(*trained, "--max-length", 64, "--device", "cpu").code == 0
    done = prune(*command(rows, "kept", "--max-length", 64))
    assert done.code == 0 and open_artifact(tmp_path / "kept").about["kept"] == 2, done.err
    last = prune(*command(rows, "kept", "--max-length", 64, "--loss-on", "last"))
    assert last.code == 1 and "kept: holds another artifact: options.loss_on" in last.err
    alone = prune(*command(rows, "last", "--max-length", 64, "--loss-on", "last"))
    assert alone.code == 1 and "chats.jsonl:1: " in alone.err and "weight 0" in alone.err


@pytest.mark.parametrize("limit", [8, 16, 20, 24, 30, 40, 60])
def test_what_is_kept_is_trained_on_whatever_its_turns(limit: int, prune: Prune, tmp_path: Path) -> None:
    """Of chats with turns of any length and weight: those that nothing is left of to train on are too long as well."""
    draw, said = random.Random(limit), []
    for _ in range(30):
        turns: list[dict[str, Any]] = []
        for _ in range(draw.randrange(1, 4)):
            asked, answer = (" ".join(["good"] * draw.randrange(1, 25)) for _ in range(2))
            turns.append({"role": "user", "content": asked})
            turns.append({"role": "assistant", "content": answer, "weight": draw.randrange(2)})
        turns[1]["weight"] = 1
        said.append({"messages": turns})
    rows = write_rows(tmp_path / "chats.jsonl", said)
    tokenizer, refused_rows = load_tokenizer(find(str(LM))), []
    for i, row in enumerate(said):
        alone = open_rows(write_rows(tmp_path / "one.jsonl", [row]), check=generation.check, format="auto")
        try:
            generation.encode(alone, tokenizer, limit, [])
        except PruneError:
            refused_rows.append(i + 1)
    if len(refused_rows) == len(said):
        assert "no row may be kept" in prune(*command(rows, "kept", "--max-length", limit)).err
        return
    assert prune(*command(rows, "kept", "--max-length", limit)).code == 0
    assert [line["id"] for line in read_rows(tmp_path / "kept/too_long.jsonl")] == refused_rows


def test_a_template_in_place_of_the_model_s_decides(rows: Path, prune: Prune, tmp_path: Path) -> None:
    """One that writes more after a response leaves room for fewer rows, and makes another artifact."""
    template = tmp_path / "long.jinja"
    template.write_text(
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}"
        "{% if message['role'] == 'assistant' %} the end the end the end the end{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert prune(*command(rows, "kept", "--max-length", LIMIT)).code == 0
    other = ["--max-length", LIMIT, "--chat-template", template]
    assert "chat template" in prune(*command(rows, "kept", *other)).err
    assert prune(*command(rows, "kept", *other, "--replace")).code == 0
    found = {line["id"] - 1 for line in read_rows(tmp_path / "kept/too_long.jsonl")}
    assert found > set(refused(rows, LIMIT))


def test_with_other_options(rows: Path, prune: Prune, tmp_path: Path) -> None:
    """A share is one of the rows that may be kept; others say by which option they may not; an export's card tells."""
    write_rows(tmp_path / "test.jsonl", read_rows(rows)[1:3])
    done = prune(
        *command(rows, "kept", "--max-length", LIMIT, "--keep", "50%", "--decontaminate", tmp_path / "test.jsonl")
    )
    assert done.code == 0, done.err
    why, found = read_rows(tmp_path / "kept/why.jsonl"), refused(rows, LIMIT)
    left = ["fits" if i in found else "decontaminate" if i == 2 else None for i in range(10)]
    assert [line["left_out"] for line in why] == left
    assert 1 in found and sum(line["kept"] for line in why) == round(left.count(None) / 2)
    assert prune("export", tmp_path / "kept", "-o", tmp_path / "out", "--for", "trl").code == 0
    assert f"{LM}, {LIMIT} tokens" in (tmp_path / "out/README.md").read_text()


def test_what_has_no_say_is_refused(rows: Path, prune: Prune, tiny_model: Path, tmp_path: Path) -> None:
    """A length or a template without a model; a task whose rows are all cut; a limit that leaves no row."""
    plain = command(rows, "kept")[:-2]
    assert "max_length: 9; allowed only with fits" in prune(*plain, "--max-length", 9).err
    assert "loss_on: last; allowed only with fits" in prune(*plain, "--loss-on", "last").err
    assert "chat_template: a; allowed only with fits" in prune(*plain, "--chat-template", "a").err
    labelled = write_rows(tmp_path / "labelled.jsonl", [{"text": "good", "label": 1}, {"text": "bad", "label": 0}])
    keep = ["select", labelled, "-o", tmp_path / "out", "--method", "random", "--keep", 1]
    told = prune(*keep, "--fits", tiny_model)
    assert told.code == 1 and "it has no say with the task classification, only with --task generation" in told.err
    none = prune(*command(rows, "none", "--max-length", 2))
    assert none.code == 1 and "no row may be kept; left out by fits 10; allowed" in none.err
    assert not (tmp_path / "none").exists()
