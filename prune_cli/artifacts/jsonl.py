"""JSONL as artifacts hold it: one line for each row.

A line is what `json.dumps(row, ensure_ascii=False)` gives, so that files stay the same byte for byte.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

_encode = json.JSONEncoder(ensure_ascii=False).encode
_decode = msgspec.json.Decoder().decode


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write each row as one line of JSON."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(_encode(row) + "\n" for row in rows)


def write_columns(path: Path, columns: Mapping[str, Iterable[Any]]) -> None:
    """Write rows that all have the same keys, given as key -> the n values; about three times as fast.

    The columns are read side by side, so they may be iterators. Raises ValueError if one is shorter than another.
    """
    keys = (f"{_encode(key)}: ".replace("%", "%%") + "%s" for key in columns)
    line = "{" + ", ".join(keys) + "}\n"
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(map(line.__mod__, zip(*(map(_value, column) for column in columns.values()), strict=True)))


def read_jsonl(path: Path) -> Iterator[Any]:
    """The value on each line, read when it is asked for. For files that prune wrote: nothing is checked."""
    with path.open("rb") as stream:
        for line in stream:
            try:
                yield _decode(line)
            except msgspec.DecodeError:  # NaN and Infinity, which only json reads
                yield json.loads(line)


def _value(value: Any) -> str:
    """One value as JSON. `repr` is what json itself uses for numbers, without the cost of an encoder for each."""
    if (type(value) is float and math.isfinite(value)) or type(value) is int:
        return repr(value)
    return _encode(value)
