"""Which tokens of a conversation are trained on, against TRL's own choice, and by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prune_cli.data.rows import Rows
from prune_cli.data.rows import read_rows as open_rows
from prune_cli.errors import PruneError
from prune_cli.tasks import chat, conversations, generation, turns
from tests import trl_labels
from tests.conftest import write_rows

TRL = json.loads(trl_labels.FILE.read_text("utf-8"))
SAID = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "And?"},
    {"role": "assistant", "content": "Fine."},
]


def rows_of(folder: Path, *rows: dict[str, Any]) -> Rows:
    """The rows, read as what they look like."""
    return open_rows(write_rows(folder / "rows.jsonl", list(rows)), check=None, format="auto")


def trained(rows: Rows, tokenizer: Any, most: int = 10**6, **how: Any) -> list[str]:
    """The runs of tokens of the first row that are trained on, as texts; `|` stands between them."""
    encoded = generation.encode(rows, tokenizer, most, [], **how)
    gold = encoded.gold[: encoded.offsets[1]]
    starts = np.flatnonzero(gold & ~np.concatenate([[False], gold[:-1]]))
    ends = np.flatnonzero(gold & ~np.concatenate([gold[1:], [False]])) + 1
    return [tokenizer.decode(encoded.input_ids[a:b]) for a, b in zip(starts, ends, strict=True)]


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize(("template", "row"), trl_labels.CASES)
def test_what_is_trained_on_is_what_trl_trains_on(template: str, row: str, marked: bool, tmp_path: Path) -> None:
    """Tokens and loss mask are TRL's, from the template with generation marks, and from the same without them."""
    rows = rows_of(tmp_path, trl_labels.ROWS[row])
    encoded = generation.encode(rows, trl_labels.tokenizer(template, marked=marked), 10**6, [])
    theirs = TRL[f"{template} {row}"]
    assert encoded.input_ids.tolist() == theirs["ids"]
    assert np.flatnonzero(encoded.gold).tolist() == theirs["trained"]


@pytest.mark.parametrize("marked", [True, False])
def test_turns_may_be_left_out_of_the_loss(marked: bool, tmp_path: Path) -> None:
    """All turns, the last alone, or those whose weight is not 0."""
    tokenizer = trl_labels.tokenizer("chatml", marked=marked)
    rows = rows_of(tmp_path, {"messages": SAID})
    assert trained(rows, tokenizer) == ["Hello!<|end|>\n", "Fine.<|end|>\n"]
    assert trained(rows, tokenizer, loss_on="last") == ["Fine.<|end|>\n"]
    first, last = ([{**turn, "weight": int(i != j)} if i == j else turn for i, turn in enumerate(SAID)] for j in (1, 3))
    assert trained(rows_of(tmp_path, {"messages": first}), tokenizer) == ["Fine.<|end|>\n"]
    assert trained(rows_of(tmp_path, {"messages": last}), tokenizer) == ["Hello!<|end|>\n"]
    with pytest.raises(
        PruneError, match=r"rows.jsonl:1: the last message has the weight 0; allowed with loss_on last: 1"
    ):
        trained(rows_of(tmp_path, {"messages": last}), tokenizer, loss_on="last")


def test_of_a_completion_alone_is_trained_on(tmp_path: Path) -> None:
    """Turns in the prompt are not; texts are one text, without the template, from where the completion begins."""
    tokenizer = trl_labels.tokenizer("chatml", marked=False)
    assert trained(rows_of(tmp_path, {"prompt": SAID[:3], "completion": SAID[3:]}), tokenizer) == ["Fine.<|end|>\n"]
    rows = rows_of(tmp_path, {"prompt": "The sky is", "completion": " blue"})
    assert trained(rows, tokenizer) == [" blue<eos>"]
    assert conversations.prompts(rows, [0], tokenizer) == [tokenizer("The sky is")["input_ids"]]
    # tokens that merge over the border are the completion's, as in TRL
    assert trained(rows_of(tmp_path, {"prompt": "Al", "completion": "l"}), tokenizer) == ["ll<eos>"]


def test_a_text_is_trained_on_but_for_its_first_token(tmp_path: Path) -> None:
    """Nothing comes before the first token; a long text loses its end, and that is counted."""
    tokenizer = trl_labels.tokenizer("chatml", marked=False)
    rows = rows_of(tmp_path, {"text": "The sky"})
    assert trained(rows, tokenizer) == ["he sky<eos>"]
    assert trained(rows, tokenizer, 4) == ["he "]
    assert generation.encode(rows, tokenizer, 4, []).lost.tolist() == [4]


