"""Walk or reorder a large array a block of rows at a time: memory does not grow with the number of rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBERS = 2**22  # in a block: 32 MiB as float64
IN_MEMORY = 2**28  # bytes: a copy beyond 256 MiB goes to disk


def row_blocks(array: NDArray[Any], beside: int = 0) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Consecutive rows of an array [n, …], a memory map as well, as float64 [b, …], and where they stand.

    beside: how many numbers the caller makes of a row, where these may be more than it has.
    """
    rows = max(1, NUMBERS // max(1, array[0].size, beside))
    for start in range(0, len(array), rows):
        where = slice(start, start + rows)
        yield where, np.asarray(array[where], np.float64)


def rows_at(array: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[Any]:
    """The rows at positions [m] of an array [n, …]: [m, …], a read-only map of a nameless file where it is large."""
    step = array[:1].nbytes
    if len(positions) * step <= IN_MEMORY:
        return array[positions]
    rows = max(1, NUMBERS * 8 // step)
    with tempfile.TemporaryFile() as file:  # the map keeps it alive, and lets go of it
        for start in range(0, len(positions), rows):
            file.write(np.ascontiguousarray(array[positions[start : start + rows]]).data)
        file.flush()
        return np.memmap(file, array.dtype, "r", shape=(len(positions), *array.shape[1:]))
