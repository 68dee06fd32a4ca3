"""Walk or reorder a large array a block of rows at a time: memory does not grow with the number of rows."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

NUMBERS = 2**22  # in a block and what is made of it: 32 MiB as float64
CACHED = 2**18  # in a block alone, where 64 rows have no more: 2 MiB, which stay in a processor's cache
IN_MEMORY = 2**28  # bytes: a copy beyond 256 MiB goes to disk


class Array(Protocol):
    """Rows that are read a block at a time: an array [n, …], a memory map, or Vectors (vectors.py)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, rows first."""

    def __len__(self) -> int:
        """Rows."""

    def __getitem__(self, rows: Any) -> Any:
        """Some of the rows."""


def row_blocks(array: Array, beside: int = 0) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Consecutive rows of an array [n, …], a memory map as well, as float64 [b, …], and where they stand.

    beside: how many numbers the caller makes of a row, where these may be more than it has.
    """
    rows = _together(array, beside)
    for start in range(0, len(array), rows):
        where = slice(start, start + rows)
        yield where, np.asarray(array[where], np.float64)


def single_blocks(array: Array, beside: int = 0) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """The same blocks as row_blocks, as float32: for distances and products that are compared, not reported."""
    rows = _together(array, beside)
    for start in range(0, len(array), rows):
        where = slice(start, start + rows)
        yield where, np.asarray(array[where], np.float32)


def _together(array: Array, beside: int) -> int:
    """How many rows make a block."""
    numbers = max(1, math.prod(array.shape[1:]))
    return max(1, min(max(64, CACHED // numbers), NUMBERS // max(numbers, beside)))


def table(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An array to be filled: in memory, or the map of a nameless file where it is large."""
    if math.prod(shape) * 4 <= IN_MEMORY:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile() as file:  # the map keeps it alive, and lets go of it
        return np.memmap(file, np.float32, "w+", shape=shape)


def column(n: int, positions: NDArray[np.int64], values: Any) -> NDArray[np.float64]:
    """A column [n] with values at some positions, and NaN, which stands for none, elsewhere."""
    full = np.full(n, np.nan)
    full[positions] = values
    return full


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


def scaled(array: NDArray[Any], scale: NDArray[Any]) -> NDArray[np.float32]:
    """array [n, e, …] times scale [n, e] as float32, a read-only map of a nameless file where it is large."""
    if array.size * 4 <= IN_MEMORY:
        values = np.empty(array.shape, np.float32)
        for rows, block in row_blocks(array):
            values[rows] = _times(block, scale[rows])
        return values
    with tempfile.TemporaryFile() as file:  # the map keeps it alive, and lets go of it
        for rows, block in row_blocks(array):
            file.write(np.ascontiguousarray(_times(block, scale[rows]), np.float32).data)
        file.flush()
        return np.memmap(file, np.float32, "r", shape=array.shape)


def _times(block: NDArray[np.float64], scale: NDArray[Any]) -> NDArray[np.float64]:
    return block * scale.reshape(*scale.shape, *[1] * (block.ndim - 2))
