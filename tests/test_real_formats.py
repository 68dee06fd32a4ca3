"""Real files of each format, where they are at hand: what is trained on is what the assistant says, in every row."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from prune_cli.data.rows import read_rows as open_rows
from prune_cli.errors import PruneError
from prune_cli.tasks import conversations
from tests import trl_labels

DATA = Path(os.environ.get("PRUNE_DATA", "")) / "formats"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (DATA / "text.jsonl").is_file(), reason="PRUNE_DATA names no folder with formats/text.jsonl"
    ),
]


@pytest.mark.parametrize(
    ("file", "name", "template"),
    [
        ("alpaca_en_demo.json", "alpaca", "chatml"),
        ("v1_sft_demo.jsonl", "messages", "chatml"),
        ("sharegpt_toolcall.json", "sharegpt", "thinking"),
        ("tool_use.jsonl", "messages", "thinking"),
        ("preference_sharegpt.json", "preference", "chatml"),
    ],
)
@pytest.mark.parametrize("marked", [True, False])
def test_the_assistant_is_trained_on_and_no_one_else(file: str, name: str, template: str, marked: bool) -> None:
    """The runs of tokens that are trained on are the assistant's messages in order, each with the end of its turn."""
    rows = open_rows(DATA / file, check=None, format="auto" if name != "preference" else name)
    assert rows.format == name
    tokenizer = trl_labels.tokenizer(template, marked=marked)
    for start in range(0, len(rows), 100):
        some = range(start, min(start + 100, len(rows)))
        for i, row in zip(some, conversations.tokens(rows, some, tokenizer, loss_on="all"), strict=True):
            edges = np.flatnonzero(np.diff(row.trained, prepend=False, append=False)).reshape(-1, 2)
            runs = [tokenizer.decode(row.ids[a:b]) for a, b in edges]
            said = [message for message in conversations.told(rows, i).messages if message["role"] == "assistant"]
            assert len(runs) == len(said), rows.where(i)
            for run, message in zip(runs, said, strict=True):
                assert run.endswith("<|end|>\n")
                assert (message["content"] or "").strip() in run
                assert all(call["function"]["name"] in run for call in message.get("tool_calls", ()))
                if template == "chatml":
                    assert run == f"{message['content']}<|end|>\n"


def test_preferences_need_consent_and_texts_have_no_prompt() -> None:
    """The chosen side is read only if asked for; a text is trained on but for its first token."""
    with pytest.raises(PruneError, match=r"row 1: the row compares two answers.*--format preference"):
        open_rows(DATA / "preference_sharegpt.json", check=None, format="auto")
    rows = open_rows(DATA / "text.jsonl", check=None, format="auto")
    tokenizer = trl_labels.tokenizer("chatml", marked=False)
    for i, row in enumerate(conversations.tokens(rows, range(20), tokenizer, loss_on="all")):
        assert tokenizer.decode(row.ids) == f"{rows[i]['text']}<eos>"
        assert row.trained.tolist() == [False] + [True] * (len(row.ids) - 1)
