"""The rows that span the largest volume: the greedy mode of a determinantal point process.

The next pick is the row that multiplies det(L_S + εI) most, L_ij = ⟨x_i, x_j⟩; the factor is what is left of the row's
own L_ii + ε when the picked rows have explained what they can. With rows of length one (normalize=true, the default) L
holds cosines, and the first pick is the row most like all others; without, the longest row.

Source: Chen et al. 2018, arXiv 1709.05135, algorithm 1, with the kernel of section 6 without a relevance; for a subset
of given size, the k-DPP of Kulesza and Taskar 2011.
Differs: the paper maps cosines to (1 + cos) / 2 and stops where the factor is small. Inner products of d features
explain all rows after d picks; ε keeps the determinant above 0 from there on, so that the budget is filled. Of rows of
length one all first picks are equally good.

The paper keeps a row of the Cholesky factor for each row of data, n × n_keep numbers; here it is d × d numbers and one
reading of the rows for each pick. Rows come in the order of picking, and a smaller budget is the beginning of a larger
one.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import column, row_blocks
from prune_cli.numeric.products import held, products
from prune_cli.numeric.vectors import Checkpoints, Normalize, vectors

AFRESH = 64  # picks, after which all factors are computed anew: what is taken away adds up rounding


def select(
    features: NDArray[Any],
    n_keep: int,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    epsilon: Annotated[float, "ε, as a share of the mean of L_ii: keeps the determinant above 0."] = 1e-4,
    checkpoints: Checkpoints = "side",
    normalize: Normalize = True,
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by features [n, e × d]: int64 [n_keep]. Column `gain`: a kept row's factor."""
    rows = held(vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=normalize))
    squares = np.concatenate([(block**2).sum(axis=1) for _, block in row_blocks(rows)])
    noise = epsilon * squares.mean() or 1.0
    # the factor is ε + xᵀ P x, P = (I + Σ_S x xᵀ / ε)⁻¹, which changes by one outer product a pick
    left, gain = np.eye(rows.shape[1]), noise + squares
    positions, gained = np.empty(n_keep, np.int64), np.empty(n_keep)
    for t in range(n_keep):
        positions[t] = _central(rows) if t == 0 and normalize else gain.argmax()
        gained[t] = gain[positions[t]]
        x = np.asarray(rows[positions[t]], np.float64)
        along = left @ x
        along /= np.sqrt(noise + x @ along)
        left -= np.outer(along, along)
        if (t + 1) % AFRESH:
            gain -= products(rows, along) ** 2
        else:
            parts = [np.einsum("bd,bd->b", block @ left, block) for _, block in row_blocks(rows)]
            gain = noise + np.concatenate(parts)
        gain[positions[: t + 1]] = -np.inf
    return positions, {"gain": column(len(rows), positions, gained)}


def _central(rows: Any) -> int:
    """The row most like all others."""
    total = sum(block.sum(axis=0) for _, block in row_blocks(rows))
    return int(np.concatenate([block @ total for _, block in row_blocks(rows)]).argmax())
