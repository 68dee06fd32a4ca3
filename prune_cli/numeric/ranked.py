"""The rows most like each target row, in order: positions and inner products, from one pass over all rows.

A row stands as one number (highest.py), its likeness the inner product in steps of 2⁻³⁰.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, row_blocks
from prune_cli.numeric.highest import NONE, Highest, numbered

STEPS = 2**30  # from 0 to 1


def ranked(
    rows: Array, targets: NDArray[np.float64], k: int, after: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """For each of targets [m, d] the numbers of the k rows of [n, d] most like it, the most first: int64 [m, k].

    Inner products are from −1 to 1. after [m]: only rows that come after these numbers; at least k are left.
    """
    best, every = Highest(len(targets), k), np.arange(len(targets))
    for where, block in row_blocks(rows, beside=len(targets)):
        inner = np.rint(targets @ block.T * STEPS).astype(np.int64)
        numbers = numbered(inner, where.start + np.arange(len(block)))
        if after is not None:
            numbers[numbers >= after[:, None]] = NONE
        best.add(every, numbers)
    return best.sorted()


def likeness(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Their inner products."""
    return (numbers >> 32) / STEPS
