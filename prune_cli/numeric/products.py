"""Inner products of every row with a vector, a block of rows at a time, for selections that need them at each pick."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import IN_MEMORY, Array, single_blocks


def held(rows: Array) -> Array:
    """The rows [n, d] as float32 in memory where that takes no more than 256 MiB; else as they are, read each time."""
    if len(rows) * rows.shape[1] * 4 > IN_MEMORY:
        return rows
    whole = np.empty(rows.shape, np.float32)
    for where, block in single_blocks(rows):
        whole[where] = block
    return whole


def products(rows: Array, vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row's inner product with a vector [d]: float64 [n], of single precision."""
    single = vector.astype(np.float32)
    return np.concatenate([block @ single for _, block in single_blocks(rows)]).astype(np.float64)
