"""JSON rows as a Parquet file: each column gets the one type that holds all of its values as they are.

A list is a list and an object a struct where all objects in that place have the same keys. What has no such type,
objects of differing keys or values of differing types, is of Parquet's type JSON, which the library datasets (4.7 and
later) reads as the values that they were: as a struct every object would get every other's keys, filled with null.
A key that a row lacks is null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_cli.data.lines import Row
from prune_cli.data.problems import encode
from prune_cli.runtime.progress import note

if TYPE_CHECKING:
    import pyarrow

TRAIN = "train.parquet"  # the name tells the library datasets the split
AT_ONCE = 1000  # rows of a row group
EXACT = 2**53  # up to here a float holds every whole number
LONGEST = 2**63


@dataclass(frozen=True)
class Type:
    """The type of some values. kind: null, bool, int, long (a float does not hold it), float, text, list, object, json.

    inner: of a list the type of its entries, under the key "", of an object the type of each key.
    """

    kind: str
    inner: dict[str, Type] | None = None


NULL, JSON = Type("null"), Type("json")


def write_parquet(rows: Callable[[], Iterable[Row]], path: Path) -> None:
    """Write rows, which are read twice: first for the types."""
    import pyarrow
    import pyarrow.parquet

    types: dict[str, Type] = {}
    for row in rows():
        for key, value in row.items():
            types[key] = merged(types.get(key, NULL), type_of(value))
    mixed = [key for key, kind in types.items() if _holds_json(kind)]
    if mixed:
        note(f"export: {', '.join(mixed)}: of differing types or keys, so of Parquet's type JSON in the table")
    stored, schema = (
        pyarrow.schema([(key, _arrow(kind, json)) for key, kind in types.items()])
        for json in (pyarrow.string(), pyarrow.json_())
    )
    with pyarrow.parquet.ParquetWriter(path, schema) as out:
        for some in _parts(rows()):
            cells = [{key: _cell(row.get(key), kind) for key, kind in types.items()} for row in some]
            out.write_table(pyarrow.Table.from_pylist(cells, schema=stored).cast(schema))


def type_of(value: Any) -> Type:
    """The type of one value."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return Type("bool")
    if isinstance(value, int):
        return Type("int" if abs(value) <= EXACT else "long") if -LONGEST <= value < LONGEST else JSON
    if isinstance(value, float):
        return Type("float")
    if isinstance(value, str):
        return Type("text")
    if isinstance(value, list):
        return Type("list", {"": reduce(merged, map(type_of, value), NULL)})
    return Type("object", {key: type_of(entry) for key, entry in value.items()}) if value else JSON


def merged(one: Type, other: Type) -> Type:
    """The type of values of two types."""
    if one == other or other == NULL:
        return one
    if one == NULL:
        return other
    kinds = {one.kind, other.kind}
    if len(kinds) == 1 and one.inner and other.inner and one.inner.keys() == other.inner.keys():
        return Type(one.kind, {key: merged(kind, other.inner[key]) for key, kind in one.inner.items()})
    if kinds == {"int", "float"}:
        return Type("float")
    return Type("long") if kinds == {"int", "long"} else JSON


def _holds_json(kind: Type) -> bool:
    return kind == JSON or any(map(_holds_json, (kind.inner or {}).values()))


def _arrow(kind: Type, json: pyarrow.DataType) -> pyarrow.DataType:
    """The type in Arrow; json: what stands for JSON."""
    import pyarrow

    if kind.kind == "list":
        return pyarrow.list_(_arrow((kind.inner or {})[""], json))
    if kind.kind == "object":
        return pyarrow.struct([(key, _arrow(entry, json)) for key, entry in (kind.inner or {}).items()])
    plain = {"null": pyarrow.null(), "bool": pyarrow.bool_(), "float": pyarrow.float64(), "text": pyarrow.string()}
    return {**plain, "int": pyarrow.int64(), "long": pyarrow.int64(), "json": json}[kind.kind]


def _cell(value: Any, kind: Type) -> Any:
    """A value with JSON in its place."""
    if value is None or not _holds_json(kind):
        return value
    if kind == JSON:
        return encode(value)
    if kind.kind == "list":
        return [_cell(entry, (kind.inner or {})[""]) for entry in value]
    return {key: _cell(entry, (kind.inner or {})[key]) for key, entry in value.items()}


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    some: list[Row] = []
    for row in rows:
        some.append(row)
        if len(some) == AT_ONCE:
            yield some
            some = []
    if some:
        yield some
