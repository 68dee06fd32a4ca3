"""Rows that are like all the others, and unlike each other: the greedy maximum of a graph cut.

f(S) = Σ_{i ∈ V} Σ_{j ∈ S} s_ij − λ Σ_{i, j ∈ S} s_ij, s the cosine. The next pick is the row that adds most:
Σ_i s_ij − 2λ Σ_{k ∈ S} s_kj − λ s_jj. With (1 + cos) / 2, which is never negative, the picks are the same.

Source: Lin and Bilmes 2011, ACL (A class of submodular functions for document summarization), section 3, which names
it; in this form with λ in Iyer and Bilmes 2015 and in Kothawade et al. 2022, arXiv 2202.10680.

f never falls with a further row for λ up to ½, the default. The sums over cosines are inner products with sums of rows,
so no matrix of pairs is needed; the rows are read once for each pick. It runs on any representation, all checkpoints
side by side or averaged. Rows come in the order of picking, and a smaller budget is the beginning of a larger one.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import column, row_blocks
from prune_cli.numeric.products import held, products
from prune_cli.numeric.vectors import Checkpoints, vectors


def select(
    features: NDArray[Any],
    n_keep: int,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    penalty: Annotated[float, "λ: how much likeness among kept rows counts against them."] = 0.5,
    checkpoints: Checkpoints = "side",
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by features [n, e × d]: int64 [n_keep]. Column `gain`: what a kept row added to f."""
    rows = held(vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=True))
    total = sum(block.sum(axis=0) for _, block in row_blocks(rows))
    squares = np.concatenate([(block**2).sum(axis=1) for _, block in row_blocks(rows)])  # 1, or 0 for a row of zeros
    gain = products(rows, total) - penalty * squares
    positions, gained = np.empty(n_keep, np.int64), np.empty(n_keep)
    for t in range(n_keep):
        positions[t] = gain.argmax()
        gained[t] = gain[positions[t]]
        gain -= 2 * penalty * products(rows, np.asarray(rows[positions[t]], np.float64))
        gain[positions[t]] = -np.inf
    return positions, {"gain": column(len(rows), positions, gained)}
