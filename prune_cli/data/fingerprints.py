"""Finding a row again by its id: what a file holds about a row is used for another row only if both are the same.

An id alone does not say so: where a row has none it is the number of its line, and a file can change under its ids.
So each row has a fingerprint, made of all that it holds but its id, and rows are the same if fingerprints are equal.
"""

from __future__ import annotations

import hashlib
from array import array
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from prune_cli.artifacts.jsonl import read_jsonl, write_columns
from prune_cli.data.lines import Row
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError

IDS = "ids.jsonl"

_encode = msgspec.json.Encoder(order="deterministic").encode


def fingerprint(row: Row) -> str:
    """The first 16 hex digits of sha256 over a row's canonical JSON without its id."""
    content = row.copy()
    content.pop("id", None)
    return hashlib.sha256(_encode(content)).hexdigest()[:16]


def write_ids(rows: Rows, path: Path) -> None:
    """Write which rows the other files beside it are about: {"id", "fingerprint"}, in row order."""
    write_columns(path, {"id": rows.ids, "fingerprint": list(map(fingerprint, rows))})


def positions(rows: Rows, ids_file: Path, lacking: str, hint: str | None = None) -> NDArray[np.int64]:
    """Where each of n rows stands in an artifact, by its `ids.jsonl`: int64 [n].

    Raises PruneError with file:line for a row that is not in it (`id 7 <lacking>`), or whose id is another row's.
    """
    at: dict[str, int] = {}
    known = array("Q")
    for i, line in enumerate(read_jsonl(ids_file)):
        at[str(line["id"])] = i
        known.append(int(line["fingerprint"], 16))
    order = np.empty(len(rows), np.int64)
    for i, row in enumerate(rows):
        position = at.get(str(row["id"]))
        if position is None:
            raise PruneError(f"{rows.where(i)}: id {row['id']} {lacking}", hint=hint)
        if known[position] != int(fingerprint(row), 16):
            raise PruneError(
                f"{rows.where(i)}: id {row['id']} is that of another row in {ids_file.parent}; "
                "allowed: the same row under the same id",
                hint="use the rows as they were then; a row without an id gets its line number, which is no lasting id",
            )
        order[i] = position
    return order
