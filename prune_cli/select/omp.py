"""The rows, with weights, whose weighted sum comes nearest to the sum of all: orthogonal matching pursuit.

E(S, w) = ‖Σ_{j ∈ S} w_j x_j − Σ_i x_i‖² + λ ‖w‖². The next pick is argmax_j |⟨x_j, r⟩|, r = Σ_i x_i − Σ_{k ∈ S} w_k x_k
with the w that minimises E on what is picked so far. Of the rows (3, 0), (0, 1) and (0, 1.5) on the axes, whose sum is
(3, 2.5): first (3, 0), as 9 > 3.75 > 2.5; then r is (0.16, 2.5) for λ = 0.5, and the next is (0, 1.5).

Source: GradMatch, Killamsetty et al. 2021, arXiv 2103.00123, algorithm 2, on gradients, within each label.
Differs: the paper stops where E is small enough; here the budget is filled. Its code also asks that weights be 0 or
more, which the paper's algorithm does not: a negative weight in the column marks a row that is used against its
direction.

It runs on any representation, all checkpoints side by side or averaged; the published method is the one on gradients
with `--balance keep`. It reads the rows once for each pick, and holds n_keep × d numbers in float64. Rows come in the
order of picking, and a smaller budget is the beginning of a larger one, with other weights.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import column, row_blocks
from prune_cli.numeric.products import held, products
from prune_cli.numeric.vectors import Checkpoints, Normalize, vectors

LEAST = 1e-10  # λ, in squared lengths of the longest row: below it too few digits of the weights are left


def select(
    features: NDArray[Any],
    n_keep: int,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    penalty: Annotated[float, "λ: weighs the squared weights against the squared distance to the sum."] = 0.5,
    checkpoints: Checkpoints = "side",
    normalize: Normalize = False,
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by features [n, e × d]: int64 [n_keep].

    Columns: `gain`, |⟨x, r⟩| of a kept row when it was picked; `weight`, its w in the end.
    """
    rows = held(vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=normalize))
    longest = max(float((block**2).sum(axis=1).max()) for _, block in row_blocks(rows))
    if penalty < longest * LEAST:
        raise FloatingPointError(f"a penalty of {penalty:g} is lost beside a row of length {longest**0.5:.3g}")
    total = sum(block.sum(axis=0) for _, block in row_blocks(rows))
    # r = λ (λI + Σ_S x xᵀ)⁻¹ Σ_i x_i, by which w = ⟨x, r⟩ / λ. The inverse is I/λ − AᵀA, and a pick adds a row to A
    near, taken = total / penalty, np.empty((n_keep, len(total)))  # near: r / λ; taken: A
    positions, gained = np.empty(n_keep, np.int64), np.empty(n_keep)
    free = np.zeros(len(rows))  # −∞ once picked
    for t in range(n_keep):
        gain = np.abs(products(rows, penalty * near)) + free
        positions[t] = gain.argmax()
        gained[t], free[positions[t]] = gain[positions[t]], -np.inf
        x = np.asarray(rows[positions[t]], np.float64)
        along = x / penalty - (taken[:t] @ x) @ taken[:t]
        taken[t] = along / np.sqrt(1 + x @ along)
        near -= (taken[t] @ total) * taken[t]
    weights = np.asarray(rows[positions], np.float64) @ near
    return positions, {"gain": column(len(rows), positions, gained), "weight": column(len(rows), positions, weights)}
