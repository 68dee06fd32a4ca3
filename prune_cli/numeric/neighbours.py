"""The nearest neighbours of rows in a representation: which they are, how far, whether another has the same, labels."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, single_blocks

TOGETHER = 8192  # rows whose neighbours are looked for at a time
MEMORY = 128  # MiB of cosines at a time


def nearest(rows: Array, k: int) -> NDArray[np.int64]:
    """The k other rows of the highest cosine to each row [n, d]: int64 [n, k], the highest first.

    k is below n. The cosine with a row of zeros is 0; of equals, which come first is not said.
    """
    return _found(_single(rows), k, "cosine")[0]


def with_distances(rows: Array, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The k nearest other rows of each row [n, d]: int64 [n, k], and their Euclidean distances, nearest first.

    k is below n.
    """
    whole = _single(rows)
    whole -= whole.mean(axis=0, dtype=np.float64).astype(np.float32)
    return _found(whole, k, "euclidean")


def _single(rows: Array) -> NDArray[np.float32]:
    """A float32 copy."""
    whole = np.empty(rows.shape, np.float32)
    for where, block in single_blocks(rows):
        whole[where] = block
    return whole


def _found(
    whole: NDArray[np.float32], k: int, metric: Literal["cosine", "euclidean"]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every pair is looked at, a block at a time."""
    from sklearn import config_context
    from sklearn.neighbors import NearestNeighbors

    model = NearestNeighbors(n_neighbors=k + 1, algorithm="brute", metric=metric).fit(whole)
    near = np.empty((len(whole), k), np.int64)
    distance = np.empty((len(whole), k))
    for start in range(0, len(whole), TOGETHER):
        where = slice(start, start + TOGETHER)
        with config_context(working_memory=MEMORY):
            apart, found = model.kneighbors(whole[where])
        own = found == np.arange(len(whole))[where, None]
        own[:, -1] |= ~own.any(axis=1)  # of more than k copies of the row, which it need not be among
        near[where], distance[where] = (values[~own].reshape(-1, k) for values in (found, apart))
    return near, distance


def in_common(some: NDArray[np.int64], others: NDArray[np.int64]) -> float:
    """The mean share of neighbours [m, k] that two representations have in common."""
    m, k = some.shape
    rows = np.arange(m)[:, None]
    both = np.intersect1d(rows * m + some, rows * m + others, assume_unique=True)
    return len(both) / (m * k)


def purity(neighbours: NDArray[np.int64], label: NDArray[np.int64]) -> tuple[float, float] | None:
    """The mean share of a row's neighbours [m, k] that have its label [m], and what it is by chance.

    Rows without a label (-1) count among neighbours alone. None where no row has one.
    """
    known = label >= 0
    if not known.any():
        return None
    same = label[neighbours[known]] == label[known, None]
    sizes = np.bincount(label[known])
    return float(same.mean()), float((sizes[label[known]] - 1).mean() / (len(label) - 1))
