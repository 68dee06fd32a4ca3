"""{"text"}: a text and nothing else; a language model is trained on all of it.

It does not go through a chat template. A row with a `label` is one to classify: it is read as a text alone only if
`--format text` says so.
"""

from __future__ import annotations

from prune_cli.data.formats._conversation import Conversation
from prune_cli.data.problems import text_problem
from prune_cli.data.readers import Row

KEYS = ("text",)
BESIDE: tuple[str, ...] = ()
EXAMPLE: Row = {"text": "Paris is the capital of France."}


def matches(row: Row) -> bool:
    """Whether a row looks like one of this format."""
    return "text" in row


def unasked(row: Row) -> str | None:
    """Why a row is not read as a text unless it is asked for; None where it is."""
    return "the row has a label beside its text, as rows to classify have" if "label" in row else None


def check(row: Row) -> str | None:
    """The problem of a row that has all KEYS in words, with what is allowed; None if there is none."""
    return text_problem("text", row["text"])


def conversation(row: Row) -> Conversation:
    """The text, with no prompt before it."""
    return Conversation(plain=("", row["text"]))
