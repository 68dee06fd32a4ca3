"""{"conversations": [{"from", "value"}, ...], "system"?, "tools"?}: ShareGPT's rows, as LLaMA-Factory documents them.

`human` and `gpt` speak, `system` first if at all. A `function_call` is the assistant's, the JSON of a function's name
and arguments or of a list of them; an `observation` is what the tool answers. `tools` is the JSON of a list of
functions. The assistant speaks last.
"""

from __future__ import annotations

import json
from typing import Any

from prune_cli.data.formats._conversation import Conversation, Message, calls_problem, of_messages, tools_problem
from prune_cli.data.problems import described, text_problem
from prune_cli.data.readers import Row

KEYS = ("conversations",)
RESPONSE = "conversations"
BESIDE: tuple[str, ...] = ()
EXAMPLE: Row = {
    "conversations": [
        {"from": "human", "value": "What is the capital of France?"},
        {"from": "gpt", "value": "Paris."},
    ]
}
ROLES = {"human": "user", "gpt": "assistant", "system": "system", "function_call": "assistant", "observation": "tool"}
_ANSWERS = ("gpt", "function_call")


def matches(row: Row) -> bool:
    """Whether a row looks like one of this format."""
    return "conversations" in row


def check(row: Row) -> str | None:
    """The problem of a row that has all KEYS in words, with what is allowed; None if there is none."""
    turns = row["conversations"]
    if not isinstance(turns, list):
        return f"{described('conversations', turns)}; allowed: a list of objects with from and value"
    if problem := next(filter(None, (turn_problem(f"message {j}", turn) for j, turn in enumerate(turns, 1))), None):
        return problem
    if len(turns) < 2:
        return f"conversations has {len(turns)}; allowed: two or more, the last by gpt or function_call"
    if turns[-1]["from"] not in _ANSWERS:
        return f"the last message of conversations is from {turns[-1]['from']}; allowed: gpt, function_call"
    return others_problem(row)


def turn_problem(name: str, turn: Any) -> str | None:
    """The problem of one message."""
    if not isinstance(turn, dict):
        return f"{described(name, turn)}; allowed: an object with from and value"
    for key in ("from", "value"):
        if key not in turn:
            return f'{name} has no "{key}"; allowed: an object with from and value'
    if turn["from"] not in ROLES:
        return f"{name} is from {turn['from']!r}; allowed: {', '.join(ROLES)}"
    if turn["from"] in ("system", "observation") and isinstance(turn["value"], str):
        return None
    if problem := text_problem(f"value of {name}", turn["value"]):
        return problem
    if turn["from"] == "function_call":
        try:
            return calls_problem(f"value of {name}", _calls(turn["value"]))
        except ValueError:
            return f"value of {name} is no JSON; allowed: the JSON of a function's name and its arguments"
    return None


def others_problem(row: Row) -> str | None:
    """The problem of `system` and `tools`."""
    system = row.get("system")
    if system is not None and not isinstance(system, str):
        return f"{described('system', system)}; allowed: a string"
    if system and any(turn["from"] == "system" for turn in row["conversations"]):
        return "a system text stands in system and in conversations; allowed: one of them"
    return tools_problem(row.get("tools"))


def conversation(row: Row) -> Conversation:
    """The messages under the roles that templates know."""
    said = [_message(turn) for turn in row["conversations"]]
    if row.get("system"):
        said.insert(0, {"role": "system", "content": row["system"]})
    return of_messages(said, row.get("tools"))


def _message(turn: dict[str, Any]) -> Message:
    role = ROLES[turn["from"]]
    if turn["from"] == "function_call":
        return {"role": role, "content": None, "tool_calls": _calls(turn["value"])}
    return {"role": role, "content": turn["value"]}


def _calls(value: str) -> list[Any]:
    """The calls that a function_call's JSON holds."""
    parsed = json.loads(value)
    return parsed if isinstance(parsed, list) else [parsed]