def test_a_conversation_is_cut_from_the_left(tmp_path: Path) -> None:
    """First turns go first, the token that begins all texts stays, the last turn is whole, and what is lost is told."""
    tokenizer = trl_labels.tokenizer("headers", marked=False)
    rows = rows_of(tmp_path, {"messages": SAID})
    whole = generation.encode(rows, tokenizer, 10**6, [])
    n = int(whole.lengths[0])
    for room in range(8, n):
        some = generation.encode(rows, tokenizer, room, [])
        assert some.input_ids.tolist() == [whole.input_ids[0], *whole.input_ids[n - room + 1 :]]
        assert some.gold.tolist() == [False, *whole.gold[n - room + 1 :]]
        assert some.lost.tolist() == [n - room]
        assert trained(rows, tokenizer, room)[-1] == "Fine.<|end|>"
    with pytest.raises(PruneError, match="response of 6 tokens; allowed: up to 5"):
        generation.encode(rows, tokenizer, 6, [])
    silent = rows_of(tmp_path, {"messages": [*SAID[:3], {**SAID[3], "weight": 0}]})
    with pytest.raises(PruneError, match=r"rows.jsonl:1: cut to 9 tokens, it has none left that is trained on"):
        generation.encode(silent, tokenizer, 9, [])


def test_a_turn_is_found_where_earlier_messages_are_written_otherwise(tmp_path: Path) -> None:
    """The system text stands before the last question alone, wherever that is, as in a template of Mistral's."""
    tokenizer = trl_labels.tokenizer("chatml", marked=False)
    tokenizer.chat_template = (
        "{{ bos_token }}{% set first = messages[0] if messages[0].role == 'system' %}"
        "{% set last = namespace(user=0) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set last.user = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}{% if m.role == 'user' %}<U>"
        "{% if first and loop.index0 == last.user %}{{ first.content }} {% endif %}{{ m.content }}<A>"
        "{% elif m.role == 'assistant' %}{{ m.content }}<eos>{% endif %}{% endfor %}"
    )
    rows = rows_of(tmp_path, {"messages": [{"role": "system", "content": "Be kind."}, *SAID, *SAID]})
    assert trained(rows, tokenizer) == ["Hello!<eos>", "Fine.<eos>"] * 2


def test_a_turn_begins_where_the_whole_departs_from_the_cue() -> None:
    """Also behind a message without words, by which it could not be found."""
    whole = "<U>Hi<T><A>Hello<eos>"
    found = turns.located(whole, ["<U>Hi<T><A><think>"], [whole], "<U>Hi<T>", [""], [lambda text: "Hello" in text])
    assert found == [(whole.index("Hello"), len(whole))]


def test_what_a_template_leaves_out_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A message or a call that is not written is an error; a developer's is the system's; lost thinking is counted."""
    tokenizer = trl_labels.tokenizer("chatml", marked=False)
    call = {"role": "assistant", "content": "Yes.", "tool_calls": trl_labels.CALL}
    with pytest.raises(PruneError, match=r"rows.jsonl:1: the chat template leaves out message 2, of the assistant"):
        trained(rows_of(tmp_path, {"messages": [SAID[0], call]}), tokenizer)
    rows = rows_of(tmp_path, {"messages": [{"role": "developer", "content": "Be kind."}, *SAID]})
    assert "<|start|>system\nBe kind.<|end|>" in tokenizer.decode(
        generation.encode(rows, tokenizer, 10**6, []).input_ids
    )
    capsys.readouterr()
    rows = rows_of(tmp_path, {"messages": [SAID[0], {"role": "assistant", "content": "<think>Hm.</think>Hello"}]})
    generation.encode(rows, trl_labels.tokenizer("begun", marked=False), 10**6, [])
    assert "rows.jsonl: of 1 of 1 rows the chat template leaves out thinking to train on" in capsys.readouterr().err
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    adding = {"role": "assistant", "content": "I add.", "tool_calls": [{"function": {"name": "add", "arguments": {}}}]}
    some: list[dict[str, Any]] = [
        {"messages": SAID, "tools": tools},
        {"messages": [SAID[0], adding]},
        {"messages": SAID},
    ]
    for row in some:
        generation.encode(rows_of(tmp_path, row), tokenizer, 10**6, [])  # the call's name stands in what is said
        said = capsys.readouterr().err
        told = "rows.jsonl: of 1 of 1 rows the chat template leaves out tools, or calls of them" in said
        assert "of 0 of" not in said
        assert told == (len(row) > 1 or adding in row["messages"])


def test_the_prompt_of_a_conversation_is_all_before_its_last_turn(tmp_path: Path) -> None:
    """Up to where the template lets the assistant begin, tools included."""
    tokenizer = trl_labels.tokenizer("thinking", marked=True)
    (ids,) = conversations.prompts(rows_of(tmp_path, trl_labels.ROWS["tools"]), [0], tokenizer)
    text = tokenizer.decode(ids)
    assert text.endswith("It is 2.<|end|>\n<|start|>user\nThanks<|end|>\n<|start|>assistant\n")
    assert '<call>add {"a": 2}</call>' in text and "Adds." in text
    assert chat.is_marked(tokenizer, conversations.told(rows_of(tmp_path, {"messages": SAID}), 0))
