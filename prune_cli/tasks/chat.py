"""Conversations through a tokenizer's chat template, the same on every day. This file is not a task.

A chat template is a small program that came with the model. It sees a fixed date, the one that Llama 3.1's template
falls back to, and draws the same at random each time, so that the same rows give the same tokens. What it raises is an
error of the row, and it may neither run for long nor write without end.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_cli.errors import PruneError
from prune_cli.runtime.limit import time_limit

if TYPE_CHECKING:
    from prune_cli.data.formats._conversation import Conversation, Message

DATE = datetime(2024, 7, 26, tzinfo=UTC)
SECONDS = 10.0  # for a row; a usual template takes a thousandth of one
LONGEST = 10**7  # characters that a template may add to those of the messages
OTHER = "--chat-template FILE takes another template, one that writes tools and their calls where rows have them"
_MARK = r"\{%-?\s*generation\s*-?%\}"
_MARKS = _MARK.replace("generation", "(?:end)?generation")
_CODES = "aAbBcCdDeFgGhHIjmMpRrSTuUVwWxXyYzZ"  # of strftime


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, and as it stood before and after turns of the assistant.

    before: up to each turn, with what the template writes for the assistant to begin; after: as if it ended with that
    turn; bare: as if it ended before the last turn, with nothing to begin, where `before` is not all in the whole.
    """

    whole: str
    before: list[str]
    after: list[str]
    bare: str = ""


def read_template(path: Path) -> str:
    """The chat template in a file. Raises PruneError, with its line, where it is no template of Jinja."""
    from jinja2 import Environment, TemplateSyntaxError

    try:
        template = path.read_bytes().decode()
    except OSError as failure:
        raise PruneError(f"chat_template: {path}: cannot be read ({failure.strerror}); allowed: a file") from failure
    except ValueError as failure:
        raise PruneError(f"chat_template: {path}: not UTF-8; allowed: a Jinja template as UTF-8 text") from failure
    try:  # the marks are a tag of transformers' own
        Environment(extensions=["jinja2.ext.loopcontrols"]).from_string(re.sub(_MARKS, "", template))
    except TemplateSyntaxError as failure:
        raise PruneError(f"{path}:{failure.lineno}: {_told(failure)}; allowed: a Jinja template") from failure
    if not template.strip():
        raise PruneError(f"chat_template: {path}: empty; allowed: a Jinja template")
    return template


def prompt(tokenizer: Any, told: Conversation, where: str) -> str:
    """What stands before the assistant's last message, up to where that begins. Raises PruneError like `rendered`."""
    return _texts(tokenizer, told, [(len(told.messages) - 1, True)], where)[0]


def rendered(tokenizer: Any, told: Conversation, turns: Sequence[int], where: str) -> Rendered:
    """The conversation by the template, and as it stood before and after the messages `turns`, the last one among them.

    where: the row, for messages. Raises PruneError where the template refuses the messages or fails, and where it
    leaves one of them out.
    """
    texts = _texts(tokenizer, told, [(j, True) for j in turns] + [(j + 1, False) for j in turns], where)
    before, after = texts[: len(turns)], texts[len(turns) :]
    if all(after[-1].startswith(text) for text in before):
        return Rendered(after[-1], before, after)
    return Rendered(after[-1], before, after, *_texts(tokenizer, told, [(len(told.messages) - 1, False)], where))


def leaves_out_tools(tokenizer: Any, told: Conversation, whole: str, where: str) -> bool:
    """Whether the template makes the same of a conversation without its tools, or without the calls of them.

    whole: what it makes of all of it.
    """
    without = [replace(told, tools=None)] if told.tools else []
    if any(message.get("tool_calls") for message in told.messages):
        bare = [{key: value for key, value in m.items() if key != "tool_calls"} for m in told.messages]
        without.append(replace(told, messages=bare))
    how = {"add_generation_prompt": False, "tokenize": False}
    for less in without:
        try:
            if _applied(tokenizer, less, [(len(told.messages), how)], where) == [whole]:
                return True
        except PruneError:  # it cannot do without, so it does not leave them out
            continue
    return False


def is_marked(tokenizer: Any, told: Conversation) -> bool:
    """Whether the template marks what the assistant generates, and the tokenizer can say which tokens these are."""
    return tokenizer.is_fast and re.search(_MARK, _template(tokenizer, told)) is not None


