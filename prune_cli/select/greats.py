"""Rows whose gradients help the target set, each pick counted for less the more it is like the picks before it.

The next pick is the i with the largest Σ_e η_e ⟨g_ie, ḡ_e⟩ − η_e² ⟨g_ie, Σ_{k ∈ S} g_ke⟩: how much a further step on it
lowers the target set's loss after the steps on what is picked, by that loss's Taylor expansion of second order with
the identity for its Hessian. g_ie is the gradient of row i at checkpoint e, ḡ_e the mean of the target rows', η_e the
learning rate at a checkpoint, times `step`. With g = (2, 0), (1.9, 0) and (0, 1), ḡ = (1, 1) and η = ½: first the
first row (1 > 0.95 > 0.5); then the third, as 0.5 > 0.95 − ¼ × 3.8 = 0.

Source: GREATS, Wang et al. 2024, NeurIPS 37, OpenReview 232VcN8tSx, as in its authors' code (greedy_selection).
Differs: GREATS picks a part of each batch while the model trains, by the gradients of the model as it is then; here all
picks are made of all rows, by the gradients at the kept checkpoints, summed over these as in TracIn. Over many more
picks than a batch has, `step` weighs the second term: near 0 the picks are the best by the score tracin.

It runs on any representation; GREATS is the one on gradients. It reads the rows once for each pick. Rows come in the
order of picking, and a smaller budget is the beginning of a larger one.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import column, row_blocks
from prune_cli.numeric.products import held, products
from prune_cli.numeric.vectors import vectors


def select(
    features: NDArray[Any],
    target_features: NDArray[Any],
    n_keep: int,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    target_scale: NDArray[Any] | None = None,
    *,
    step: Annotated[float, "How many times the learning rate a step on a picked row is long."] = 1.0,
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by features [n, e × d] and target_features [m, e × d]: int64 [n_keep].

    learning_rate [e]. Column `gain`: by how much a kept row lowered the target's loss when it was picked.
    """
    learning_rate = np.ones(1) if learning_rate is None else learning_rate
    steps = np.broadcast_to(step * learning_rate, (len(features), len(learning_rate)))
    rows = held(vectors(features, learning_rate, steps if scale is None else steps * scale))  # η g, side by side
    targets = vectors(target_features, learning_rate, target_scale)
    left = sum(block.sum(axis=0) for _, block in row_blocks(targets)) / len(targets)  # ḡ less the steps taken
    positions, gained = np.empty(n_keep, np.int64), np.empty(n_keep)
    free = np.zeros(len(rows))  # −∞ once picked
    for t in range(n_keep):
        gain = products(rows, left) + free
        positions[t] = gain.argmax()
        gained[t], free[positions[t]] = gain[positions[t]], -np.inf
        left = left - np.asarray(rows[positions[t]], np.float64)
    return positions, {"gain": column(len(rows), positions, gained)}
