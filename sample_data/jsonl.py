"""Rows in a random order, numbered, and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from numpy.random import Generator

Row = dict[str, Any]


def numbered(rng: Generator, name: str, rows: list[Row]) -> list[Row]:
    """The rows in a random order, each with an `id` before its other keys."""
    return [{"id": f"{name}-{i:04d}", **rows[at]} for i, at in enumerate(rng.permutation(len(rows)), 1)]


def write_rows(files: dict[str, list[Row]], folder: Path) -> None:
    """Write `NAME.jsonl` for each file; a name may begin with a folder."""
    for name, rows in files.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
