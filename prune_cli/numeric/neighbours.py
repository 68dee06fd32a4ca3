"""The nearest neighbours of rows in a representation: which they are, how far, whether another has the same, labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, row_blocks, single_blocks, table
from prune_cli.numeric.cosine import unit

TOGETHER = 8192  # rows whose neighbours are looked for at a time, by distance
OURS, OTHERS = 1024, 4096  # rows that are compared at a time, by cosine: 16 MiB of cosines


def nearest(rows: Array, k: int) -> NDArray[np.int64]:
    """The k other rows of the highest cosine to each row [n, d]: int64 [n, k], the highest first, then the first row.

    k is below n. The cosine with a row of zeros is 0. In NumPy alone, as commands that compute little need it.
    """
    n = len(rows)
    units = table(rows.shape)
    for where, block in row_blocks(rows):
        units[where] = unit(block)
    found = np.empty((n, k), np.int64)
    for start in range(0, n, OURS):
        ours = np.arange(start, min(start + OURS, n))
        best, at = np.full((len(ours), k), -np.inf, np.float32), np.full((len(ours), k), n)
        for first in range(0, n, OTHERS):
            cosine = units[ours] @ units[first : first + OTHERS].T
            own = (ours >= first) & (ours < first + OTHERS)
            cosine[own, ours[own] - first] = -np.inf
            best, at = _best(best, at, cosine, first)
        found[ours] = at
    return found


def _best(
    best: NDArray[np.float32], at: NDArray[np.int64], cosine: NDArray[np.float32], first: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The highest cosines [m, k] and whose they are, after those [m, b] of the rows from `first` on were looked at."""
    m, k = best.shape
    if cosine.shape[1] > k and np.isinf(best).any():  # few of them can be among the highest
        least = np.partition(cosine, -k, axis=1)[:, -k, None]
    else:
        least = np.nextafter(best.min(axis=1, keepdims=True), np.float32(np.inf))
    row, column = np.nonzero(cosine >= least)
    rows = np.concatenate([np.repeat(np.arange(m), k), row])
    values = np.concatenate([best.ravel(), cosine[row, column]])
    places = np.concatenate([at.ravel(), first + column])
    order = np.lexsort((places, -values, rows))
    begin = np.searchsorted(rows[order], np.arange(m))
    kept = order[begin[:, None] + np.arange(k)]
    return values[kept], places[kept]


def with_distances(rows: Array, k: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The k nearest other rows of each row [n, d]: int32 [n, k], and their Euclidean distances, nearest first.

    k is below n. Every pair is looked at, a block at a time, on a float32 copy.
    """
    from sklearn.neighbors import NearestNeighbors

    whole = table(rows.shape)
    for where, block in single_blocks(rows):
        whole[where] = block
    whole -= whole.mean(axis=0, dtype=np.float64).astype(np.float32)
    model = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(whole)
    near, distance = np.empty((len(rows), k), np.int32), np.empty((len(rows), k))
    for start in range(0, len(whole), TOGETHER):
        where = slice(start, start + TOGETHER)
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
