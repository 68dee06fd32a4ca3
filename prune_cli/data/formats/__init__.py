"""The formats of rows with a prompt and a response, one file each; adding a format is adding a file.

A format turns a row into a conversation: messages of a `role` and a `content`, the last of them the response by the
assistant. What stands before the response is the prompt: any number of turns, by system and tools too. A row's format
is known by what the row looks like.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from typing import Any, Protocol, cast

from prune_cli.data.problems import keys_of
from prune_cli.data.readers import Row
from prune_cli.errors import PruneError
from prune_cli.runtime import plugins


class Format(Protocol):
    """What a format's file declares."""

    @property
    def KEYS(self) -> tuple[str, ...]:
        """The keys that every row of this format has."""

    @property
    def PLAIN(self) -> bool:
        """Whether a conversation is always one prompt and one response: texts that need no chat template."""

    @property
    def EXAMPLE(self) -> Row:
        """A good row."""

    def matches(self, row: Row) -> bool:
        """Whether a row, good or bad, looks like one of this format and of no other."""

    def check(self, row: Row) -> str | None:
        """The problem of a row that has all KEYS in words, with what is allowed; None if there is none."""

    def conversation(self, row: Row) -> list[dict[str, Any]]:
        """The messages of a good row in order, each with `role` and `content`; the last is the response."""


def names() -> list[str]:
    """All formats, in order of name; none is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


@cache
def _formats() -> dict[str, Format]:
    """All formats by name, the plain ones first: messages name them in this order."""
    loaded = {name: cast(Format, plugins.load(f"{__name__}.{name}")) for name in names()}
    return dict(sorted(loaded.items(), key=lambda entry: not entry[1].PLAIN))


def of(row: Row) -> Format:
    """The format of a row. Raises PruneError, without file and line, for a row of no format or of several."""
    formats = _formats().values()
    matching = [known for known in formats if known.matches(row)]
    if not matching:
        nearest = max(formats, key=lambda known: sum(key in row for key in known.KEYS))
        raise PruneError(_lacks(nearest, row))
    chosen = matching[-1]
    others = [key for known in formats for key in known.KEYS if key in row and key not in chosen.KEYS]
    if others:
        own = next(key for key in chosen.KEYS if key in row)
        raise PruneError(f'the row has "{own}" and "{others[0]}"; allowed: {allowed()}')
    if len(matching) > 1:
        raise PruneError(f"the row looks like several formats; allowed: {allowed()}")
    if not all(key in row for key in chosen.KEYS):
        raise PruneError(_lacks(chosen, row))
    return chosen


def check(row: Row) -> str | None:
    """The problem of a row in words, with what is allowed; None if there is none."""
    try:
        return of(row).check(row)
    except PruneError as problem:
        return problem.message


def conversation(row: Row) -> list[dict[str, Any]]:
    """The messages of a good row in order, each with `role` and `content`; the last is the response."""
    return of(row).conversation(row)


def allowed(*, plain: bool = False) -> str:
    """The keys of all formats in words; plain: of those that need no chat template."""
    formats = [" and ".join(map(_quoted, known.KEYS)) for known in _formats().values() if known.PLAIN or not plain]
    return ", or ".join(filter(None, [", ".join(formats[:-1]), formats[-1]]))


def _lacks(known: Format, row: Row) -> str:
    lacking = next(key for key in known.KEYS if key not in row)
    return f"no {_quoted(lacking)}; the row has: {keys_of(row)}; allowed: {allowed()}"


def _quoted(key: str) -> str:
    return f'"{key}"'
