"""Axolotl: the rows, and the lines of its configuration that say how it reads them.

Alpaca (without a history), ShareGPT (without calls), messages, texts, a prompt and completion of texts, and preferences
but those of Alpaca and ShareGPT are written as they came. The others become messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prune_cli.data import formats
from prune_cli.data.formats._conversation import Message
from prune_cli.data.lines import Row
from prune_cli.data.problems import encode
from prune_cli.errors import PruneError
from prune_cli.export import _yaml
from prune_cli.export._chat import sides, weighted
from prune_cli.export._kept import Kept, tell_replaced, write_converted
from prune_cli.runtime.progress import note

FROM_VALUE = {"role": "from", "content": "value"}
UNCHANGED = "{instruction}"
CHAT = {"type": "chat_template"}

Convert = Callable[[Row, str], Row]


def write(kept: Kept, folder: Path) -> None:
    """Write `kept.jsonl` and `axolotl.yaml`."""
    format = kept.check_format("axolotl")
    read, convert = _preference(kept) if format == "preference" else _read(kept, format)
    if convert is None:
        file = kept.write_lines(folder)
    else:
        note(f"export: axolotl does not read such {format}: the rows get messages")
        tell_replaced(kept, ["messages"], kept.rows(), kept.key)
        file = write_converted(_converted(kept, convert), folder)
    rl = {"rl": "dpo"} if format == "preference" else {}
    config = {**rl, "datasets": [{"path": file, "ds_type": "json", "split": "train", **read}]}
    head = ["# Lines for a configuration of axolotl; path is that of the file in this folder."]
    (folder / "axolotl.yaml").write_text("\n".join([*head, *_yaml.lines(config)]) + "\n", "utf-8")


def _read(kept: Kept, format: str) -> tuple[dict[str, Any], Convert | None]:
    """How axolotl reads the rows, and how they are converted for it; None: they stay as they came."""
    if format == "text":
        return {"type": "completion", "field": kept.key("text")}, None
    if format == "alpaca" and not kept.fields and not kept.has("history"):
        system = kept.has("system")
        return {"type": "alpaca_w_system.load_instruct" if system else "alpaca"}, None
    if format == "prompt_completion" and all(isinstance(row["prompt"], str) for row in kept.read()):
        fields = {"field_instruction": kept.key("prompt"), "field_output": kept.key("completion")}
        return {"type": {**fields, "format": UNCHANGED, "no_input_format": UNCHANGED}}, None
    if format == "messages":
        return CHAT | _fields(kept, field_messages="messages", field_tools="tools") | _weights(kept), None
    if format == "sharegpt" and not _has_calls(kept) and _same_system(kept) and kept.key("system") == "system":
        fields = _fields(kept, field_messages="conversations", field_tools="tools")
        return CHAT | fields | {"message_property_mappings": FROM_VALUE}, None

    def convert(row: Row, where: str) -> Row:
        said = formats.conversation(row, format)
        return {"messages": _as_text(weighted(said)), **({"tools": encode(said.tools)} if said.tools else {})}

    untrained = any(not all(_trained(said)) for said in kept.conversations())
    return CHAT | ({"message_field_training": "weight"} if untrained else {}), convert


def _fields(kept: Kept, **names: str) -> dict[str, str]:
    """Axolotl's names -> keys of the rows, for what any row has."""
    return {field: kept.key(name) for field, name in names.items() if kept.has(name)}


def _weights(kept: Kept) -> dict[str, str]:
    """The key that says which messages are trained on, where there is one."""
    keys = [key for key in ("weight", "loss_weight") for row in kept.read() if any(key in m for m in row["messages"])]
    if len(set(keys)) > 1:
        raise PruneError(f"{kept.path}: rows have weight and loss_weight; allowed for axolotl: one of them")
    return {"message_field_training": keys[0]} if keys else {}


def _has_calls(kept: Kept) -> bool:
    known = ("human", "gpt", "system")
    return any(turn["from"] not in known for row in kept.read() for turn in row["conversations"])


def _same_system(kept: Kept) -> bool:
    """Whether every row has a text under the key system, or no row has that key: null would be written as None."""
    return {bool(row["system"]) if "system" in row else None for row in kept.rows()} in ({True}, {None})


def _trained(said: Any) -> list[bool]:
    """Of each message by the assistant whether it is trained on."""
    return [t for m, t in zip(said.messages, said.trained, strict=True) if m["role"] == "assistant"]


def _as_text(messages: list[Message]) -> list[Message]:
    """Messages whose calls have their arguments as JSON text, as axolotl advises: they differ from call to call."""
    made = []
    for message in messages:
        calls = [
            {**call, "function": {**call["function"], "arguments": encode(call["function"]["arguments"])}}
            for call in message.get("tool_calls", ())
        ]
        made.append({**message, **({"tool_calls": calls} if calls else {})})
    return made


def _converted(kept: Kept, convert: Convert) -> Iterator[Row]:
    """The rows with what they are converted to; a system text stands in the messages then, and only there."""
    old = kept.key("system")
    for i, (own, read) in enumerate(zip(kept.rows(), kept.read(), strict=True)):
        yield {**{key: value for key, value in own.items() if key != old}, **convert(read, kept.where(i))}


def _preference(kept: Kept) -> tuple[dict[str, Any], Convert | None]:
    # axolotl has these keys by default; with `rl` it forgets other names of roles and contents
    answers = {f"field_{name}": kept.key(name) for name in ("chosen", "rejected") if kept.key(name) != name}
    first = next(iter(kept.read()))
    default = {"type": "chat_template.default", **answers}
    if isinstance(first["chosen"], list) and not kept.has("prompt"):
        return {"type": "chat_template.argilla_chat", **answers}, None
    if kept.has("prompt") and all(_answers_once(row) for row in kept.read()):
        return default | {"field_messages": kept.key("prompt")}, None

    def convert(row: Row, where: str) -> Row:
        before, chosen, rejected = sides(row, where)
        return {"messages": before, kept.key("chosen"): chosen, kept.key("rejected"): rejected}

    return default | {"field_messages": "messages"}, convert


def _answers_once(row: Row) -> bool:
    """Whether each answer is one message: of several axolotl reads the last alone."""
    return isinstance(row["chosen"], str) or len(row["chosen"]) == len(row["rejected"]) == 1
