"""{"prompt", "response"}: two texts, what a user says and what the assistant answers."""

from __future__ import annotations

from prune_cli.data.formats._conversation import Conversation, of_messages
from prune_cli.data.problems import text_problem
from prune_cli.data.readers import Row

KEYS = ("prompt", "response")
RESPONSE = "response"
BESIDE: tuple[str, ...] = ()
EXAMPLE: Row = {"prompt": "What is the capital of France?", "response": "Paris."}


def matches(row: Row) -> bool:
    """Whether a row looks like one of this format: "prompt" alone does not tell, as other formats have it too."""
    return "response" in row


def check(row: Row) -> str | None:
    """The problem of a row that has all KEYS in words, with what is allowed; None if there is none."""
    return text_problem("prompt", row["prompt"]) or text_problem("response", row["response"])


def conversation(row: Row) -> Conversation:
    """Two messages: the prompt by the user, the response by the assistant."""
    said = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]
    return of_messages(said, plain=(row["prompt"], row["response"]))
