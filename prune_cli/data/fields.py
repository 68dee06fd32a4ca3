"""Names under which keys of the rows are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import chain, islice

from prune_cli.data import formats, problems
from prune_cli.data.readers import Row, open_records
from prune_cli.data.sources import STDIN
from prune_cli.errors import PruneError

# name -> the key that is read under it, or several, of which the first that the data have is, if any
Fields = Mapping[str, str | Sequence[str]]


def parse_fields(pairs: Iterable[str]) -> dict[str, str | tuple[str, ...]]:
    """`["text=sentence", "text=review", "label=y"]` -> {"text": ("sentence", "review"), "label": "y"}.

    Raises PruneError.
    """
    fields: dict[str, tuple[str, ...]] = {}
    for pair in pairs:
        new, equals, old = (part.strip() for part in pair.partition("="))
        if not (new and equals and old):
            raise PruneError(f"field: {pair}; allowed: NAME=KEY, as in text=sentence")
        known = _known()
        if new not in known and old not in known and (meant := get_close_matches(new, known, 1, 0.8)):
            raise PruneError(f"field: {pair}; no key is read as {new}; did you mean {meant[0]}?")
        if any(old in keys for keys in fields.values()):
            raise PruneError(f"field: {pair}; allowed: each key once")
        fields[new] = (*fields.get(new, ()), old)
    return {name: keys if len(keys) > 1 else keys[0] for name, keys in fields.items()}


@cache
def _known() -> tuple[str, ...]:
    """Names under which rows are read. Another task may know more: a name that is near none of these is let through."""
    return ("id", "group", *problems.NAMES, *chain.from_iterable(map(formats.keys, formats.names())))


def pairs_of(fields: Fields) -> Iterator[tuple[str, str]]:
    """Each name with each of its keys."""
    for name, keys in fields.items():
        yield from ((name, key) for key in ((keys,) if isinstance(keys, str) else keys))


def settled(data: str, fields: Fields) -> dict[str, str]:
    """The key that is read under each name in `data`: of several the first that its first rows have, if any.

    Raises PruneError where there are several and the rows are on standard input, which can be read but once.
    """
    keys: dict[str, list[str]] = {}
    for name, key in pairs_of(fields):
        keys.setdefault(name, []).append(key)
    if any(len(several) > 1 for several in keys.values()):
        if data == STDIN:
            told = ", ".join(f"{name}={key}" for name, key in pairs_of(fields))
            raise PruneError(f"field: {told}; allowed for rows on standard input: one key for each name")
        held = {key for row in first_rows(data) for key in row}
        keys = {
            name: several if len(several) == 1 else [key for key in several if key in held]
            for name, several in keys.items()
        }
    return {name: several[0] for name, several in keys.items() if several and several[0] != name}


def first_rows(data: str, count: int = 100) -> list[Row]:
    """The first rows of data, at most `count`; what is no row is left out. Raises PruneError."""
    parts = open_records(data, {})
    try:
        blocks = chain.from_iterable(block.rows for block in parts[0].blocks)
        return [row for row in islice(blocks, count) if isinstance(row, dict)]
    finally:
        if parts[0].file:
            parts[0].file.close()
