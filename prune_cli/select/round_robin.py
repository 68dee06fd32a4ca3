"""For each target row, or group of them, in turn the row that is most like it and not yet taken, round after round.

Likeness is one of three, in single precision; of equal rows the first is taken:
- on a representation, the cosine with the target row, by checkpoints as the option says; `each` is LESS's
  Σ_e η_e cos(x_ie, x_ve), η the learning rates scaled to sum to one, which changes no order;
- on the kind influence (`represent --by row`), Σ_e η_e times the influence on the target row at checkpoint e: of
  cosines the same without projection, of inner products TracIn's;
- `--on text`: BM25 (score bm25) with the target row's text as the query.

A row's likeness to a group is that to the group's row it is most like; on influence by group, that on the group. Where
the target rows have groups, the groups have their turns in order of name, else the target rows in their order; so a
budget below their number serves only the first of them.

Source: RDS+, Ivison et al. 2025, arXiv 2503.01807, algorithm 1; over groups, which are tasks there, as its multi-task
selection. On LESS's cosines, and as it is here, in Nayak et al. 2026, arXiv 2602.14696.
Differs: in RDS+'s code a target row whose next row is taken already loses its turn; here it takes the next that is
free, so that all have the same share.

Rows come in the order of taking, and a smaller budget is the beginning of a larger one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import rows_at
from prune_cli.numeric.bm25 import K1, B
from prune_cli.numeric.cosine import similarities
from prune_cli.numeric.highest import Highest, numbered, positions
from prune_cli.numeric.likeness import Likeness, by_influence, by_words
from prune_cli.numeric.vectors import Agreement, vectors

CANDIDATES = 2**22  # rows noted at a time for all turns together: 64 MiB with as many that wait

Selected = tuple[NDArray[np.int64], dict[str, NDArray[Any]]]


def select(
    features: NDArray[Any],
    target_features: NDArray[Any],
    n_keep: int,
    target_group: NDArray[np.int64] | None = None,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    target_scale: NDArray[Any] | None = None,
    *,
    checkpoints: Agreement = "side",
) -> Selected:
    """Select n_keep of n rows by features [n, e × d] and target_features [m, e × d], which may have groups [m].

    Column `target`: the position of the target row for which a row was kept; or `target_group`, that of the group.
    """
    used, turn = _turns(len(target_features), target_group, n_keep)
    target_scale = None if target_scale is None else target_scale[used]
    rows = vectors(features, learning_rate, scale, checkpoints=checkpoints)
    targets = vectors(rows_at(target_features, used), learning_rate, target_scale, checkpoints=checkpoints)
    likeness = partial(similarities, rows, targets, normalize=checkpoints != "each")
    kept, taken_for = _in_turn(likeness, turn, len(features), n_keep)
    return kept, {"target" if target_group is None else "target_group": taken_for}


def select_influence(influence: NDArray[Any], learning_rate: NDArray[np.float64], n_keep: int) -> Selected:
    """Select n_keep of n rows by influence [n, e, m] on m target rows, or groups. learning_rate [e].

    Column `target`: the position of the target row, or group, for which a row was kept.
    """
    used, turn = _turns(influence.shape[2], None, n_keep)
    likeness = partial(by_influence, influence, learning_rate, used)
    kept, taken_for = _in_turn(likeness, turn, len(influence), n_keep)
    return kept, {"target": taken_for}


def select_text(
    text: Sequence[str],
    target_text: Sequence[str],
    n_keep: int,
    target_group: NDArray[np.int64] | None = None,
    *,
    k1: K1 = 1.5,
    b: B = 0.75,
) -> Selected:
    """Select n_keep of n rows by text [n] and target_text [m], which may have groups [m]. Columns as of `select`."""
    used, turn = _turns(len(target_text), target_group, n_keep)
    likeness = partial(by_words, text, [target_text[i] for i in used], k1, b)
    kept, taken_for = _in_turn(likeness, turn, len(text), n_keep)
    return kept, {"target" if target_group is None else "target_group": taken_for}


FORMS = {"influence": select_influence, "text": select_text}


def _turns(m: int, target_group: NDArray[np.int64] | None, n_keep: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of m target rows have a turn before the budget is spent, and whose turn each one's is, ascending."""
    if target_group is None:
        return np.arange(min(m, n_keep)), np.arange(min(m, n_keep))
    used = np.argsort(target_group, kind="stable")
    used = used[target_group[used] < n_keep]
    return used, target_group[used]


def _in_turn(
    likeness: Callable[[], Likeness], turn: NDArray[np.int64], n: int, n_keep: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The n_keep of n rows that are taken, in order, and for each row whose turn it was taken in; else −1."""
    turns = int(turn[-1]) + 1
    taken = np.zeros(n, bool)
    taken_for = np.full(n, -1)
    picked: list[int] = []
    while len(picked) < n_keep:  # once, unless a turn runs out of the rows noted for it
        noted = max(1, min(n_keep - len(picked), CANDIDATES // turns))
        nearest = _nearest_free(likeness(), turn, taken, noted)
        at = [0] * turns
        while len(picked) < n_keep:
            target = len(picked) % turns
            at[target] = _first_free(nearest[target], at[target], taken)
            if at[target] == nearest.shape[1]:
                break
            row = int(nearest[target, at[target]])
            taken[row], taken_for[row] = True, target
            picked.append(row)
    return np.array(picked, np.int64), taken_for


def _nearest_free(
    likeness: Likeness, turn: NDArray[np.int64], taken: NDArray[np.bool_], noted: int
) -> NDArray[np.int64]:
    """For each turn the rows most like its targets of those not taken, the nearest first: int64 [turns, noted or less].

    turn [m], ascending: whose turn each target row belongs to. A row may be noted again for another target row of a
    group: once it is taken, it is passed over.
    """
    noted = min(noted, int(np.count_nonzero(~taken)))
    best = Highest(int(turn[-1]) + 1, noted)
    for some, rows, values in likeness:
        free = np.flatnonzero(~taken[rows])
        numbers = numbered(_ordered(values[:, free]), rows.start + free)
        theirs, starts = np.unique(turn[some], return_index=True)
        if len(starts) < len(numbers):
            numbers = np.maximum.reduceat(numbers, starts)
        best.add(theirs, numbers)
    return positions(best.sorted())


def _ordered(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers of 32 bits in the order of the values in single precision, the same for the same value."""
    bits = (values.astype(np.float32) + np.float32(0)).view(np.int32)  # −0 becomes 0
    return np.where(bits < 0, bits ^ np.int32(2**31 - 1), bits).astype(np.int64)


def _first_free(rows: NDArray[np.int64], start: int, taken: NDArray[np.bool_]) -> int:
    """Where the first row that is not taken stands, from start on; the number of rows if there is none."""
    step = 16
    while start < len(rows):
        free = np.flatnonzero(~taken[rows[start : start + step]])
        if len(free):
            return start + int(free[0])
        start, step = start + step, step * 2
    return len(rows)
