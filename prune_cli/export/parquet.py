"""Parquet: a table whose columns have types (_table.py)."""

from __future__ import annotations

from pathlib import Path

from prune_cli.export._kept import FILE, Kept
from prune_cli.export._table import write_parquet


def write(kept: Kept, folder: Path) -> None:
    """Write `kept.parquet`."""
    write_parquet(kept.rows, folder / f"{FILE}.parquet")
