"""Text for a terminal: what data holds must not steer it."""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """The text with control characters, but for newline and tab, written as escapes such as \\x1b.

    Half a surrogate pair, as in the name of a file that is not UTF-8, is written as an escape too.
    """
    escaped = CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)
    return escaped.encode("utf-8", "backslashreplace").decode()
