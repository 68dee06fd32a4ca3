"""Rows for language models as tokens, and which of these are trained on. This file is not a task.

A conversation goes through the tokenizer's chat template. Where there is none, a prompt and its response stand one
behind the other. A text that goes on where a prompt ends is tokenised with it as one text, and no template is asked.
What goes through no template ends with the end-of-sequence token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.data import formats
from prune_cli.data.formats._conversation import Conversation, Message
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.tasks import chat, turns


@dataclass(frozen=True)
class Tokens:
    """A row's tokens, uncut; whether each is trained on; where the response, the last turn, begins.

    prompted: whether anything stands before the response. unthought: whether the chat template left out thinking of a
    turn that is trained on. untooled: whether it left out tools, or the calls of them.
    """

    ids: list[int]
    trained: NDArray[np.bool_]
    response: int
    prompted: bool = True
    unthought: bool = False
    untooled: bool = False


def told(rows: Rows, position: int) -> Conversation:
    """What a row says."""
    return formats.conversation(rows[position], rows.format or formats.AUTO)


def tokens(rows: Rows, positions: Sequence[int], tokenizer: Any, *, loss_on: str) -> list[Tokens]:
    """The rows at `positions` as tokens. loss_on: every turn of the assistant (all), or the last alone.

    Raises PruneError with file:line for a row that the chat template refuses, or in which the assistant's turns cannot
    be told from the rest.
    """
    some = [told(rows, i) for i in positions]
    where = [rows.where(i) for i in positions]
    through = [bool(tokenizer.chat_template and entry.messages) for entry in some]
    made = iter(_chats(list(compress(some, through)), list(compress(where, through)), tokenizer, loss_on))
    return [
        next(made) if chats else _plain(entry, place, tokenizer)
        for entry, place, chats in zip(some, where, through, strict=True)
    ]


def prompts(rows: Rows, positions: Sequence[int], tokenizer: Any) -> list[list[int]]:
    """The tokens before the response of the rows at `positions`, up to where the assistant begins to speak."""
    made = []
    for i in positions:
        entry, where = told(rows, i), rows.where(i)
        if tokenizer.chat_template and entry.messages:
            text = chat.prompt(tokenizer, entry, where)
            made.append(tokenizer(text, add_special_tokens=False)["input_ids"])
        else:
            made.append(_prompt(entry, where, tokenizer))
    return made


def _plain(entry: Conversation, where: str, tokenizer: Any) -> Tokens:
    """Prompt and response without a template; a text that goes on is trained on from where it departs from the prompt.

    The first token of a text follows nothing, so it is never trained on.
    """
    prompt, (before, said) = _prompt(entry, where, tokenizer), _pair(entry, where)
    if entry.messages:
        ids = prompt + tokenizer(said, add_special_tokens=False)["input_ids"]
        start = len(prompt)
        ids.append(tokenizer.eos_token_id)
    else:
        ids = tokenizer(before + said)["input_ids"]
        start = turns.shared(prompt, ids)
        if not ids or ids[-1] != tokenizer.eos_token_id:
            ids.append(tokenizer.eos_token_id)
    start = max(start, 1)
    if start == len(ids):
        raise PruneError(f"{where}: text gives {len(ids)} token; allowed: two tokens or more")
    return Tokens(ids, np.arange(len(ids)) >= start, start, entry.prompted)


def _prompt(entry: Conversation, where: str, tokenizer: Any) -> list[int]:
    """The tokens of a prompt without a template."""
    if tokenizer.eos_token_id is None:
        raise PruneError(
            "the tokenizer has neither an eos_token, which ends a response, nor a chat template; one is needed"
        )
    prompt = _pair(entry, where)[0]
    ids: list[int] = tokenizer(prompt)["input_ids"] if prompt or tokenizer.bos_token_id is not None else []
    if prompt and not ids:
        raise PruneError(f"{where}: prompt gives no token; allowed: at least one token")
    return ids


def _pair(entry: Conversation, where: str) -> tuple[str, str]:
    if entry.plain is None:
        raise PruneError(
            f"{where}: a conversation, but the tokenizer has no chat template; allowed: one prompt and its response"
        )
    return entry.plain


def _chats(some: Sequence[Conversation], where: Sequence[str], tokenizer: Any, loss_on: str) -> list[Tokens]:
    """Conversations by the chat template."""
    if not some:
        return []
    if not tokenizer.is_fast:
        raise PruneError(
            "the tokenizer does not say where in a text its tokens stand; allowed: one with tokenizer.json"
        )
    wanted = [_wanted(entry, place, loss_on) for entry, place in zip(some, where, strict=True)]
    # where all turns are trained on, the template's marks alone say where they are, and only the last is looked for
    marked = [chat.is_marked(tokenizer, entry) for entry in some]
    alone = [
        its and loss_on == "all" and all(entry.trained[j] for j in _spoken(entry))
        for its, entry in zip(marked, some, strict=True)
    ]
    sought = [chosen[-1:] if by_marks else chosen for chosen, by_marks in zip(wanted, alone, strict=True)]
    shown = [chat.rendered(tokenizer, *row) for row in zip(some, sought, where, strict=True)]
    found = []
    made = tokenizer([text.whole for text in shown], add_special_tokens=False, return_offsets_mapping=True)
    for i, ids in enumerate(made["input_ids"]):
        spans = _spans(some[i], sought[i], shown[i], where[i])
        ends = np.array([end for _, end in made["offset_mapping"][i]])
        trained = np.zeros(len(ids), bool)
        for j, (start, end) in zip(sought[i], spans, strict=True):
            trained |= (ends > start) & (ends <= end) & some[i].trained[j]
        if marked[i]:
            marks = np.array(chat.marked(tokenizer, some[i], where[i]), bool)
            trained = marks if alone[i] else marks & trained
        response = int(np.searchsorted(ends, spans[-1][0], "right"))
        if some[i].trained[-1] and not trained[response:].any():
            raise _unknown(where[i], sought[i][-1])
        thoughts = [_thought(some[i].messages[j]) for j in wanted[i] if some[i].trained[j]]
        unthought = any(thought not in shown[i].whole for thought in thoughts)
        untooled = chat.leaves_out_tools(tokenizer, some[i], shown[i].whole, where[i])
        found.append(Tokens(ids, trained, response, unthought=unthought, untooled=untooled))
    return found


def _spans(entry: Conversation, sought: Sequence[int], shown: chat.Rendered, where: str) -> list[tuple[int, int]]:
    """Where the messages `sought` stand in the whole text."""
    heard = [str(entry.messages[j - 1]["content"] or "").strip() if j else "" for j in sought]
    says = [partial(_says, entry.messages[j]) for j in sought]
    found = turns.located(shown.whole, shown.before, shown.after, shown.bare, heard, says)
    spans = []
    for j, span in zip(sought, found, strict=True):
        if span is None or not span[0]:
            raise _unknown(where, j)
        spans.append(span)
    return spans


def _says(message: Message, text: str) -> bool:
    """Whether a text holds what a message says."""
    return bool(text) and chat.left_out([message], text) is None


def _thought(message: Message) -> str:
    """What the assistant thinks before it speaks."""
    inline = str(message["content"] or "").rpartition("</think>")[0].rpartition("<think>")[2]
    return (inline or str(message.get("reasoning_content", ""))).strip()


def _spoken(entry: Conversation) -> list[int]:
    """The messages of the assistant."""
    return [j for j, message in enumerate(entry.messages) if message["role"] == "assistant"]


def _wanted(entry: Conversation, where: str, loss_on: str) -> list[int]:
    """The messages that are trained on, and the last one."""
    last = len(entry.messages) - 1
    if loss_on == "last":
        if not entry.trained[last]:
            raise PruneError(f"{where}: the last message has the weight 0; allowed with loss_on last: 1")
        return [last]
    return [j for j, trained in enumerate(entry.trained) if trained or j == last]


def _unknown(where: str, j: int) -> PruneError:
    """The error of a turn that is not found in what the template makes of the conversation."""
    return PruneError(
        f"{where}: it is unknown where message {j + 1}, of the assistant, stands in what the chat template makes of "
        "the conversation; allowed: a template that writes it as it does without the messages behind it",
        hint="put {% generation %} and {% endgeneration %} around what the assistant says in the template, "
        "or train on the last message alone: --loss-on last",
    )
