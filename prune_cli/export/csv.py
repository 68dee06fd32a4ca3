"""CSV: a header of all keys, a line a row, as RFC 4180 has it.

A key that a row lacks, and null, are a blank cell; true and false are `true` and `false`. A list or an object is an
error that names its column, or JSON text with `--nested json`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prune_cli.data.problems import encode
from prune_cli.errors import PruneError
from prune_cli.export._kept import FILE, Kept


def write(kept: Kept, folder: Path) -> None:
    """Write `kept.csv`."""
    header = dict.fromkeys(key for row in _checked(kept) for key in row)
    with (folder / f"{FILE}.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)  # lines end as RFC 4180 has them, so that a lone \r in a cell is quoted too
        writer.writerow(header)
        writer.writerows([_cell(row.get(key)) for key in header] for row in kept.rows())


def _checked(kept: Kept) -> Iterator[dict[str, Any]]:
    """The rows. Raises PruneError for one that holds what a cell cannot."""
    for i, row in enumerate(kept.rows()):
        for key, value in row.items():
            if isinstance(value, list | dict) and kept.nested == "refuse":
                held = "a list" if isinstance(value, list) else "an object"
                told = f"{kept.where(i)}: {key} holds {held}; allowed in CSV: text, numbers, true, false, null"
                raise PruneError(told, hint="--nested json writes such a value as JSON text; --for jsonl as it is")
        yield row


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return encode(value)
