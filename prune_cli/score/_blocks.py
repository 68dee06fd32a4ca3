"""Walk a large array a block of rows at a time, so that memory does not grow with the number of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBERS = 2**22  # in a block: 32 MiB as float64


def row_blocks(array: NDArray[Any]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Consecutive rows of an array [n, …], a memory map as well, as float64 [b, …], and where they stand."""
    rows = max(1, NUMBERS // max(1, array[0].size))
    for start in range(0, len(array), rows):
        where = slice(start, start + rows)
        yield where, np.asarray(array[where], np.float64)
