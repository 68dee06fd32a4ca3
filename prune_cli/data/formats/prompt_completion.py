"""{"prompt", "completion"}: a text and how it goes on, or a list of messages and those that follow, as TRL has them.

Texts do not go through a chat template: the completion goes on where the prompt ends, and the two are tokenised as one.
Of messages only those of the completion are trained on. Source: the dataset formats that TRL documents.
"""

from __future__ import annotations

from typing import Any

from prune_cli.data.formats._conversation import Conversation, messages_problem, of_messages, tools_problem
from prune_cli.data.problems import text_problem
from prune_cli.data.readers import Row

KEYS = ("prompt", "completion")
RESPONSE = "completion"
BESIDE: tuple[str, ...] = ()
EXAMPLE: Row = {"prompt": "The capital of France is", "completion": " Paris."}


def matches(row: Row) -> bool:
    """Whether a row looks like one of this format."""
    return "completion" in row


def check(row: Row) -> str | None:
    """The problem of a row that has all KEYS in words, with what is allowed; None if there is none."""
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        return sides_problem(prompt, completion, "completion") or tools_problem(row.get("tools"))
    if isinstance(prompt, list) or isinstance(completion, list):
        return "of prompt and completion one is a list; allowed: two texts, or two lists of messages"
    return text_problem("prompt", prompt) or text_problem("completion", completion)


def sides_problem(prompt: list[Any], answer: list[Any], key: str) -> str | None:
    """The problem of two lists of messages of which the second, called `key`, follows the first."""
    if not prompt:
        return "prompt has no message; allowed: one or more"
    if problem := messages_problem(answer, key, least=1):
        return problem
    return messages_problem([*prompt, *answer[-1:]], "prompt")


def conversation(row: Row) -> Conversation:
    """The messages of both, or the two texts alone."""
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list):
        return of_messages([*prompt, *completion], row.get("tools"), prompt=len(prompt))
    return Conversation(plain=(prompt, completion))
