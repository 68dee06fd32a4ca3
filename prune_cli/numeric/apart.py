"""Rows taken in a given order, each only if it is far enough from all that are taken already."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array

BLOCK = 1024  # rows looked at together
TAKEN = 4096  # of the rows taken, that these are compared with at a time


def apart(
    rows: Array, order: NDArray[np.int64], least: float, most: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of rows [n, d] at positions order [m], those at least `least` from all taken before; no more than most of them.

    Returns their positions in order, and the distance of each row [n] to the nearest taken before it: infinite for the
    first, NaN for a row that was not looked at.
    """
    taken: list[int] = []
    vectors = np.empty((0, rows.shape[1]), np.float32)
    nearest = np.full(len(rows), np.nan)
    for start in range(0, len(order), BLOCK):
        some = order[start : start + BLOCK]
        block = np.asarray(rows[some], np.float32)
        norms = (block**2).sum(axis=1)
        squared = np.full(len(some), np.inf, np.float32)
        for first in range(0, len(vectors), TAKEN):
            part = vectors[first : first + TAKEN]
            reached = ((part**2).sum(axis=1) - 2 * (block @ part.T)).min(axis=1) + norms
            np.minimum(squared, np.maximum(reached, 0), out=squared)
        at, here = 0, []
        while len(taken) < most:
            free = np.flatnonzero(squared[at:] >= least * least)
            if not len(free):
                break
            i = at + int(free[0])
            taken.append(int(some[i]))
            here.append(i)
            at = i + 1
            reached = norms[at:] - 2 * (block[at:] @ block[i]) + norms[i]
            np.minimum(squared[at:], np.maximum(reached, 0), out=squared[at:])
        seen = at if len(taken) == most else len(some)
        nearest[some[:seen]] = np.sqrt(squared[:seen])
        if len(taken) == most:
            break
        vectors = np.concatenate([vectors, block[here]])
    return np.array(taken, np.int64), nearest


def filled(taken: NDArray[np.int64], order: NDArray[np.int64], n_keep: int) -> NDArray[np.int64]:
    """The positions taken, and where they are fewer than n_keep the first others in order."""
    if len(taken) == n_keep:
        return taken
    rest = order[~np.isin(order, taken)]
    return np.concatenate([taken, rest[: n_keep - len(taken)]])
