"""The one exception that users see: an expected failure, told in one line; and a hint that many share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def near(name: str, known: Iterable[str]) -> str | None:
    """A hint at what may have been meant by a name that is not known."""
    close = get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]}?" if close else None


class PruneError(Exception):
    """An expected error: the command prints it as one line and exits with status 1.

    `message` says what is wrong, the value found and what is allowed, with `file:line` first where a row is at
    fault. `hint`, where given, is the next step to take. `also`: further errors found at the same time, a line each.
    """

    def __init__(self, message: str, hint: str | None = None, also: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.also = tuple(also)
