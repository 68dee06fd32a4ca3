"""{"instruction", "output", "input"?, "system"?, "history"?}: rows of Alpaca (Taori et al. 2023).

Through a chat template the user says the instruction and, on a line below it, the input, as LLaMA-Factory has it; the
pairs of `history` stand before, and `system` first. A tokenizer without one gets the prompt that Alpaca was trained
with, which has no place for a system text or a history.
"""

from __future__ import annotations

from typing import Any

from prune_cli.data.formats._conversation import Conversation, Message, of_messages
from prune_cli.data.problems import described, text_problem
from prune_cli.data.readers import Row

KEYS = ("instruction", "output")
RESPONSE = "output"
BESIDE: tuple[str, ...] = ("text",)
EXAMPLE: Row = {"instruction": "Name the capital of the country.", "input": "France", "output": "Paris."}

_PAIRED = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
_ALONE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)


def matches(row: Row) -> bool:
    """Whether a row looks like one of this format."""
    return "instruction" in row


def check(row: Row) -> str | None:
    """The problem of a row that has all KEYS in words, with what is allowed; None if there is none."""
    return prompt_problem(row) or text_problem("output", row["output"])


def prompt_problem(row: Row) -> str | None:
    """The problem of what stands before the output."""
    if problem := text_problem("instruction", row["instruction"]):
        return problem
    for key in ("input", "system"):
        if row.get(key) is not None and not isinstance(row[key], str):
            return f"{described(key, row[key])}; allowed: a string"
    history = row.get("history")
    if history is not None and not isinstance(history, list):
        return f"{described('history', history)}; allowed: a list of pairs, what the user said and the assistant"
    return next(filter(None, (_pair_problem(j, pair) for j, pair in enumerate(history or (), 1))), None)


def _pair_problem(j: int, pair: Any) -> str | None:
    if not isinstance(pair, list) or len(pair) != 2:
        return f"{described(f'pair {j} of history', pair)}; allowed: a list of what the user said and the assistant"
    return text_problem(f"what the user says in pair {j} of history", pair[0]) or text_problem(
        f"what the assistant says in pair {j} of history", pair[1]
    )


def conversation(row: Row) -> Conversation:
    """Messages of the system text, the history, the instruction with its input, and the output."""
    system, history, given = row.get("system"), row.get("history") or (), row.get("input")
    said: list[Message] = [{"role": "system", "content": system}] if system else []
    for asked, answered in history:
        said += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    asked = f"{row['instruction']}\n{given}" if given else row["instruction"]
    said += [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]
    prompt = (_PAIRED if given else _ALONE).format(instruction=row["instruction"], input=given)
    return of_messages(said, plain=None if said[2:] else (prompt, row["output"]))
