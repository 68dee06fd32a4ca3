"""Tables whose columns have types: Parquet and Arrow files, folders of the library datasets, and the hub.

Columns that no task reads are carried along as JSON has them: a date, a time or a decimal as text (dates as ISO 8601
has them), bytes as text in base64, NaN and infinity as null, lists and structs entry by entry, a map as a list of
pairs. A value that Python has no object for, such as a date beyond the year 9999, is null. A column that a task reads
is checked before that: bytes are no text.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator
from datetime import date, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_cli.data.lines import Row
from prune_cli.errors import PruneError

if TYPE_CHECKING:
    import pyarrow

AT_ONCE = 100  # rows that are Python objects at a time
SPLITS, SAVED = "dataset_dict.json", ("state.json", "dataset_info.json")  # what save_to_disk writes into a folder


def parquet(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        yield from _rows(file.iter_batches(batch_size=AT_ONCE))


def arrow(path: Path) -> Iterator[Row]:
    """The rows of an Arrow file, of the format for files or of that for streams."""
    import pyarrow

    with pyarrow.OSFile(str(path)) as source:
        try:
            file = pyarrow.ipc.open_file(source)
        except pyarrow.ArrowInvalid:
            source.seek(0)
            batches: Iterable[Any] = pyarrow.ipc.open_stream(source)
        else:
            batches = (file.get_batch(i) for i in range(file.num_record_batches))
        yield from _rows(part for batch in batches for part in _parts(batch))


def is_saved(path: Path) -> bool:
    """Whether a folder was made by `save_to_disk` of the library datasets."""
    return (path / SPLITS).is_file() or all((path / name).is_file() for name in SAVED)


def saved(path: Path, split: str) -> Iterator[Row]:
    """The rows of a folder made by `save_to_disk`. split: which of several; if empty, `train`."""
    import datasets

    found = datasets.load_from_disk(str(path))
    if isinstance(found, datasets.DatasetDict):
        wanted = split or "train"
        if wanted not in found:
            raise PruneError(f"no split {wanted}; allowed: {', '.join(found)}")
        found = found[wanted]
    elif split:
        raise PruneError(f"the folder holds one data set, without splits; allowed: {path}")
    yield from _rows(found.with_format("arrow").iter(AT_ONCE))


def hub(name: str, split: str) -> Iterator[Row]:
    """The rows of a data set of the hub, streamed: OWNER/NAME/CONFIG, OWNER/NAME, NAME/CONFIG or NAME.

    Of two parts the first is the owner if the hub has such a data set; else the second is a configuration.
    """
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    def load(repository: str, config: str | None) -> Any:
        return datasets.load_dataset(repository, config, split=split or "train", streaming=True)

    parts = name.split("/")
    if len(parts) == 3:
        stream = load("/".join(parts[:2]), parts[2])
    else:
        try:
            stream = load(name, None)
        except DatasetNotFoundError:
            if len(parts) != 2:
                raise
            stream = load(*parts)
    yield from _rows(stream.with_format("arrow").iter(AT_ONCE))


def carried(value: Any) -> Any:
    """A value as JSON has it; the module says how each type is carried."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): carried(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [carried(entry) for entry in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, (date, time)) else str(value)


def _parts(batch: Any) -> Iterator[Any]:
    """A batch in slices of AT_ONCE rows."""
    for start in range(0, batch.num_rows, AT_ONCE):
        yield batch.slice(start, AT_ONCE)


def _rows(batches: Iterable[pyarrow.Table | pyarrow.RecordBatch]) -> Iterator[Row]:
    for batch in batches:
        names = batch.schema.names
        if len(set(names)) < len(names):
            raise PruneError("a column stands twice; allowed: names that differ")
        for cells in zip(*map(_values, batch.columns), strict=True):
            yield dict(zip(names, cells, strict=True))


def _values(column: Any) -> list[Any]:
    """The values of a column as Python objects, None where there is none for a value."""
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, TypeError):  # ArrowInvalid is a ValueError
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, TypeError):
        return None
