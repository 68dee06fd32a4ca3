"""Tables of text, and values in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prune_cli.artifacts.manifest import canonical


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, the columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)) for row in rows)
    return [line.rstrip() for line in lines]


def plain(value: Any) -> str:
    """A JSON value as text; a string without quotes."""
    return value if isinstance(value, str) else canonical(value)
