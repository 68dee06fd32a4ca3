"""For each target row in turn the row that is most like it and not yet taken, round after round.

Likeness is the cosine, counted in steps of 2⁻³⁰; of equal rows the first is taken. The target rows have their
turns in their order, so a budget below their number serves only the first of them.

Source: RDS+, Ivison et al. 2025, arXiv 2503.01807, algorithm 1.

It runs on any representation, all checkpoints side by side. In the authors' code a target row whose next row is
taken already loses its turn; here it takes the next that is free, so that all have the same share. Rows come in
the order of taking.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.cosine import similarities

CANDIDATES = 2**22  # rows noted at a time for all target rows together: 32 MiB
STEPS = 2**30  # of the cosine from 0 to 1
LOW = 2**32 - 1  # the lower half of a key


def select(
    features: NDArray[Any], target_features: NDArray[Any], n_keep: int
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by features [n, d] and target_features [m, d]: int64 [n_keep].

    Column `target`: the position of the target row for which a row was kept.
    """
    targets = target_features[:n_keep]
    taken = np.zeros(len(features), bool)
    target_of = np.full(len(features), -1)
    picked: list[int] = []
    while len(picked) < n_keep:  # once, unless a target row runs out of the rows noted for it
        noted = max(1, min(n_keep - len(picked), CANDIDATES // len(targets)))
        nearest = _nearest_free(features, targets, taken, noted)
        at = [0] * len(targets)
        while len(picked) < n_keep:
            target = len(picked) % len(targets)
            at[target] = _first_free(nearest[target], at[target], taken)
            if at[target] == nearest.shape[1]:
                break
            row = int(nearest[target, at[target]])
            taken[row], target_of[row] = True, target
            picked.append(row)
    return np.array(picked, np.int64), {"target": target_of}


def _nearest_free(
    features: NDArray[Any], targets: NDArray[Any], taken: NDArray[np.bool_], noted: int
) -> NDArray[np.int64]:
    """For each target row the rows most like it of those not taken, the nearest first: int64 [m, at most noted].

    A row stands as one number, its cosine above and what its position lacks to 2³² below: the order of these
    numbers is that of nearness, and of equals the first.
    """
    noted = min(noted, int(np.count_nonzero(~taken)))
    best = np.full((len(targets), noted), np.iinfo(np.int64).min)
    for some, rows, cosines in similarities(features, targets):
        free = np.flatnonzero(~taken[rows])
        keys = np.rint(cosines[:, free] * STEPS).astype(np.int64) * (LOW + 1) + (LOW - rows.start - free)
        both = np.concatenate([best[some], keys], axis=1)
        best[some] = np.partition(both, -noted, axis=1)[:, -noted:]
    best.sort(axis=1)
    return LOW - (best[:, ::-1] & LOW)


def _first_free(rows: NDArray[np.int64], start: int, taken: NDArray[np.bool_]) -> int:
    """Where the first row that is not taken stands, from start on; the number of rows if there is none."""
    step = 16
    while start < len(rows):
        free = np.flatnonzero(~taken[rows[start : start + step]])
        if len(free):
            return start + int(free[0])
        start, step = start + step, step * 2
    return len(rows)
