"""The rows most like each target row, in order: positions and inner products, from one pass over all rows.

A row stands as one number, its inner product above, in steps of 2⁻³⁰, and what its position lacks to 2³² below: the
order of these numbers is that of likeness, and of equals the first row comes first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, row_blocks

STEPS = 2**30  # from 0 to 1
LOW = 2**32 - 1  # the lower half of a number
NONE = np.iinfo(np.int64).min


def ranked(
    rows: Array, targets: NDArray[np.float64], k: int, after: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """For each of targets [m, d] the numbers of the k rows of [n, d] most like it, the most first: int64 [m, k].

    Inner products are from −1 to 1. after [m]: only rows that come after these numbers; at least k are left.
    """
    best = np.full((len(targets), k), NONE)
    for where, block in row_blocks(rows, beside=len(targets)):
        numbers = np.rint(targets @ block.T * STEPS).astype(np.int64) * (LOW + 1)
        numbers += LOW - where.start - np.arange(len(block))
        if after is not None:
            numbers[numbers >= after[:, None]] = NONE
        best = np.partition(np.concatenate([best, numbers], axis=1), -k, axis=1)[:, -k:]
    best.sort(axis=1)
    return best[:, ::-1]


def positions(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the rows stand."""
    return LOW - (numbers & LOW)


def likeness(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Their inner products."""
    return (numbers >> 32) / STEPS
