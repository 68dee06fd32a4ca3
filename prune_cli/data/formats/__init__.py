"""The formats of rows for language models, one file each; adding a format is adding a file.

A format turns a row into a conversation (_conversation.py): messages, the last of them the response by the assistant,
or a text that goes on where a prompt ends. All rows of a file are of one format, known by what the rows look like, or
given by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol, cast

from prune_cli.errors import PruneError
from prune_cli.runtime import plugins

if TYPE_CHECKING:  # the command line's help lists the formats, so this module needs no library
    from prune_cli.data.formats._conversation import Conversation
    from prune_cli.data.lines import Row

AUTO = "auto"


class Format(Protocol):
    """What a format's file declares.

    Beside it, where it must be asked for, `unasked(row)`: why, or None; where a row's response can be exchanged for
    another's, RESPONSE: the key that holds the response, or a list that ends with it.
    """

    @property
    def KEYS(self) -> tuple[str, ...]:
        """The keys that every row of this format has."""

    @property
    def BESIDE(self) -> tuple[str, ...]:
        """Keys of other formats that its rows may have too."""

    @property
    def EXAMPLE(self) -> Row:
        """A good row."""

    def matches(self, row: Row) -> bool:
        """Whether a row, good or bad, looks like one of this format."""

    def check(self, row: Row) -> str | None:
        """The problem of a row that has all KEYS in words, with what is allowed; None if there is none."""

    def conversation(self, row: Row) -> Conversation:
        """What a good row says."""


@dataclass(frozen=True)
class Check:
    """The problem of a row as one of the format `name`. asked: the format was given, whatever the rows look like."""

    name: str
    asked: bool

    def __call__(self, row: Row) -> str | None:
        """The problem in words, with what is allowed; None if there is none.

        Raises PruneError, as `detected` does, where the format was not given.
        """
        known = load(self.name)
        if not self.asked:
            found = detected(row)
            if found != self.name:
                told = f"a row of the format {found}, after rows of {self.name}; allowed: rows of one format"
                way_out = (
                    f"write all in one format; --format {self.name} or {found} with --skip-bad FILE keeps those alone"
                )
                raise PruneError(told, hint=way_out)
        elif not all(key in row for key in known.KEYS):
            return _lacks(self.name, row)
        return known.check(row)


def names() -> list[str]:
    """All formats, in order of name; none is imported."""
    return plugins.names(__path__)


@cache
def load(name: str) -> Format:
    """The format `name`. Raises PruneError for an unknown one."""
    if name not in names():
        raise PruneError(f"format: {name}; allowed: {', '.join([AUTO, *names()])}")
    return cast(Format, plugins.load(f"{__name__}.{name}"))


def detected(row: Row) -> str:
    """The format that a row looks like. Raises PruneError, without file and line, for none, several or an unasked one.

    Where a row looks like several it is of the one whose rows may have the keys of the others too.
    """
    formats = {name: load(name) for name in names()}
    matching = [name for name, known in formats.items() if known.matches(row)]
    if not matching:
        nearest = max(
            formats, key=lambda name: (sum(key in row for key in formats[name].KEYS), name == "prompt_response")
        )
        raise PruneError(_lacks(nearest, row))
    held = [key for key in _all_keys(tuple(formats)) if key in row]
    strange = {name: [key for key in held if key not in keys(name)] for name in matching}
    found = next((name for name in matching if not strange[name]), None)
    if found is None:
        name = matching[0]
        own = next(key for key in formats[name].KEYS if key in row)
        raise PruneError(
            f'the row has "{own}" and "{strange[name][0]}"; allowed: the keys of one format: {allowed()}',
            hint=f"{' or '.join(f'--format {name}' for name in matching)} says how to read it",
        )
    if not all(key in row for key in formats[found].KEYS):
        raise PruneError(_lacks(found, row))
    unasked: Callable[[Row], str | None] | None = getattr(formats[found], "unasked", None)
    if unasked and (reason := unasked(row)):
        raise PruneError(f"{reason}; allowed: --format {found} to read it so", hint=f"--format {found}")
    return found


def check(row: Row) -> str | None:
    """The problem of a row by itself in words, with what is allowed; None if there is none."""
    try:
        return load(detected(row)).check(row)
    except PruneError as problem:
        return problem.message


def conversation(row: Row, name: str = AUTO) -> Conversation:
    """What a good row says, read as one of the format `name`."""
    return load(detected(row) if name == AUTO else name).conversation(row)


def exchanged(row: Row, other: Row, name: str) -> Row:
    """The key of a row that changes for it to have the response of another row, and its value then.

    It is what it was where the responses are equal or of two kinds. Raises PruneError for a format without RESPONSE.
    """
    key = getattr(load(name), "RESPONSE", None)
    if key is None:
        able = [known for known in names() if hasattr(load(known), "RESPONSE")]
        raise PruneError(f"rows of the format {name} have no response to exchange; allowed: {', '.join(able)}")
    own, others = row[key], other[key]
    if isinstance(own, list) and isinstance(others, list):
        return {key: [*own[:-1], others[-1]]}
    return {key: others if type(own) is type(others) else own}


def allowed() -> str:
    """The keys of all formats in words."""
    quoted = [" and ".join(f'"{key}"' for key in load(name).KEYS) for name in names()]
    return f"{', '.join(quoted[:-1])}, or {quoted[-1]}"


@cache
def _all_keys(formats: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for name in formats for key in load(name).KEYS))


def keys(name: str) -> tuple[str, ...]:
    """The keys that a row of a format may have."""
    return (*load(name).KEYS, *load(name).BESIDE)


def _lacks(name: str, row: Row) -> str:
    from prune_cli.data.problems import keys_of

    lacking = next(key for key in load(name).KEYS if key not in row)
    return f'no "{lacking}"; the row has: {keys_of(row)}; allowed: {allowed()}'
