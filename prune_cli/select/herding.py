"""The rows whose mean stays nearest to the mean of all, each pick making up for what the last ones left out.

w_0 = μ, the mean of all rows; the next pick is argmax_i ⟨w_t, x_i⟩ among those not picked, and w_{t+1} = w_t + μ − x of
the pick. Of the points −1, 0 and 4 on a line, with mean 1: first 4, as w = 1; then w = −2, so −1.

Source: herding, Welling 2009, ICML (Herding dynamical weights to learn), with the rows themselves for features.
Differs: a row is picked once, as in its use for core-sets; Welling's samples may repeat.

It runs on any representation, all checkpoints side by side or averaged. It reads the rows once for each pick. Rows come
in the order of picking, and a smaller budget is the beginning of a larger one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import column, row_blocks
from prune_cli.numeric.products import held, products
from prune_cli.numeric.vectors import Checkpoints, Normalize, vectors


def select(
    features: NDArray[Any],
    n_keep: int,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    checkpoints: Checkpoints = "side",
    normalize: Normalize = False,
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by features [n, e × d]: int64 [n_keep]. Column `gain`: ⟨w_t, x⟩ of a kept row."""
    rows = held(vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=normalize))
    mean = sum(block.sum(axis=0) for _, block in row_blocks(rows)) / len(rows)
    toward, positions, gained = mean.copy(), np.empty(n_keep, np.int64), np.empty(n_keep)
    free = np.zeros(len(rows))  # −∞ once picked
    for t in range(n_keep):
        gain = products(rows, toward) + free
        positions[t] = gain.argmax()
        gained[t], free[positions[t]] = gain[positions[t]], -np.inf
        toward += mean - np.asarray(rows[positions[t]], np.float64)
    return positions, {"gain": column(len(rows), positions, gained)}
