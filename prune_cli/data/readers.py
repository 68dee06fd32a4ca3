"""The kinds of data source, each as a stream of raw rows with the line or row that each came from."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from prune_cli.errors import PruneError
from prune_cli.runtime import processes

Row = dict[str, Any]
Records = Iterator[tuple[int, int, Row]]  # line or row number from 1, byte offset (JSONL only, else 0), row

SOURCES = ".jsonl, .json, .jsonl.gz, .csv, .tsv, .parquet, .arrow, hf:NAME[:SPLIT], or - for JSONL on stdin"
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")


def source_name(source: str) -> str:
    """What a source is called: its file's stem, the data set's name with the split asked for, or stdin."""
    if source == "-":
        return "stdin"
    if source.startswith("hf:"):
        name, _, split = source.removeprefix("hf:").partition(":")
        return Path(name).name + (f"-{split}" if split else "")
    path = Path(source)
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def open_source(source: str, fields: Mapping[str, str]) -> tuple[str, str, Records, IO[bytes] | None]:
    """The source's name, what messages put before a number, its records, and the open file if plain JSONL.

    Raises PruneError, also while the records are read.
    """
    name, lines, rows = source_name(source), f"{source}:", f"{source}:row "
    if source == "-":
        if processes.count() > 1:
            raise PruneError("-: stdin is read by one process; a file that several can read is needed")
        return name, "stdin:", _jsonl(sys.stdin.buffer, "stdin:"), None
    if source.startswith("hf:"):
        builder, _, split = source.removeprefix("hf:").partition(":")
        return name, rows, _datasets(source, builder, split=split or "train"), None
    path = Path(source)
    if not path.is_file():
        problem = "is not a file" if path.exists() else "there is no such file"
        raise PruneError(f"{source}: {problem}; allowed: {SOURCES}")
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".arrow"):
        return name, rows, _datasets(source, suffix[1:], split="train", data_files=source), None
    if suffix in (".csv", ".tsv"):
        delimiter = "," if suffix == ".csv" else "\t"
        return name, lines, _csv(path, delimiter, fields.get("label", "label")), None
    if path.name.lower().endswith(".jsonl.gz"):
        return name, lines, _gzip(path), None
    if suffix not in (".jsonl", ".json"):
        raise PruneError(f"{source}: unknown kind of file; allowed: {SOURCES}")
    if suffix == ".json" and _is_list(path):
        return name, rows, _json_list(path), None
    file = path.open("rb")
    return name, lines, _jsonl(file, lines), file


def _gzip(path: Path) -> Records:
    with gzip.open(path) as file:
        yield from _jsonl(file, f"{path}:")


def _is_list(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1024).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _jsonl(file: Iterable[bytes], prefix: str) -> Records:
    for number, start, line in _lines(file, prefix):
        if line.strip(" \t\r\n"):
            value = _parse(line.rstrip("\r\n"), prefix, number)  # or an error at the end counts as the next line's
            yield number, start, _object(value, f"{prefix}{number}")


def _json_list(path: Path) -> Records:
    data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    for number, row in enumerate(_parse(_decode(data, f"{path}:", 1), f"{path}:", 1), 1):
        yield number, 0, _object(row, f"{path}:row {number}")


def _csv(path: Path, delimiter: str, label: str) -> Records:
    records = _table(path, delimiter)
    _, header = next(records, (1, []))
    if len(set(header)) < len(header):
        raise PruneError(f"{path}:1: the header names a column twice; allowed: names that differ")
    integers = label in header and all(INTEGER.fullmatch(cells[header.index(label)]) for _, cells in records)
    records = _table(path, delimiter)
    next(records, None)
    for number, cells in records:
        row: Row = dict(zip(header, cells, strict=True))
        yield number, 0, {**row, label: int(row[label])} if integers else row


def _table(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV, header first, each with the line it starts on."""
    csv.field_size_limit(2**31 - 1)  # the default refuses texts over 128 KiB
    start, header = 1, None
    with path.open("rb") as file:
        reader = csv.reader((line for _, _, line in _lines(file, f"{path}:")), delimiter=delimiter, strict=True)
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise PruneError(
                    f"{path}:{start}: broken CSV ({error}); allowed: cells as RFC 4180 has them"
                ) from error
            if cells is None:
                return
            if cells:
                header = header or cells
                if len(cells) != len(header):
                    raise PruneError(f"{path}:{start}: {len(cells)} cells; allowed: {len(header)}, as in the header")
                yield start, cells
            start = reader.line_num + 1


def _datasets(source: str, builder: str, *, split: str, **options: str) -> Records:
    import datasets

    try:
        # streaming: nothing is copied into a cache
        stream = datasets.load_dataset(builder, split=split, streaming=True, **options)
        for number, row in enumerate(stream, 1):
            yield number, 0, row
    except Exception as error:  # any library beneath `datasets` may raise its own kind
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PruneError(f"{source}: cannot be read ({reason[:200]}); allowed: {SOURCES}") from error


def _lines(file: Iterable[bytes], prefix: str) -> Iterator[tuple[int, int, str]]:
    """Each line's number from 1, the byte it starts on (past a byte order mark) and its text."""
    start = 0
    for number, line in enumerate(file, 1):
        mark = len(codecs.BOM_UTF8) if number == 1 and line.startswith(codecs.BOM_UTF8) else 0
        yield number, start + mark, _decode(line[mark:], prefix, number)
        start += len(line)


def _decode(data: bytes, prefix: str, line: int) -> str:
    """`data`, which starts on `line`, as text."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        at = error.start
        line, column = line + data.count(b"\n", 0, at), at - data.rfind(b"\n", 0, at)
        raise PruneError(
            f"{prefix}{line}: byte {column} of the line, {data[at]:#04x}, is not UTF-8; allowed: UTF-8"
        ) from error


def _parse(text: str, prefix: str, line: int) -> Any:
    """The JSON value of `text`, which starts on `line`."""
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError as error:
        line, column = line + error.lineno - 1, error.colno
        raise PruneError(
            f"{prefix}{line}: broken JSON at column {column} ({error.msg}); allowed: one JSON object a line"
        ) from error
    except (ValueError, RecursionError) as error:
        raise PruneError(f"{prefix}{line}: broken JSON ({error}); allowed: one JSON object a line") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return row


_decoder = json.JSONDecoder(object_pairs_hook=_unique_keys)


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a number, true or false")
        raise PruneError(f"{where}: the row is {kind}; allowed: a JSON object")
    return value
