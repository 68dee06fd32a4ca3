"""{"messages": [{"role", "content"}, ...]}: a conversation of system, user and assistant; the assistant speaks last."""

from __future__ import annotations

from typing import Any

from prune_cli.data.problems import described, text_problem
from prune_cli.data.readers import Row

KEYS = ("messages",)
PLAIN = False
EXAMPLE: Row = {
    "messages": [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
    ]
}
ROLES = ("system", "user", "assistant")


def matches(row: Row) -> bool:
    """Whether a row looks like one of this format."""
    return "messages" in row


def check(row: Row) -> str | None:
    """The problem of a row that has all KEYS in words, with what is allowed; None if there is none."""
    messages = row["messages"]
    if not isinstance(messages, list):
        return f"{described('messages', messages)}; allowed: a list of objects with role and content"
    for j, message in enumerate(messages, 1):
        if problem := _message_problem(f"message {j}", message):
            return problem
    if len(messages) < 2:
        return f"messages has {len(messages)}; allowed: two or more, the last by the assistant"
    last = messages[-1]["role"]
    if last != "assistant":
        return f"the last message has the role {last}; allowed: assistant, whose message is the response"
    return None


def _message_problem(name: str, message: Any) -> str | None:
    if not isinstance(message, dict):
        return f"{described(name, message)}; allowed: an object with role and content"
    for key in ("role", "content"):
        if key not in message:
            return f'{name} has no "{key}"; allowed: an object with role and content'
    if message["role"] not in ROLES:
        return f"{name} has the role {message['role']!r}; allowed: {', '.join(ROLES)}"
    return text_problem(f"content of {name}", message["content"])


def conversation(row: Row) -> list[dict[str, Any]]:
    """The messages with their role and content; other keys of a message are left out."""
    return [{"role": message["role"], "content": message["content"]} for message in row["messages"]]
