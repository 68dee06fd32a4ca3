"""The kept rows of a selection, as they are written for others: in their own keys, columns of why.jsonl behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from prune_cli.artifacts.jsonl import write_jsonl
from prune_cli.data import formats
from prune_cli.data.formats._conversation import Conversation
from prune_cli.data.lines import Row, parse
from prune_cli.data.problems import encode
from prune_cli.errors import PruneError
from prune_cli.runtime.progress import note

BEFORE = {"preference": ("prompt",)}  # read too where rows have it
FILE = "kept"  # the stem of the file that holds the rows


@dataclass(frozen=True)
class Kept:
    """The kept rows, n of them, on the lines of the file `path`.

    task, format, fields (name -> key): how the rows were read. columns: name -> n values, put behind each row's own
    keys. nested: what becomes of lists and objects where a table has no place for them: `refuse` or `json`. about: how
    the rows were chosen, in words, for a card.
    """

    path: Path
    n: int
    task: str
    format: str | None
    fields: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    nested: str = "refuse"
    about: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> Iterator[bytes]:
        """The rows as JSON, byte for byte as they came but for the columns."""
        names = [encode(name) for name in self.columns]
        with self.path.open("rb") as file:
            for i, line in enumerate(file):
                text = line.rstrip(b"\r\n")
                if names:
                    values = zip(names, self.columns.values(), strict=True)
                    more = ", ".join(f"{name}: {encode(column[i])}" for name, column in values)
                    text = text.rstrip().removesuffix(b"}") + f", {more}}}".encode()
                yield text

    def rows(self) -> Iterator[Row]:
        """The rows under their own keys. Raises PruneError for one that has a column's key."""
        with self.path.open("rb") as file:
            for i, line in enumerate(file):
                row = parse(line)
                for name, column in self.columns.items():
                    if name in row:
                        told = f"{self.where(i)}: the row has a key {name} of its own; allowed: columns that no row has"
                        raise PruneError(told, hint=f"--why without {name}, or prune select with --drop {name}")
                    row[name] = column[i]
                yield row

    def read(self) -> Iterator[Row]:
        """The rows under the names that their keys are read as."""
        names = {key: name for name, key in self.fields.items()}
        return ({names.get(key, key): value for key, value in row.items()} for row in self.rows())

    def conversations(self) -> Iterator[Conversation]:
        """What the rows say."""
        assert self.format
        for row in self.read():
            yield formats.conversation(row, self.format)

    def key(self, name: str) -> str:
        """The key that the rows have for a name."""
        return self.fields.get(name, name)

    def has(self, name: str) -> bool:
        """Whether any row has something under a name."""
        return self.key(name) in self._filled

    @cached_property
    def _filled(self) -> set[str]:
        """The keys under which any row has something."""
        return {key for row in self.rows() for key, value in row.items() if value is not None}

    def where(self, i: int) -> str:
        """The place of a row, for messages."""
        return f"{self.path}:{i + 1}"

    def write_lines(self, folder: Path) -> str:
        """Write the rows as JSONL; returns the file's name."""
        _check_columns(self)
        with (folder / f"{FILE}.jsonl").open("wb") as out:
            out.writelines(line + b"\n" for line in self.lines())
        return f"{FILE}.jsonl"

    def check_format(self, trainer: str) -> str:
        """The format of the rows. Raises PruneError where they have none: a trainer of language models needs one."""
        if self.format is None:
            told = f"for: {trainer}; the rows are of the task {self.task}, and it trains language models"
            raise PruneError(f"{told}; allowed: csv, datasets, jsonl, parquet")
        return self.format


def write_converted(rows: Iterable[Row], folder: Path) -> str:
    """Write rows that were brought into another format; returns the file's name."""
    write_jsonl(folder / f"{FILE}.jsonl", rows)
    return f"{FILE}.jsonl"


def tell_rows(kept: Kept, numbers: Sequence[int], what: str) -> None:
    """Tell how many rows something is to be known of, and the first of them."""
    if numbers:
        note(f"export: {len(numbers):,} of {kept.n:,} rows {what}; the first is {kept.where(numbers[0])}")


def tell_replaced(kept: Kept, made: Iterable[str], rows: Iterable[Row], key: Callable[[str], str]) -> None:
    """Tell which keys that nothing was read from make room for those that the rows are converted to.

    key: of the name of what is read, the key that `rows` have for it.
    """
    assert kept.format
    read = {key(name) for name in (*formats.load(kept.format).KEYS, *BEFORE.get(kept.format, ()))}
    own = {key for row in rows for key, value in row.items() if value is not None}
    if lost := [key for key in made if key in own - read]:
        note(f"export: the rows' own {', '.join(lost)} makes room for what they are converted to")


def _check_columns(kept: Kept) -> None:
    """Raise PruneError where a row has a column's key."""
    if kept.columns:
        for _ in kept.rows():
            pass
