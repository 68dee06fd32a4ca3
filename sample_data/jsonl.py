"""Rows that are drawn, put in a random order, numbered, and written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

Row = dict[str, Any]


def numbered(rng: Generator, name: str, rows: list[Row]) -> list[Row]:
    """The rows in a random order, each with an `id` before its other keys."""
    return [{"id": f"{name}-{i:04d}", **rows[at]} for i, at in enumerate(rng.permutation(len(rows)), 1)]


def draw(
    rng: Generator,
    counts: Mapping[str, Mapping[str, int]],
    groups: Iterable[str],
    make: Callable[[Generator, str, str], Row],
    said: Callable[[Row], list[str]],
) -> dict[str, list[Row]]:
    """The rows of each file, by its stem: so many of each kind and group, none of which says what another said."""
    seen: set[str] = set()
    files = {}
    for name, kinds in counts.items():
        rows = []
        for kind, count in kinds.items():
            for group in np.repeat(list(groups), count).tolist():
                row = make(rng, kind, group)
                while not seen.isdisjoint(said(row)) or len(set(said(row))) < len(said(row)):
                    row = make(rng, kind, group)
                seen.update(said(row))
                rows.append(row)
        files[name] = numbered(rng, name, rows)
    return files


def write_rows(files: dict[str, list[Row]], folder: Path) -> None:
    """Write `NAME.jsonl` for each file; a name may begin with a folder."""
    for name, rows in files.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
