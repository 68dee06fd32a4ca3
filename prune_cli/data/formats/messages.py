"""{"messages": [{"role", "content"}, ...], "tools"?}: a conversation as OpenAI's API has it; the assistant speaks last.

Roles are system, developer, user, assistant and tool. An assistant's message may have `tool_calls`, with a `content` of
null if need be. A `content` may be a list of parts that are texts; LLaMA-Factory's parts `reasoning` and `tool_call`
are read too. A `weight` (or `loss_weight`) of 0 says that a message by the assistant is not trained on. `tools` are the
functions that the assistant may call, a list or its JSON.
"""

from __future__ import annotations

from prune_cli.data.formats._conversation import Conversation, messages_problem, of_messages, tools_problem
from prune_cli.data.readers import Row

KEYS = ("messages",)
RESPONSE = "messages"
BESIDE: tuple[str, ...] = ()
EXAMPLE: Row = {
    "messages": [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
    ]
}


def matches(row: Row) -> bool:
    """Whether a row looks like one of this format."""
    return "messages" in row


def check(row: Row) -> str | None:
    """The problem of a row that has all KEYS in words, with what is allowed; None if there is none."""
    return messages_problem(row["messages"]) or tools_problem(row.get("tools"))


def conversation(row: Row) -> Conversation:
    """The messages; what templates do not read is left out of them."""
    return of_messages(row["messages"], row.get("tools"))
