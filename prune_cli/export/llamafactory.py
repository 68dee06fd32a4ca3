"""LLaMA-Factory: the rows, `dataset_info.json` that describes them, and lines for the configuration of a training.

Alpaca, prompt_response, a prompt and completion of texts, texts, ShareGPT, messages and preferences are written as
they came. Messages with tools, thinking or parts become ShareGPT: LLaMA-Factory's reader of such messages adds a
system text of its own, and its version of the library datasets gives every call the arguments of all others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prune_cli.data import formats
from prune_cli.data.lines import Row
from prune_cli.export import _yaml
from prune_cli.export._chat import says_beside_a_call, sharegpt, sides, takes_turns, turn, untrained
from prune_cli.export._kept import BEFORE, FILE, Kept, tell_replaced, tell_rows, write_converted
from prune_cli.runtime.progress import note

OPENAI = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
          "observation_tag": "tool", "function_tag": "function", "system_tag": "system"}  # fmt: skip
STAGES = {"text": "pt", "preference": "dpo"}  # of the others: sft


Convert = Callable[[Row, str], Row]


def write(kept: Kept, folder: Path) -> None:
    """Write `kept.jsonl`, `dataset_info.json` and `llamafactory.yaml`."""
    format = kept.check_format("llamafactory")
    entry, convert = _entry(kept, format)
    if convert is None:
        file = kept.write_lines(folder)
    else:
        note(f"export: LLaMA-Factory does not read such {format}: the rows get conversations of ShareGPT")
        tell_replaced(kept, ["conversations"], kept.rows(), kept.key)
        file = write_converted(_converted(kept, format, convert), folder)
    _tell(kept, format)
    info = {FILE: {"file_name": file, **entry}}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n", "utf-8")
    training = {"stage": STAGES.get(format, "sft"), "dataset_dir": ".", "dataset": FILE}
    head = ["# Lines for a configuration of LLaMA-Factory; dataset_dir is the path of this folder."]
    (folder / "llamafactory.yaml").write_text("\n".join([*head, *_yaml.lines(training)]) + "\n", "utf-8")


def _entry(kept: Kept, format: str) -> tuple[dict[str, Any], Convert | None]:
    """What dataset_info.json says of the rows, and how they are converted; None: they stay as they came."""
    if format == "preference":
        return _preference(kept)
    if format == "text":
        return {"columns": {"prompt": kept.key("text")}}, None
    if format == "alpaca":
        columns = _present(kept, prompt="instruction", query="input", response="output", system="system")
        return {"columns": columns | _present(kept, history="history")}, None
    if format == "prompt_response":
        return {"columns": _present(kept, prompt="prompt", response="response")}, None
    if format == "prompt_completion" and all(isinstance(row["prompt"], str) for row in kept.read()):
        return {"columns": _present(kept, prompt="prompt", response="completion")}, None
    if format == "sharegpt":
        columns = _present(kept, messages="conversations", system="system", tools="tools")
        return {"formatting": "sharegpt", "columns": columns}, None
    if format == "messages" and all(map(_is_plain, kept.read())):
        return {"formatting": "sharegpt", "columns": _present(kept, messages="messages"), "tags": OPENAI}, None
    tools = {"tools": "tools"} if any(said.tools for said in kept.conversations()) else {}
    return {"formatting": "sharegpt", "columns": {"messages": "conversations", **tools}}, _in_turns(format)


def _in_turns(format: str) -> Convert:
    return lambda row, where: sharegpt(formats.conversation(row, format))


def _present(kept: Kept, **names: str) -> dict[str, str]:
    """LLaMA-Factory's names -> keys of the rows, for what any row has: it demands the columns that it is told."""
    return {column: kept.key(name) for column, name in names.items() if kept.has(name)}


def _is_plain(row: Row) -> bool:
    """Whether messages are texts by a system, user and assistant, without tools."""
    plain = ("system", "user", "assistant")
    return not row.get("tools") and all(
        message["role"] in plain
        and isinstance(message.get("content"), str)
        and not message.get("tool_calls")
        and not message.get("reasoning_content")
        for message in row["messages"]
    )


def _converted(kept: Kept, format: str, convert: Convert) -> Iterator[Row]:
    """The rows in ShareGPT; other keys stay, those of the old form go: values of many types are refused there."""
    old = {kept.key(name) for name in (*formats.load(format).KEYS, *BEFORE.get(format, ()), "tools")}
    for i, (own, read) in enumerate(zip(kept.rows(), kept.read(), strict=True)):
        yield {**{key: value for key, value in own.items() if key not in old}, **convert(read, kept.where(i))}


def _preference(kept: Kept) -> tuple[dict[str, Any], Convert | None]:
    answers = _present(kept, chosen="chosen", rejected="rejected")
    first = next(iter(kept.read()))
    if isinstance(first["chosen"], str):
        asked = "instruction" if kept.has("instruction") else "prompt"
        columns = {"prompt": kept.key(asked), **_present(kept, query="input", system="system", history="history")}
        return {"ranking": True, "columns": columns | answers}, None
    if isinstance(first["chosen"], dict):
        columns = _present(kept, messages="conversations", system="system", tools="tools")
        return {"formatting": "sharegpt", "ranking": True, "columns": columns | answers}, None

    def convert(row: Row, where: str) -> Row:
        before, chosen, rejected = sides(row, where)
        turns = [turn(message) for message in before]
        return {"conversations": turns, answers["chosen"]: turn(chosen), answers["rejected"]: turn(rejected)}

    return {"formatting": "sharegpt", "ranking": True, "columns": {"messages": "conversations", **answers}}, convert


def _tell(kept: Kept, format: str) -> None:
    """Tell what LLaMA-Factory does otherwise than the rows say."""
    if format in ("text", "preference"):
        return
    what = "have messages by the assistant that are not to be trained on; LLaMA-Factory trains on them"
    tell_rows(kept, untrained(kept, prompts=True), what)
    beside, odd = [], []
    for i, said in enumerate(kept.conversations()):
        if says_beside_a_call(said):
            beside.append(i)
        if said.messages and not takes_turns([entry["from"] for entry in sharegpt(said)["conversations"]]):
            odd.append(i)
    tell_rows(kept, beside, "say something beside a call, for which LLaMA-Factory has no place")
    if format == "prompt_completion" and not next(iter(kept.conversations())).messages:
        note("export: LLaMA-Factory puts prompt and completion through a chat template, as what user and assistant say")
    tell_rows(kept, odd, "are left out by LLaMA-Factory, as user and assistant do not take turns")
