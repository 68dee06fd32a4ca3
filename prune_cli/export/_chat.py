"""Rows as conversations of other formats, for trainers that do not read the one they are in.

Messages are those that prune itself trains on: an Alpaca input stands on a line below its instruction, and the
arguments of tool calls are objects.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from prune_cli.data import formats
from prune_cli.data.formats._conversation import Conversation, Message
from prune_cli.data.lines import Row
from prune_cli.errors import PruneError
from prune_cli.export._kept import Kept

SHAREGPT = {"system": "system", "developer": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


def weighted(said: Conversation) -> list[Message]:
    """The messages; those by the assistant that are not trained on have the weight 0, as OpenAI has it."""
    untrained = [
        message["role"] == "assistant" and not trained
        for message, trained in zip(said.messages, said.trained, strict=True)
    ]
    return [{**message, "weight": 0} if no else message for message, no in zip(said.messages, untrained, strict=True)]


def sharegpt(said: Conversation) -> Row:
    """The conversation as LLaMA-Factory's ShareGPT: {"conversations", "tools"}, tools and calls as JSON text.

    Thinking stands in <think> before what is said, and tool results that follow one another are one turn, as its
    documentation and its code have them. What is said beside a call has no place.
    """
    turns: list[dict[str, str]] = []
    for message in said.messages:
        said_now = turn(message)
        if said_now["from"] == "observation" and turns and turns[-1]["from"] == "observation":
            turns[-1]["value"] += "\n" + said_now["value"]
        else:
            turns.append(said_now)
    tools = [tool["function"] for tool in said.tools or ()]
    return {"conversations": turns, **({"tools": _json(tools)} if tools else {})}


def untrained(kept: Kept, *, prompts: bool) -> list[int]:
    """The rows with a message by the assistant that is not to be trained on; prompts: those of prompts count too."""
    rows = []
    for i, (row, said) in enumerate(zip(kept.read(), kept.conversations(), strict=True)):
        start = len(row["prompt"]) if kept.format == "prompt_completion" and said.messages and not prompts else 0
        told = zip(said.messages[start:], said.trained[start:], strict=True)
        if any(message["role"] == "assistant" and not trained for message, trained in told):
            rows.append(i)
    return rows


def says_beside_a_call(said: Conversation) -> bool:
    """Whether a message says something and calls a tool as well."""
    return any(message.get("tool_calls") and (message["content"] or "").strip() for message in said.messages)


def takes_turns(roles: Sequence[str]) -> bool:
    """Whether user (or tool) and assistant speak in turn, after a system text or not, as LLaMA-Factory demands."""
    asked = {"user", "human", "tool", "observation"}
    turns = roles[1:] if roles[:1] == ["system"] else roles
    return all((role in asked) == (i % 2 == 0) and role != "system" for i, role in enumerate(turns))


def sides(row: Row, where: str) -> tuple[list[Message], Message, Message]:
    """What a preference row says: the messages before the answers, the chosen one, the rejected one.

    Raises PruneError where the two sides differ before their last message.
    """
    chosen, rejected = (
        formats.conversation({**row, "chosen": row[key]}, "preference").messages for key in ("chosen", "rejected")
    )
    if chosen[:-1] != rejected[:-1]:
        told = "chosen and rejected differ before their last message"
        raise PruneError(f"{where}: {told}; allowed: two answers to the same messages")
    return list(chosen[:-1]), chosen[-1], rejected[-1]


def turn(message: Message) -> dict[str, str]:
    """A message as a turn of ShareGPT."""
    if calls := message.get("tool_calls"):
        functions = [call["function"] for call in calls]
        return {"from": "function_call", "value": _json(functions if functions[1:] else functions[0])}
    thought, content = message.get("reasoning_content"), message["content"] or ""
    return {"from": SHAREGPT[message["role"]], "value": f"<think>{thought}</think>{content}" if thought else content}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
