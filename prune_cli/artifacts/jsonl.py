"""JSONL as artifacts hold it: one line for each row.

A line is what `json.dumps(row, ensure_ascii=False)` gives, so that files stay the same byte for byte.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

import msgspec

_encode = json.JSONEncoder(ensure_ascii=False).encode
_decode = msgspec.json.Decoder().decode


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write each row as one line of JSON."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(_encode(row) + "\n" for row in rows)


def write_columns(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write rows that all have the same keys, given as key -> the n values; several times as fast as row by row.

    Raises ValueError if one column is shorter than another.
    """
    keys = (f"{_encode(key)}: ".replace("%", "%%") + "%s" for key in columns)
    line = "{" + ", ".join(keys) + "}\n"
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(map(line.__mod__, zip(*map(_texts, columns.values()), strict=True)))


def read_jsonl(path: Path) -> Iterator[Any]:
    """The value on each line, read when it is asked for. For files that prune wrote: nothing is checked."""
    with path.open("rb") as stream:
        for line in stream:
            try:
                yield _decode(line)
            except msgspec.DecodeError:  # NaN and Infinity, which only json reads
                yield json.loads(line)


def _texts(column: Sequence[Any]) -> Iterator[str]:
    """The values of a column as JSON: by one C function where all are of one type, as they mostly are."""
    types = set(map(type, column))
    if types == {str}:
        return map(encode_basestring, column)
    if types == {int} or (types == {float} and all(map(math.isfinite, column))):
        return map(repr, column)  # which is what json itself uses for numbers
    if types <= {bool, type(None)} or types <= {int, type(None)}:  # not both: to a dict True and 1 are one key
        return map({value: _encode(value) for value in set(column)}.__getitem__, column)
    return map(_encode, column)
