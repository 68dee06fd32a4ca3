"""What a row says, whatever its format; and messages as OpenAI's API has them, which several formats hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prune_cli.data.problems import described, text_problem

ROLES = ("system", "developer", "user", "assistant", "tool")
HANDED_ON = ("name", "tool_call_id", "reasoning_content")  # what a template may read beside role, content, tool_calls
_MAY_BE_EMPTY = ("system", "developer", "tool")

Message = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """What a row says, in order.

    messages: as chat templates read them, the last by the assistant; none where the row is not for a chat template.
    trained: for each message whether it is trained on, which only an assistant's can be. tools: the functions that the
    assistant may call. plain: prompt and response as two texts, for a tokenizer without a chat template; None where a
    template is needed. Without messages the two are one text that goes on where the prompt ends.
    """

    messages: Sequence[Message] = ()
    trained: Sequence[bool] = ()
    tools: Sequence[dict[str, Any]] | None = None
    plain: tuple[str, str] | None = None

    @property
    def prompted(self) -> bool:
        """Whether anything stands before the response."""
        return bool(self.messages) or bool(self.plain and self.plain[0])

    @property
    def response(self) -> str:
        """What the last message says, behind it the tools that it calls, a line of JSON each."""
        if not self.messages:
            return self.plain[1] if self.plain else ""
        return _spoken(self.messages[-1])

    @property
    def trained_text(self) -> str:
        """What all messages say that are trained on, with a line between two."""
        if not self.messages:
            return self.response
        turns = zip(self.messages, self.trained, strict=True)
        return "\n".join(_spoken(message) for message, trained in turns if trained)


def _spoken(message: Message) -> str:
    """What a message says, behind it the tools that it calls, a line of JSON each."""
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls", ())]
    return "\n".join(filter(None, [message["content"], *calls]))


def of_messages(
    messages: Sequence[Message], tools: Any = None, plain: tuple[str, str] | None = None, prompt: int = 0
) -> Conversation:
    """The conversation of good messages; the first `prompt` of them are not trained on.

    Parts of a content are joined without anything between. Arguments of tool calls are objects, as templates want them.
    """
    trained = [
        message["role"] == "assistant" and i >= prompt and _weight(message) != 0 for i, message in enumerate(messages)
    ]
    return Conversation([_message(message) for message in messages], trained, tools_of(tools), plain)


def messages_problem(messages: Any, key: str = "messages", *, least: int = 2) -> str | None:
    """The problem of messages that end with the assistant's, in words, with what is allowed; None if there is none."""
    if not isinstance(messages, list):
        return f"{described(key, messages)}; allowed: a list of objects with role and content"
    name = "message" if key == "messages" else f"{key}, message"
    for j, message in enumerate(messages, 1):
        if problem := _message_problem(f"{name} {j}", message):
            return problem
    if len(messages) < least:
        return f"{key} has {len(messages)}; allowed: {('one', 'two')[least - 1]} or more, the last by the assistant"
    last = messages[-1]["role"]
    if last != "assistant":
        return f"the last message of {key} has the role {last}; allowed: assistant, whose message is the response"
    if not any(message["role"] == "assistant" and _weight(message) != 0 for message in messages):
        return f"every message of {key} by the assistant has the weight 0; allowed: one or more to train on"
    return None


def tools_problem(tools: Any) -> str | None:
    """The problem of a row's tools: a list of functions, or its JSON."""
    try:
        tools = _parsed(tools)
    except ValueError:
        return "tools is no JSON; allowed: a list of objects with the name of a function, or its JSON"
    if not isinstance(tools, list):
        return f"{described('tools', tools)}; allowed: a list of objects with the name of a function, or its JSON"
    for j, tool in enumerate(tools, 1):
        function = _function(tool)
        if function is None:
            return f"{described(f'tool {j}', tool)}; allowed: an object with the name of a function"
    return None


def tools_of(tools: Any) -> list[dict[str, Any]] | None:
    """Good tools as templates read them, each a {"type": "function", "function"}; None where there are none."""
    parsed = _parsed(tools)
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in parsed] or None


def calls_problem(name: str, calls: Any) -> str | None:
    """The problem of tool calls: a list of functions with arguments, which are an object or its JSON."""
    allowed = "a list of objects with a function's name and its arguments, an object or its JSON"
    if not isinstance(calls, list):
        return f"{described(name, calls)}; allowed: {allowed}"
    for j, call in enumerate(calls, 1):
        function = _function(call)
        if function is None:
            return f"{described(f'call {j} of {name}', call)}; allowed: {allowed}"
        try:
            arguments = _parsed(function.get("arguments") or {})
        except ValueError:
            return f"the arguments of call {j} of {name} are no JSON; allowed: an object or its JSON"
        if not isinstance(arguments, dict):
            return f"{described(f'arguments of call {j} of {name}', arguments)}; allowed: an object or its JSON"
    return None


