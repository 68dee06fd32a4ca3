"""Data files of every type, read as blocks of records with the line or row that each came from."""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from prune_cli.data import lines
from prune_cli.data.lines import Block
from prune_cli.data.lines import Row as Row  # tasks import it from here
from prune_cli.errors import PruneError
from prune_cli.runtime import processes
from prune_cli.runtime.progress import note

READABLE = ".jsonl, .json, .jsonl.gz, .csv, .tsv, .parquet, .arrow, hf:NAME[:SPLIT], or - for JSONL on stdin"
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_QUOTED = re.compile(r'"(?:[^"]|"")*"', re.DOTALL)  # a whole cell in quotation marks
RECORDS = 100  # of a table read as one block

_Numbered = Iterator[tuple[int, Row]]  # line or row number from 1, record


@dataclass(frozen=True)
class Records:
    """The records of one data file, read while `blocks` is iterated.

    `name` is what the data is called, `prefix` what messages put before the number of a line or row, and `file` the
    open file if it is plain JSONL, to which the starts of the blocks refer.
    """

    name: str
    prefix: str
    blocks: Iterator[Block]
    file: IO[bytes] | None = None


def data_name(data: str) -> str:
    """What data is called: its file's stem, the data set's name with the split asked for, or stdin."""
    if data == "-":
        return "stdin"
    if data.startswith("hf:"):
        name, _, split = data.removeprefix("hf:").partition(":")
        return Path(name).name + (f"-{split}" if split else "")
    path = Path(data)
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def open_records(data: str, fields: Mapping[str, str]) -> Records:
    """Open a data file. `fields` (name -> key) says which column of a CSV is the label.

    Raises PruneError, also while the records are read.
    """
    name, by_line, by_row = data_name(data), f"{data}:", f"{data}:row "
    if data == "-":
        if processes.count() > 1:
            raise PruneError("-: stdin is read by one process; a file that several can read is needed")
        return Records(name, "stdin:", lines.blocks(sys.stdin.buffer, "stdin:"))
    if data.startswith("hf:"):
        builder, _, split = data.removeprefix("hf:").partition(":")
        return Records(name, by_row, _blocks(_datasets(data, builder, split=split or "train")))
    path = Path(data)
    if not path.is_file():
        problem = "is not a file" if path.exists() else "there is no such file"
        raise PruneError(f"{data}: {problem}; allowed: {READABLE}")
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".arrow"):
        return Records(name, by_row, _blocks(_datasets(data, suffix[1:], split="train", data_files=data)))
    if suffix in (".csv", ".tsv"):
        return Records(name, by_line, _blocks(_csv(path, fields.get("label", "label"))))
    if path.name.lower().endswith(".jsonl.gz"):
        return Records(name, by_line, _gzip(path))
    if suffix not in (".jsonl", ".json"):
        raise PruneError(f"{data}: unknown kind of file; allowed: {READABLE}")
    if suffix == ".json" and _is_list(path):
        return Records(name, by_row, _blocks(_json_list(path)))
    file = path.open("rb")
    return Records(name, by_line, lines.blocks(file, by_line), file)


def _blocks(records: _Numbered) -> Iterator[Block]:
    """The records of a table, RECORDS at a time. An error while they are read comes after the records before it."""
    numbers: list[int] = []
    rows: list[Row] = []
    failure: Exception | None = None
    try:
        for number, row in records:
            if len(rows) == RECORDS:
                yield Block(rows, np.array(numbers, np.int64))
                numbers, rows = [], []
            numbers.append(number)
            rows.append(row)
    except Exception as error:
        failure = error
    yield Block(rows, np.array(numbers, np.int64))
    if failure is not None:
        raise failure


def _gzip(path: Path) -> Iterator[Block]:
    with gzip.open(path) as file:
        yield from lines.blocks(file, f"{path}:")


def _is_list(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1024).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _json_list(path: Path) -> _Numbered:
    data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    prefix = f"{path}:"
    for number, row in enumerate(lines.strict(lines.decoded(data, prefix, 1), prefix, 1), 1):
        yield number, lines.as_object(row, f"{path}:row {number}")


def _csv(path: Path, label: str) -> _Numbered:
    tab = path.suffix.lower() == ".tsv"
    dialect: dict[str, Any] = {"delimiter": "\t" if tab else ",", "strict": True}
    if tab and not _quoted_header(path):
        dialect["quoting"] = csv.QUOTE_NONE
    records = _table(path, dialect)
    _, header = next(records, (1, []))
    if len(set(header)) < len(header):
        raise PruneError(f"{path}:1: the header names a column twice; allowed: names that differ")
    integers = label in header and all(INTEGER.fullmatch(cells[header.index(label)]) for _, cells in records)
    records = _table(path, dialect)
    next(records, None)
    told = "quoting" not in dialect
    for number, cells in records:
        if not told and any(_QUOTED.fullmatch(cell) for cell in cells):
            note(f"{path}:{number}: quotation marks about a cell are read as text, as the header has none")
            told = True
        row: Row = dict(zip(header, cells, strict=True))
        yield number, {**row, label: int(row[label])} if integers else row


def _quoted_header(path: Path) -> bool:
    """Whether a cell of a TSV's header stands in quotation marks: only then do they mean anything in the file."""
    with path.open("rb") as file:
        header = next((line for line in _text_lines(file, f"{path}:") if line.strip()), "")
    return any(_QUOTED.fullmatch(cell) for cell in header.rstrip("\r\n").split("\t"))


def _table(path: Path, dialect: Mapping[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV or TSV, header first, each with the line it starts on.

    In a CSV a quoted cell may span lines, as RFC 4180 has it. In a TSV it may not: there a quotation mark more likely
    stands alone, and rows would be merged.
    """
    csv.field_size_limit(2**31 - 1)  # the default refuses texts over 128 KiB
    start, header = 1, None
    one_line = dialect["delimiter"] == "\t"
    with path.open("rb") as file:
        reader = csv.reader(_text_lines(file, f"{path}:"), **dialect)
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise PruneError(
                    f"{path}:{start}: broken {path.suffix[1:].upper()} ({error}); allowed: cells as RFC 4180 has them"
                ) from error
            if cells is None:
                return
            if one_line and reader.line_num > start:
                raise PruneError(
                    f"{path}:{start}: a cell spans lines {start}-{reader.line_num}; allowed: cells on one line",
                    hint="a quotation mark may stand alone; texts of several lines can be given as CSV or JSONL",
                )
            if cells:
                header = header or cells
                if len(cells) != len(header):
                    raise PruneError(f"{path}:{start}: {len(cells)} cells; allowed: {len(header)}, as in the header")
                yield start, cells
            start = reader.line_num + 1


def _text_lines(file: Iterable[bytes], prefix: str) -> Iterator[str]:
    """The lines as text, without a byte order mark."""
    for number, line in enumerate(file, 1):
        yield lines.decoded(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line, prefix, number)


def _datasets(data: str, builder: str, *, split: str, **options: str) -> _Numbered:
    import datasets

    try:
        # streaming: nothing is copied into a cache
        stream = datasets.load_dataset(builder, split=split, streaming=True, **options)
        yield from enumerate(stream, 1)
    except Exception as error:  # any library beneath `datasets` may raise its own class of errors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PruneError(f"{data}: cannot be read ({reason[:200]}); allowed: {READABLE}") from error
