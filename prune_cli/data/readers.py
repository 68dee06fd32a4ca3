"""Data files of every type, read as blocks of records with the line or row that each came from."""

from __future__ import annotations

import codecs
import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from prune_cli.data import delimited, lines, packed, typed
from prune_cli.data.lines import Block, Broken
from prune_cli.data.lines import Row as Row  # tasks import it from here
from prune_cli.data.sources import HUB, READABLE, STDIN, files_of, folder_of, hub_parts, is_pattern
from prune_cli.errors import PruneError
from prune_cli.runtime import processes

TABLES = ("csv", "tsv")
JSONL = ("jsonl", "ndjson", "json")  # a .json that begins with [ is one list
TYPED = {"parquet": typed.parquet, "arrow": typed.arrow}
RECORDS = 100  # of a table read as one block

_Numbered = Iterator[tuple[int, Row | Broken]]  # line or row number from 1, record


@dataclass(frozen=True)
class Records:
    """The records of one file, read while `blocks` is iterated.

    `prefix` is what messages put before the number of a line or row, and `file` the open file if it is plain JSONL, to
    which the starts of the blocks refer.
    """

    prefix: str
    blocks: Iterator[Block]
    file: IO[bytes] | None = None


def open_records(data: str, fields: Mapping[str, str]) -> list[Records]:
    """Open data, which may be several files. `fields` (name -> key) says which column of a CSV is the label.

    Raises PruneError, also while the records are read.
    """
    if data == STDIN:
        if processes.count() > 1:
            raise PruneError("-: stdin is read by one process; a file that several can read is needed")
        return [Records("stdin:", lines.blocks(sys.stdin.buffer, "stdin:"))]
    if data.startswith(HUB):
        return [_typed(data, lambda: typed.hub(*hub_parts(data)))]
    if folder := folder_of(data):
        return [_typed(data, lambda: typed.saved(*folder))]
    files = files_of(data)
    if not files:
        problem = "is not a file" if Path(data).exists() else "there is no such file"
        problem = "no file has such a name" if is_pattern(data) else problem
        raise PruneError(f"{data}: {problem}; allowed: {READABLE}")
    for path in files:
        if packed.kind(path) not in (*TABLES, *JSONL) and not _is_typed(path) and not _is_bare(path):
            raise PruneError(f"{path}: unknown kind of file; allowed: {READABLE}")
    label = fields.get("label", "label")
    tables = [(path, packed.kind(path)) for path in files if packed.kind(path) in TABLES]
    integers = functools.cache(lambda: all(delimited.whole_numbers(*table, label) for table in tables))
    return [_open(path, label, integers, alone=len(files) == 1) for path in files]


def _open(path: Path, label: str, integers: Callable[[], bool], *, alone: bool) -> Records:
    """Open one file. integers: whether the labels of tables are integers: only if those of all the tables are.

    alone: whether it is the only one; several are opened one after the other.
    """
    kind, by_line, by_row = packed.kind(path), f"{path}:", f"{path}:row "
    if _is_typed(path):
        return _typed(str(path), lambda: TYPED[kind](path))
    if kind in TABLES:
        return Records(by_line, _blocks(_table(path, kind, label, integers)))
    if kind == "json" and _is_list(path):
        return Records(by_row, _blocks(_json_list(path)))
    if packed.packing(path) or not alone:
        return Records(by_line, _unpacked(path))
    file = path.open("rb")
    return Records(by_line, lines.blocks(file, by_line), file)


def _table(path: Path, kind: str, label: str, integers: Callable[[], bool]) -> _Numbered:
    yield from delimited.records(path, kind, label, integers=integers())


def _is_typed(path: Path) -> bool:
    return packed.kind(path) in TYPED and not packed.packing(path)


def _is_bare(path: Path) -> bool:
    """Whether it is JSONL in a packed file whose name does not say so: `00.zst`."""
    return bool(packed.packing(path)) and not packed.kind(path)


def _typed(data: str, read: Callable[[], Iterable[Row]]) -> Records:
    def rows() -> _Numbered:
        try:
            yield from enumerate(read(), 1)
        except PruneError as error:
            raise PruneError(f"{data}: {error.message}") from error
        except Exception as error:  # any library beneath may raise its own class of errors
            reason = " ".join(str(error).split()) or type(error).__name__
            raise PruneError(f"{data}: cannot be read ({reason[:200]}); allowed: {READABLE}") from error

    return Records(f"{data}:row ", _blocks(rows(), typed=True))


def _blocks(records: _Numbered, *, typed: bool = False) -> Iterator[Block]:
    """The records of a table, RECORDS at a time. An error while they are read comes after the records before it."""
    numbers: list[int] = []
    rows: list[Row | Broken] = []
    failure: Exception | None = None
    try:
        for number, row in records:
            if len(rows) == RECORDS:
                yield Block(rows, np.array(numbers, np.int64), typed=typed)
                numbers, rows = [], []
            numbers.append(number)
            rows.append(row)
    except Exception as error:
        failure = error
    yield Block(rows, np.array(numbers, np.int64), typed=typed)
    if failure is not None:
        raise failure


def _unpacked(path: Path) -> Iterator[Block]:
    with packed.opened(path) as file:
        yield from lines.blocks(file, f"{path}:")


def _is_list(path: Path) -> bool:
    with packed.opened(path) as file:
        return file.read(1024).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _json_list(path: Path) -> _Numbered:
    with packed.opened(path) as file:
        data = file.read().removeprefix(codecs.BOM_UTF8)
    prefix = f"{path}:"
    for number, row in enumerate(lines.strict(lines.decoded(data, prefix, 1), prefix, 1), 1):
        try:
            yield number, lines.as_object(row, f"{path}:row {number}")
        except PruneError as error:
            yield number, Broken(error, json.dumps(row, ensure_ascii=False))
