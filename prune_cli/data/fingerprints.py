"""Joins by id: what one file holds about a row is used for a row of another only if the two are the same row.

An id alone does not say so: where a row has none it is the number of its line, and a file can change under its
ids. So each row has a mark, made of all that it holds but its id, and a join compares marks.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prune_cli.artifacts.manifest import canonical
from prune_cli.data.readers import Row
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError

IDS = "ids.jsonl"


def mark(row: Row) -> str:
    """The first 16 hex digits of sha256 over a row's canonical JSON without its id."""
    content = {key: value for key, value in row.items() if key != "id"}
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:16]


def write_ids(rows: Rows, path: Path) -> None:
    """Write which rows the other files beside it are about: {"id", "mark"}, in row order."""
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps({"id": row["id"], "mark": mark(row)}, ensure_ascii=False) + "\n")


def positions(rows: Rows, file: Path, lacking: str, hint: str | None = None) -> NDArray[np.int64]:
    """Where each of n rows stands in a file of rows, or in an `ids.jsonl`: int64 [n].

    Raises PruneError with file:line for a row that is not in it (`id 7 <lacking>`), or whose id is another row's.
    """
    at: dict[str, int] = {}
    marks = array("Q")
    with file.open(encoding="utf-8") as stream:
        for i, line in enumerate(stream):
            row = json.loads(line)
            at[str(row["id"])] = i
            marks.append(int(row["mark"] if file.name == IDS else mark(row), 16))
    found = np.empty(len(rows), np.int64)
    for i, row in enumerate(rows):
        position = at.get(str(row["id"]))
        if position is None:
            raise PruneError(f"{rows.where(i)}: id {row['id']} {lacking}", hint=hint)
        if marks[position] != int(mark(row), 16):
            raise PruneError(
                f"{rows.where(i)}: id {row['id']} is that of another row in {file.parent}; "
                "allowed: the same row under the same id",
                hint="use the rows as they were then; a row without an id gets its line number, which is no lasting id",
            )
        found[i] = position
    return found
