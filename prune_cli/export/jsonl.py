"""JSONL: each row on a line, byte for byte as it came."""

from __future__ import annotations

from pathlib import Path

from prune_cli.export._kept import Kept


def write(kept: Kept, folder: Path) -> None:
    """Write `kept.jsonl`."""
    kept.write_lines(folder)
