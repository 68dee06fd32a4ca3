"""{"chosen", "rejected", ...}: two answers of which one is better; the better one alone is read, and only if asked to.

Both are messages: a text or a list of messages that follow a `prompt`; whole conversations; or one message that follows
`conversations` (ShareGPT). A text may follow an Alpaca `instruction` too. What is read is the row with the chosen
answer at its end, as the format of the rest has it; a text prompt is what a user says. `--format preference` asks for
it: a row that compares two answers is not made to be trained on one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_cli.data.formats import alpaca, prompt_completion, prompt_response, sharegpt
from prune_cli.data.formats import messages as openai
from prune_cli.data.formats._conversation import Conversation
from prune_cli.data.problems import described
from prune_cli.data.readers import Row

if TYPE_CHECKING:
    from prune_cli.data.formats import Format

KEYS = ("chosen", "rejected")
BESIDE: tuple[str, ...] = ("prompt", "messages", "conversations", "instruction", "output", "text")
EXAMPLE: Row = {"prompt": "What is the capital of France?", "chosen": "Paris.", "rejected": "Rome."}
_ALLOWED = (
    "a text or messages that follow a prompt, whole conversations, a message that follows conversations, "
    "or a text that follows an instruction"
)


def matches(row: Row) -> bool:
    """Whether a row looks like one of this format."""
    return "chosen" in row and "rejected" in row


def unasked(row: Row) -> str | None:
    """Why a row is not read unless it is asked for."""
    return "the row compares two answers, chosen and rejected, of which only the chosen one would be trained on"


def check(row: Row) -> str | None:
    """The problem of a row that has all KEYS in words, with what is allowed; None if there is none."""
    chosen, rejected = row["chosen"], row["rejected"]
    if type(chosen) is not type(rejected) or not isinstance(chosen, str | list | dict):
        return f"{described('chosen', chosen)}, {described('rejected', rejected)}; allowed: both alike, {_ALLOWED}"
    for key in KEYS:
        read = _one_side(row, key)
        if read is None:
            return f"{described(key, row[key])}; allowed: {_ALLOWED}"
        kind, side = read
        if problem := kind.check(side):
            return f"with {key}, {problem}"
    return None


def conversation(row: Row) -> Conversation:
    """The conversation that ends with the chosen answer."""
    read = _one_side(row, "chosen")
    assert read is not None  # the row is good
    kind, side = read
    return kind.conversation(side)


def _one_side(row: Row, key: str) -> tuple[Format, Row] | None:
    """The format of a row with one of its answers, and that row; None where it is of none."""
    answer, prompt = row[key], row.get("prompt")
    tools = {"tools": row.get("tools")}
    if isinstance(answer, dict):
        turns = row.get("conversations")
        return (sharegpt, {**row, "conversations": [*turns, answer]}) if isinstance(turns, list) else None
    if isinstance(answer, list):
        if isinstance(prompt, list):
            return prompt_completion, {"prompt": prompt, "completion": answer, **tools}
        return openai, {"messages": answer, **tools}
    if isinstance(prompt, str):
        return prompt_response, {"prompt": prompt, "response": answer}
    return (alpaca, {**row, "output": answer}) if "instruction" in row else None