def marked(tokenizer: Any, told: Conversation, where: str) -> list[int]:
    """For each token of a conversation 1 where it stands between the template's marks, else 0."""
    how = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    made = _applied(tokenizer, told, [(len(told.messages), {"add_generation_prompt": False, **how})], where)
    masks: list[int] = made[0]["assistant_masks"]
    return masks


def _texts(tokenizer: Any, told: Conversation, asked: Sequence[tuple[int, bool]], where: str) -> list[str]:
    """The first n messages as text, for each (n, whether the assistant is to begin)."""
    how = [(n, {"add_generation_prompt": begun, "tokenize": False}) for n, begun in asked]
    texts = _applied(tokenizer, told, how, where)
    longest = LONGEST + sum(len(str(message)) for message in (*told.messages, *(told.tools or ())))
    if max(map(len, texts)) > longest:
        raise PruneError(
            f"{where}: the chat template makes a text of {max(map(len, texts))} characters; allowed: up to {longest}"
        )
    for (n, _), text in zip(asked, texts, strict=True):
        if lacking := left_out(told.messages[:n], text):
            message = f"{where}: the chat template leaves out {lacking}; allowed: messages that it writes"
            raise PruneError(message, hint=OTHER)
    return texts


def _applied(tokenizer: Any, told: Conversation, asked: Sequence[tuple[int, dict[str, Any]]], where: str) -> list[Any]:
    """What the template makes of the first n messages, for each (n, how it is called)."""
    from jinja2 import TemplateError

    state = random.getstate()
    made = []
    try:
        with time_limit(SECONDS):
            template = _template(tokenizer, told)
            messages = list(told.messages)
            if "developer" not in template:  # the role that took the place of system
                messages = [{**m, "role": "system"} if m["role"] == "developer" else m for m in messages]
            for n, how in asked:
                random.seed(0)  # Jinja has a filter that draws, and a function that makes up text
                made.append(
                    tokenizer.apply_chat_template(messages[:n], tools=told.tools, chat_template=template, **how)
                )
    except TemplateError as failure:
        raise PruneError(f"{where}: the chat template refuses the messages: {_told(failure)}", hint=OTHER) from failure
    except Exception as failure:  # the template is code of others, which can raise anything
        said = f"{type(failure).__name__}: {_told(failure)}"
        raise PruneError(f"{where}: the chat template fails on the messages: {said}", hint=OTHER) from failure
    finally:
        random.setstate(state)
    return made


def _template(tokenizer: Any, told: Conversation) -> str:
    """The template for a conversation with its tools, or without."""
    return with_fixed_date(tokenizer.get_chat_template(tools=told.tools))


def left_out(messages: Sequence[Message], text: str) -> str | None:
    """The first message of which the text lacks what is said; None if it lacks nothing.

    Thinking may be left out, as templates do of earlier turns; what tools say may be written in other letters.
    """
    for j, message in enumerate(messages, 1):
        said = (message["content"] or "") if message["role"] != "tool" else ""
        said = said.rpartition("</think>")[2].strip() if message["role"] == "assistant" else said.strip()
        called = [call["function"]["name"] for call in message.get("tool_calls", ())]
        if any(part not in text for part in (said, *called)):
            return f"message {j}, of the {message['role']}"
    return None


def with_fixed_date(template: str) -> str:
    """The template with a `strftime_now` of its own, which tells DATE in place of today's.

    transformers hands a template no function of ours, so it is a macro: for a date that is known, every code of a
    format has one text.
    """
    return _macro() + template if "strftime_now" in template else template


@cache
def _macro() -> str:
    """`strftime_now` as a macro on a line of its own; what follows keeps its white space."""
    texts = {"%%": "\ue000"}
    for code in _CODES:
        texts[f"%{code}"] = DATE.strftime(f"%{code}")
        texts[f"%-{code}"] = DATE.strftime(f"%{code}").lstrip("0 ") or "0"
    texts |= {"%f": "000000", "%s": str(int(DATE.timestamp())), "\ue000": "%"}
    replaced = "".join(f".replace({code!r}, {text!r})" for code, text in texts.items())
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}\n"


def _told(failure: Exception) -> str:
    """What an exception says, on one line."""
    return " ".join(str(failure).split()) or type(failure).__name__
