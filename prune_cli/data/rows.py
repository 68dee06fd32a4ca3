"""Read, check and write examples: JSONL, JSON, CSV, TSV, Parquet, Arrow, hub names and stdin.

One streaming pass at opening checks every row; afterwards a row is parsed when it is asked for, so that
memory does not grow with the texts. A row that breaks a rule is an error that names it: none is ever dropped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zlib
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, overload

import numpy as np

from prune_cli.data.readers import SOURCES, Row, open_source
from prune_cli.errors import PruneError

KINDS: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "string",
    list: "list",
    dict: "object",
}


@dataclass(frozen=True, eq=False, repr=False)
class Rows(Sequence[Row]):
    """n checked rows on disk, each parsed when asked for, in the order of their source.

    `name` is the source's file stem, `ids` the n ids (the line number where a row has none), and `digest` the
    sha256 of what `write` writes: the same rows have the same digest from a file, from stdin or compressed.
    Reading a row raises PruneError where the file was changed after it was checked.
    """

    name: str
    ids: list[int | str]
    digest: str
    _prefix: str  # what messages put before the number of a line or row
    _file: IO[bytes]
    _stamp: tuple[int, int]
    _offsets: np.ndarray  # int64 [n + 1], bytes
    _numbers: np.ndarray  # int64 [n], lines or rows from 1
    _renames: Mapping[str, str]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """Row `index` with renames applied and `id` filled in; a slice gives a list of rows."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        i = range(len(self))[index]
        if _stamp(self._file) != self._stamp:
            raise PruneError(f"{self.where(i)}: the file was changed while in use; allowed: an unchanged file")
        start, end = int(self._offsets[i]), int(self._offsets[i + 1])
        row = json.loads(os.pread(self._file.fileno(), end - start, start).decode())
        row = _renamed(row, self._renames)
        row.setdefault("id", int(self._numbers[i]))
        return row

    def __del__(self) -> None:
        """Close the file."""
        self._file.close()

    def where(self, i: int) -> str:
        """The place of row `i` for messages: `data.jsonl:7`, or `data.parquet:row 7` without lines."""
        return f"{self._prefix}{self._numbers[i]}"

    def write(self, path: str | Path, positions: Iterable[int] | None = None) -> None:
        """Write the rows, or those at `positions` in that order, as JSONL.

        A row keeps its keys and their order; an `id` that it did not have comes last.
        """
        with Path(path).open("wb") as out:
            out.writelines(_line(self[i]) for i in (range(len(self)) if positions is None else positions))


def read_rows(source: str | Path, fields: Mapping[str, str] = {}, *, check: Callable[[Row], str | None] | None) -> Rows:
    """Open `source` and check all of its rows in one pass.

    `source` is a file (.jsonl, .json, .jsonl.gz, .csv, .tsv, .parquet, .arrow), `hf:NAME[:SPLIT]` (`train` if not
    given) or `-` for JSONL on stdin. `fields` {"text": "sentence"} reads the key `sentence` as `text`. `check`
    is the task's: the problem of a row in words, or None. Blank lines are no rows but count as lines. In CSV and
    TSV every cell is a string, but a label column that holds integers alone is read as integers.

    Raises PruneError, with file:line where a row is at fault.
    """
    renames = {old: new for new, old in fields.items()}
    ids: list[int | str] = []
    numbers, offsets, end = array("q"), array("q"), 0
    digest = hashlib.sha256()
    label_type: type | None = None
    with contextlib.ExitStack() as stack:
        try:
            name, prefix, records, own = open_source(str(source), fields)
            store = stack.enter_context(own) if own else stack.enter_context(tempfile.TemporaryFile())
            before = _stamp(store)
            for number, start, raw in records:
                row = _renamed(raw, renames)
                problem = _key_problem(raw, row, renames) or (check(row) if check else None)
                if not problem and "label" in row:
                    label_type = label_type or type(row["label"])
                    problem = _label_problem(row["label"], label_type)
                if problem:
                    raise PruneError(f"{prefix}{number}: {problem}")
                row.setdefault("id", number)
                try:
                    line = _line(row)
                except (TypeError, ValueError):
                    raise PruneError(f"{prefix}{number}: {_value_problem(row)}") from None
                digest.update(line)
                ids.append(row["id"])
                numbers.append(number)
                offsets.append(start if own else end)
                if not own:
                    end += store.write(line)
            store.flush()
        except (OSError, EOFError, zlib.error) as error:
            raise PruneError(f"{source}: cannot be read ({error}); allowed: {SOURCES}") from error
        if own and _stamp(own) != before:
            raise PruneError(f"{source}: the file was changed while it was read; allowed: an unchanged file")
        if not ids:
            raise PruneError(f"{prefix}1: no rows; allowed: at least one row")
        _check_unique(ids, numbers, prefix)
        offsets.append(os.fstat(store.fileno()).st_size)
        stack.pop_all()  # the store stays open: Rows closes it
    places = np.array(offsets, dtype=np.int64), np.array(numbers, dtype=np.int64)
    return Rows(name, ids, digest.hexdigest(), prefix, store, _stamp(store), *places, renames if own else {})


