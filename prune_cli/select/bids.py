"""For the target row that the picks so far serve worst in comparison, the row that helps it most.

A_ij is the influence of row i on target row j, less its mean over the rows i and divided by its deviation, so that no
target row counts for more because its influences are larger. The next pick is the i with the largest
max_j (A_ij − (1/|S|) Σ_{k ∈ S} A_kj), S what is picked; the first the i with the largest A_ij. Of the rows (2, 0),
(1.9, 0) and (0, 1), as they are: first the first row; then the third, as max(0 − 2, 1 − 0) > max(1.9 − 2, 0 − 0).

Source: BIDS, Dai et al. 2025, arXiv 2501.12147 (instance-level normalization, then iterative selection).

Influence is Σ_e η_e cos(x_ie, x_ve), as LESS has it, η the learning rates scaled to sum to one: on a representation by
cosines, of which BIDS is the one on gradients, or as the kind influence (`represent --by row`) has it without
projection. It holds n × m numbers. A row's value rises by no more than the mean falls, so that old values bound new
ones and few are computed again. Rows come in the order of picking, and a smaller budget is the beginning of a larger
one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import column
from prune_cli.numeric.cosine import similarities
from prune_cli.numeric.lazy import lazy
from prune_cli.numeric.likeness import Likeness, by_influence
from prune_cli.numeric.vectors import Agreement, vectors

Selected = tuple[NDArray[np.int64], dict[str, NDArray[Any]]]


def select(
    features: NDArray[Any],
    target_features: NDArray[Any],
    n_keep: int,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    target_scale: NDArray[Any] | None = None,
    *,
    checkpoints: Agreement = "each",
) -> Selected:
    """Select n_keep of n rows by features [n, e × d] and target_features [m, e × d]: int64 [n_keep].

    Columns: `gain`, by how much a kept row was above the mean of the picks before it, in deviations, for the target
    row that it was picked for; `target`, the position of that.
    """
    rows = vectors(features, learning_rate, scale, checkpoints=checkpoints)
    targets = vectors(target_features, learning_rate, target_scale, checkpoints=checkpoints)
    cosines = similarities(rows, targets, normalize=checkpoints != "each")
    return _select(cosines, len(features), len(target_features), n_keep)


def select_influence(influence: NDArray[Any], learning_rate: NDArray[np.float64], n_keep: int) -> Selected:
    """Select n_keep of n rows by influence [n, e, m] on m target rows, or groups. learning_rate [e]."""
    n, _, m = influence.shape
    return _select(by_influence(influence, learning_rate, np.arange(m)), n, m, n_keep)


FORMS = {"influence": select_influence}


def _select(likeness: Likeness, n: int, m: int, n_keep: int) -> Selected:
    table = _normalized(likeness, n, m)
    mean, fallen = np.zeros(m), 0.0  # of the picks; and the sum of its largest falls, one for each pick
    falls, taken_for = np.empty(n_keep), np.full(n, -1)
    picked = 0

    def gains(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        above: NDArray[np.float64] = (table[rows] - mean).max(axis=1)
        return above - fallen  # so that it only falls

    def take(row: int) -> None:
        nonlocal mean, fallen, picked
        taken_for[row], falls[picked] = (table[row] - mean).argmax(), fallen
        picked += 1
        change = (table[row] - mean) / picked
        mean, fallen = mean + change, fallen + max(0.0, -change.min())

    positions, gained = lazy(n, n_keep, gains, take)
    return positions, {"gain": column(n, positions, gained + falls), "target": taken_for}


def _normalized(likeness: Likeness, n: int, m: int) -> NDArray[np.float32]:
    """Likeness [n, m], that to each target row with mean 0 and deviation 1; 0 where all rows are alike to it."""
    table = np.empty((n, m), np.float32)
    for targets, rows, values in likeness:
        table[rows, targets] = values.T
    for j in range(m):
        values = table[:, j].astype(np.float64)
        deviation = values.std()
        table[:, j] = (values - values.mean()) / deviation if deviation > 0 else 0
    return table
