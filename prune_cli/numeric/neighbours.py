"""The nearest neighbours of rows in a representation: which they are, whether another has the same, their labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import NUMBERS, Array, row_blocks
from prune_cli.numeric.cosine import unit


def nearest(features: Array, k: int) -> NDArray[np.int64]:
    """The k other rows of the highest cosine to each row of features [m, d]: int64 [m, k], the first of equals first.

    k is below m. The cosine with a row of zeros is 0.
    """
    m = len(features)
    found = np.empty((m, k), np.int64)
    step = max(1, NUMBERS // max(m, features.shape[1]))
    for start in range(0, m, step):
        some = np.arange(start, min(start + step, m))
        ours = unit(np.asarray(features[some], np.float64))
        cosine = np.empty((len(some), m))
        for others, block in row_blocks(features):
            cosine[:, others] = ours @ unit(block).T
        cosine[np.arange(len(some)), some] = -np.inf
        found[some] = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    return found


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