def parse_fields(pairs: Iterable[str]) -> dict[str, str]:
    """`["text=sentence"]` -> {"text": "sentence"}, the key `sentence` read as `text`. Raises PruneError."""
    fields: dict[str, str] = {}
    for pair in pairs:
        new, equals, old = (part.strip() for part in pair.partition("="))
        if not (new and equals and old):
            raise PruneError(f"field: {pair}; allowed: NAME=KEY, as in text=sentence")
        if new in fields or old in fields.values():
            raise PruneError(f"field: {pair}; allowed: each name and each key once")
        fields[new] = old
    return fields


def keys_of(row: Row) -> str:
    """The keys of a row for a message, on one line."""
    return ", ".join(json.dumps(key, ensure_ascii=False) for key in row)


def described(key: str, value: object) -> str:
    """A bad value in words, on one line: `label 1.0 is a float`, `text is null`."""
    if value is None:
        return f"{key} is null"
    kind = KINDS.get(type(value), type(value).__name__)
    shown = json.dumps(value, ensure_ascii=False, default=str)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return f"{key} {shown} is {'an' if kind[0] in 'aeio' else 'a'} {kind}"


def _stamp(file: IO[bytes]) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _renamed(row: Row, renames: Mapping[str, str]) -> Row:
    return {renames.get(key, key): value for key, value in row.items()} if renames else row


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _line(row: Row) -> bytes:
    """The row as `write` and `digest` have it."""
    return (_encode(row) + "\n").encode()


def _key_problem(raw: Row, row: Row, renames: Mapping[str, str]) -> str | None:
    """What is wrong with the renaming of `raw` to `row`, or with the keys that every task has."""
    for old, new in renames.items():
        if old not in raw:
            return f'no key "{old}" to read as "{new}"; the row has: {keys_of(raw)}'
        if new in raw and new not in renames:
            return f'both "{old}" and "{new}"; allowed: one of them, as "{old}" is read as "{new}"'
    for key in ("id", "group"):
        if key in row and type(row[key]) not in (int, str):
            return f"{described(key, row[key])}; allowed: an integer or a string"
        if not str(row.get(key, key)).strip():
            return f"{key} is blank; allowed: an integer or a string that is not blank"
    return None


def _label_problem(label: object, first: type) -> str | None:
    """What is wrong with a label whose type is not that of the first row's."""
    if type(label) is first:
        return None
    kinds = f"the rows before it have {KINDS.get(first, 'null')} labels; allowed: all integers or all strings"
    return f"{described('label', label)}, but {kinds}"


def _value_problem(row: Row) -> str:
    """Why the row cannot be written as JSON, by the first key at fault."""
    for key, value in row.items():
        try:
            _line({key: value})
        except UnicodeEncodeError:
            return f"{key} holds half of a surrogate pair; allowed: Unicode text"
        except TypeError:
            return f"{described(key, value)}; allowed: text, numbers, true, false, null, lists and objects"
        except ValueError:
            return f"{key} holds NaN or Infinity; allowed: finite numbers"
    raise AssertionError("called for a row that can be written")


def _check_unique(ids: Sequence[int | str], numbers: Sequence[int], prefix: str) -> None:
    """Raise PruneError if two ids are equal as strings. Hashes first: a set of a million strings is dear."""
    hashes = np.fromiter((hash(str(row_id)) for row_id in ids), np.int64, len(ids))
    if len(np.unique(hashes)) == len(ids):
        return
    seen: dict[str, int] = {}
    for row_id, number in zip(ids, numbers, strict=True):
        first = seen.setdefault(str(row_id), number)
        if first != number:
            problem = f"id {json.dumps(row_id)} is that of {prefix}{first} too; allowed: ids that differ"
            raise PruneError(f"{prefix}{number}: {problem}", hint="a row without an id gets its line number")