def calls_of(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Good tool calls as templates read them: {"type": "function", "function": {"name", "arguments"}}."""
    made = []
    for call in calls:
        function = call.get("function") or call
        known = {key: value for key, value in call.items() if key == "id" and value is not None}
        arguments = _parsed(function.get("arguments") or {})
        made.append({**known, "type": "function", "function": {"name": function["name"], "arguments": arguments}})
    return made


def _message_problem(name: str, message: Any) -> str | None:
    if not isinstance(message, dict):
        return f"{described(name, message)}; allowed: an object with role and content"
    if "role" not in message:
        return f'{name} has no "role"; allowed: an object with role and content'
    role = message["role"]
    if role not in ROLES:
        return f"{name} has the role {role!r}; allowed: {', '.join(ROLES)}"
    calls = message.get("tool_calls")
    if calls is not None and role != "assistant":
        return f"{name} has tool_calls and the role {role}; allowed: tool_calls of the assistant"
    if calls is not None and (problem := calls_problem(f"tool_calls of {name}", calls)):
        return problem
    if problem := _weight_problem(name, message):
        return problem
    if "content" not in message and not calls:
        return f'{name} has no "content"; allowed: an object with role and content'
    return _content_problem(name, message, empty=role in _MAY_BE_EMPTY or bool(calls))


def _content_problem(name: str, message: Message, *, empty: bool) -> str | None:
    content = message.get("content")
    if isinstance(content, list):
        for j, part in enumerate(content, 1):
            if problem := _part_problem(f"part {j} of {name}", part):
                return problem
        called = any(part["type"] == "tool_call" for part in content)
        return None if empty or called else text_problem(f"content of {name}", _text(content))
    if empty and (content is None or isinstance(content, str)):
        return None
    if content is None:
        return f"content of {name} is null; allowed: a string that is not blank, or null beside tool_calls"
    return text_problem(f"content of {name}", content)


def _part_problem(name: str, part: Any) -> str | None:
    """Parts are texts, as OpenAI has them, or LLaMA-Factory's `reasoning` and `tool_call`, which have a `value`."""
    known = ("text", "reasoning", "tool_call")
    if not isinstance(part, dict) or part.get("type") not in known:
        return f"{described(name, part)}; allowed: an object whose type is {', '.join(known)}, with a text or value"
    said = _said(part)
    if not isinstance(said, str):
        return f"{described(name, part)}; allowed: a string as its text or value"
    if part["type"] == "tool_call":
        try:
            return calls_problem(name, [json.loads(said)])
        except ValueError:
            return f"{name} is no JSON; allowed: the JSON of a function's name and its arguments"
    return None


def _weight_problem(name: str, message: Message) -> str | None:
    for key in ("weight", "loss_weight"):
        weight = message.get(key)
        if weight is None:
            continue
        if isinstance(weight, bool) or weight not in (0, 1):
            return f"{described(f'{key} of {name}', weight)}; allowed: 0 (not trained on) or 1"
        if weight == 1 and message["role"] != "assistant":
            return f"{key} of {name} is 1 and its role {message['role']}; allowed: 0, as the assistant is trained"
    return None


def _weight(message: Message) -> float:
    """The weight of a message's loss, 0 or 1; 1 where none is given."""
    given = [message[key] for key in ("weight", "loss_weight") if message.get(key) is not None]
    return min(given, default=1)


def _message(message: Message) -> Message:
    """A message as chat templates read it."""
    content, calls = message.get("content"), calls_of(message.get("tool_calls") or ())
    made = {key: message[key] for key in HANDED_ON if message.get(key) is not None}
    if isinstance(content, list):
        calls += calls_of([json.loads(_said(part)) for part in content if part["type"] == "tool_call"])
        if thought := "".join(_said(part) for part in content if part["type"] == "reasoning"):
            made["reasoning_content"] = thought
        content = _text(content)
    if not calls and content is None:
        content = ""
    return {"role": message["role"], "content": content, **made, **({"tool_calls": calls} if calls else {})}


def _text(parts: Sequence[dict[str, Any]]) -> str:
    return "".join(_said(part) for part in parts if part["type"] == "text")


def _said(part: dict[str, Any]) -> Any:
    return part.get("text", part.get("value"))


def _function(entry: Any) -> dict[str, Any] | None:
    """The function that an entry of tools or tool calls names; None where it names none."""
    function = entry.get("function", entry) if isinstance(entry, dict) else None
    named = isinstance(function, dict) and isinstance(function.get("name"), str) and function["name"].strip()
    return function if named else None


def _parsed(value: Any) -> Any:
    """A value, or what its JSON says; an empty list for nothing."""
    if isinstance(value, str):
        return json.loads(value) if value.strip() else []
    return [] if value is None else value
