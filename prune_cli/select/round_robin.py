"""For each target row, or group of them, in turn the row that is most like it and not yet taken, round after round.

Likeness is the cosine, counted in steps of 2⁻³⁰; of equal rows the first is taken. A row's likeness to a group is
that to the group's row it is most like. Where the target rows have groups, the groups have their turns in order of
name, else the target rows in their order; so a budget below their number serves only the first of them.

Source: RDS+, Ivison et al. 2025, arXiv 2503.01807, algorithm 1; over groups, which are tasks there, as its multi-task
selection.
Differs: in the authors' code a target row whose next row is taken already loses its turn; here it takes the next that
is free, so that all have the same share.

It runs on any representation. Rows come in the order of taking.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, rows_at
from prune_cli.numeric.cosine import similarities
from prune_cli.numeric.vectors import Checkpoints, vectors

CANDIDATES = 2**22  # rows noted at a time for all turns together: 32 MiB
STEPS = 2**30  # of the cosine from 0 to 1
LOW = 2**32 - 1  # the lower half of a key


def select(
    features: NDArray[Any],
    target_features: NDArray[Any],
    n_keep: int,
    target_group: NDArray[np.int64] | None = None,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    target_scale: NDArray[Any] | None = None,
    *,
    checkpoints: Checkpoints = "side",
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by features [n, e × d] and target_features [m, e × d], which may have groups [m].

    Column `target`: the position of the target row for which a row was kept; or `target_group`, that of the group.
    """
    if target_group is None:
        used, turn = np.arange(min(len(target_features), n_keep)), np.arange(min(len(target_features), n_keep))
    else:
        used = np.argsort(target_group, kind="stable")
        used = used[target_group[used] < n_keep]
        turn = target_group[used]
    target_scale = None if target_scale is None else target_scale[used]
    rows = vectors(features, learning_rate, scale, checkpoints=checkpoints)
    targets = vectors(rows_at(target_features, used), learning_rate, target_scale, checkpoints=checkpoints)
    turns = int(turn[-1]) + 1
    taken = np.zeros(len(features), bool)
    taken_for = np.full(len(features), -1)
    picked: list[int] = []
    while len(picked) < n_keep:  # once, unless a turn runs out of the rows noted for it
        noted = max(1, min(n_keep - len(picked), CANDIDATES // turns))
        nearest = _nearest_free(rows, targets, turn, taken, noted)
        at = [0] * turns
        while len(picked) < n_keep:
            target = len(picked) % turns
            at[target] = _first_free(nearest[target], at[target], taken)
            if at[target] == nearest.shape[1]:
                break
            row = int(nearest[target, at[target]])
            taken[row], taken_for[row] = True, target
            picked.append(row)
    return np.array(picked, np.int64), {"target" if target_group is None else "target_group": taken_for}


def _nearest_free(
    features: Array, targets: Array, turn: NDArray[np.int64], taken: NDArray[np.bool_], noted: int
) -> NDArray[np.int64]:
    """For each turn the rows most like its targets of those not taken, the nearest first: int64 [turns, noted or less].

    turn [m], ascending: whose turn each target row belongs to. A row stands as one number, its cosine above and what
    its position lacks to 2³² below: the order of these numbers is that of nearness, and of equals the first. A row
    may be noted again for another target row of a group: once it is taken, it is passed over.
    """
    noted = min(noted, int(np.count_nonzero(~taken)))
    best = np.full((int(turn[-1]) + 1, noted), np.iinfo(np.int64).min)
    for some, rows, cosines in similarities(features, targets):
        free = np.flatnonzero(~taken[rows])
        keys = np.rint(cosines[:, free] * STEPS).astype(np.int64) * (LOW + 1) + (LOW - rows.start - free)
        theirs, starts = np.unique(turn[some], return_index=True)
        if len(starts) < len(keys):
            keys = np.maximum.reduceat(keys, starts)
        both = np.concatenate([best[theirs], keys], axis=1)
        best[theirs] = np.partition(both, -noted, axis=1)[:, -noted:]
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
