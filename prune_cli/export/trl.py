"""TRL: a folder as of `datasets`, whose rows are `messages`, `prompt` and `completion`, `text`, or a preference.

Alpaca, ShareGPT and prompt_response are none of TRL's formats. They become a prompt and a completion of messages, on
which TRL trains as prune does; conversations of several turns by the assistant become messages. Every other key stays,
but for those that TRL would take for data of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prune_cli.data import formats
from prune_cli.data.formats._conversation import Conversation
from prune_cli.data.lines import Row
from prune_cli.export._card import card
from prune_cli.export._chat import sides, untrained
from prune_cli.export._kept import Kept, tell_replaced, tell_rows
from prune_cli.export._table import TRAIN, write_parquet
from prune_cli.runtime.progress import note

# keys that TRL's trainers read, whatever else a row holds
READ = ("messages", "prompt", "completion", "chosen", "rejected", "conversations", "image", "images", "labels",
        "input_ids", "chat_template_kwargs")  # fmt: skip
MESSAGES, ANSWER = ("messages",), ("prompt", "completion")
USE = {
    "messages": "SFTTrainer trains on every token unless `assistant_only_loss=True`.",
    "completion": "SFTTrainer trains on the completion alone.",
    "text": "SFTTrainer trains on the whole text.",
    "chosen": "For DPOTrainer, RewardTrainer and others that compare two answers.",
}


def write(kept: Kept, folder: Path) -> None:
    """Write `train.parquet` and the card `README.md`."""
    format = kept.check_format("trl")
    keys, convert = _conversion(kept, format)
    if convert is not None and format not in ("messages", "prompt_completion"):
        note(f"export: TRL does not read such {format}: the rows get {' and '.join(keys)} of its form")
    if convert is not None:
        tell_replaced(kept, keys, kept.read(), str)
    unread = [key for key in READ if key not in keys]
    if keys == ANSWER and convert is None:
        unread.append("text")  # TRL would put the end-of-sequence token there, not behind the completion
    left_out = dict.fromkeys(key for row in kept.read() for key in row if key in unread)
    if left_out:
        note(f"export: left out, as TRL would read it: {', '.join(left_out)}")
    for name, key in kept.fields.items():
        note(f"export: the key {key} becomes {name}, as TRL names it")
    if format != "preference":
        told = "have messages by the assistant that are not to be trained on; TRL trains on them"
        tell_rows(kept, untrained(kept, prompts=False), told)

    def rows() -> Iterator[Row]:
        for i, row in enumerate(kept.read()):
            made = convert(row, kept.where(i)) if convert else {key: row[key] for key in keys if key in row}
            yield {key: value for key, value in {**row, **made}.items() if key in made or key not in unread}

    write_parquet(rows, folder / TRAIN)
    use = next(text for key, text in USE.items() if key in keys)
    (folder / "README.md").write_text(card(kept, f"For TRL. {use}"), "utf-8")


def _conversion(kept: Kept, format: str) -> tuple[tuple[str, ...], Callable[[Row, str], Row] | None]:
    """The keys of TRL's that the rows get, and how they get them; None: they have them."""
    if format == "text":
        return ("text",), None
    if format == "preference":
        native = not (kept.has("instruction") or kept.has("conversations"))
        keys = ("prompt", "chosen", "rejected") if kept.has("prompt") or not native else ("chosen", "rejected")
        return keys, None if native else _preference
    if format == "messages":
        return MESSAGES, lambda row, where: _as_messages(row, format)
    if format == "prompt_completion":
        return ANSWER, None if _plain(kept) else lambda row, where: _called(row)
    if any(sum(said.trained) > 1 for said in kept.conversations()):
        return MESSAGES, lambda row, where: _as_messages(row, format)
    return ANSWER, lambda row, where: _as_answer(row, format)


def _plain(kept: Kept) -> bool:
    return all(isinstance(row["prompt"], str) for row in kept.read())


def _as_messages(row: Row, format: str) -> Row:
    said = formats.conversation(row, format)
    if format != "messages":
        return {"messages": list(said.messages), **_tools(said)}
    pairs = zip(row["messages"], said.messages, strict=True)
    return {"messages": [_readable(own, read) for own, read in pairs], **_tools(said)}


def _as_answer(row: Row, format: str) -> Row:
    said = formats.conversation(row, format)
    return {"prompt": list(said.messages[:-1]), "completion": list(said.messages[-1:]), **_tools(said)}


def _called(row: Row) -> Row:
    """Prompt and completion of messages, in a form that templates read."""
    said = formats.conversation(row, "prompt_completion")
    own = [*row["prompt"], *row["completion"]]
    made = [_readable(*pair) for pair in zip(own, said.messages, strict=True)]
    n = len(row["prompt"])
    return {"prompt": made[:n], "completion": made[n:], **_tools(said)}


def _readable(own: Row, read: Row) -> Row:
    """A message as it came, with the content and calls that chat templates read in place of parts and JSON text."""
    changed = isinstance(own.get("content"), list) or own.get("tool_calls")
    return {**own, **{key: value for key, value in read.items() if value is not None}} if changed else own


def _tools(said: Conversation) -> dict[str, Any]:
    return {"tools": list(said.tools)} if said.tools else {}


def _preference(row: Row, where: str) -> Row:
    before, chosen, rejected = sides(row, where)
    return {"prompt": before, "chosen": [chosen], "rejected": [rejected]}
