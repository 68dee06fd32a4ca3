"""The nearest other rows of each row, with their distances, by scikit-learn's blockwise search."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, single_blocks

BLOCK = 8192  # rows


def neighbours(rows: Array, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The k nearest other rows of each row [n, d]: int64 [n, k], and their Euclidean distances, nearest first.

    k is below n. Every pair is looked at, a block at a time, on a float32 copy.
    """
    from sklearn.neighbors import NearestNeighbors

    whole = np.empty(rows.shape, np.float32)
    for where, block in single_blocks(rows):
        whole[where] = block
    whole -= whole.mean(axis=0, dtype=np.float64).astype(np.float32)
    model = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(whole)
    near = np.empty((len(rows), k), np.int64)
    distance = np.empty((len(rows), k))
    for start in range(0, len(whole), BLOCK):
        where = slice(start, start + BLOCK)
        apart, found = model.kneighbors(whole[where])
        own = found == np.arange(len(whole))[where, None]
        own[:, -1] |= ~own.any(axis=1)  # of more than k copies of the row, which it need not be among
        near[where], distance[where] = (values[~own].reshape(-1, k) for values in (found, apart))
    return near, distance
