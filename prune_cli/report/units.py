"""Times and sizes in words, the same in every table and line."""

from __future__ import annotations

import math

SIZES = ("kB", "MB", "GB", "TB")


def duration(seconds: float) -> str:
    """Seconds in words: 1.3 s, 59 s, 3.5 min, 2 h."""
    if seconds < 120:
        return f"{_short(seconds)} s"
    return f"{_short(seconds / 60)} min" if seconds < 7200 else f"{_short(seconds / 3600)} h"


def size(count: float) -> str:
    """Bytes in words: 900 bytes, 12 kB, 1.2 GB."""
    if count < 1000:
        return f"{count:.0f} bytes"
    power = min(int(math.log10(count) / 3), len(SIZES))
    return f"{_short(count / 1000**power)} {SIZES[power - 1]}"


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0") if value < 10 else f"{value:,.0f}"
