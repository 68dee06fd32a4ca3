"""Conversations through a tokenizer's chat template, the same on every day. This file is not a task.

A chat template is a small program that came with the model. It sees a fixed date, the one that Llama 3.1's template
falls back to, and draws the same at random each time, so that the same rows give the same tokens. What it raises is an
error of the row, and it may neither run for long nor write without end.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from functools import cache
from typing import Any

from prune_cli.errors import PruneError
from prune_cli.runtime.limit import time_limit

DATE = datetime(2024, 7, 26, tzinfo=UTC)
SECONDS = 10.0  # for a row; a usual template takes a thousandth of one
LONGEST = 10**7  # characters that a template may add to those of the messages
_CODES = "aAbBcCdDeFgGhHIjmMpRrSTuUVwWxXyYzZ"  # of strftime


def rendered(tokenizer: Any, messages: list[dict[str, Any]], where: str) -> tuple[str, str]:
    """The prompt, up to where the assistant's last message begins, and the whole conversation, by the template.

    where: the row, for messages. Raises PruneError where the template refuses the messages or fails.
    """
    from jinja2 import TemplateError

    state = random.getstate()
    try:
        with time_limit(SECONDS):
            template = with_fixed_date(tokenizer.get_chat_template())
            texts = []
            for some, begun in ((messages[:-1], True), (messages, False)):
                random.seed(0)  # Jinja has a filter that draws, and a function that makes up text
                texts.append(
                    tokenizer.apply_chat_template(
                        some, chat_template=template, tokenize=False, add_generation_prompt=begun
                    )
                )
    except TemplateError as failure:
        raise PruneError(f"{where}: the chat template refuses the messages: {_told(failure)}") from failure
    except Exception as failure:  # the template is code of others, which can raise anything
        told = f"{type(failure).__name__}: {_told(failure)}"
        raise PruneError(f"{where}: the chat template fails on the messages: {told}") from failure
    finally:
        random.setstate(state)
    longest = LONGEST + sum(len(str(message)) for message in messages)
    if max(map(len, texts)) > longest:
        raise PruneError(
            f"{where}: the chat template makes a text of {max(map(len, texts))} characters; allowed: up to {longest}"
        )
    return texts[0], texts[1]


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
