"""Density: how close together the rows around a row are.

With how=neighbours s_i = −(1/k) Σ_j ‖x_i − x_j‖ over the k nearest other rows. With how=kernel
s_i = log (1/n) Σ_j exp(−‖x_i − x_j‖² / 2h²), all rows, h the bandwidth.

Source: kernel density estimate: Parzen 1962; nearest neighbours: Loftsgaarden and Quesenberry 1965.
Higher: more rows are near; keep the lowest (`--method bottom`) for rare rows.
Differs: constants that are the same for all rows are left out, and the mean distance to k neighbours stands in place of
the distance to the k-th, which one row more or less changes.

It runs on any representation, all checkpoints side by side or averaged. Either way all pairs of rows are looked at, a
block at a time.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import row_blocks
from prune_cli.numeric.neighbours import with_distances
from prune_cli.numeric.vectors import Checkpoints, Normalize, vectors
from prune_cli.numeric.views import Centred


def score(
    features: NDArray[Any],
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    how: Annotated[
        Literal["neighbours", "kernel"], "By nearest neighbours, or by a kernel over all rows."
    ] = "neighbours",
    k: Annotated[int, "With how=neighbours: their number, at most all other rows."] = 10,
    bandwidth: Annotated[float, "With how=kernel: h; 0 for the spread times n^(−1/(d + 4)) (Scott's rule)."] = 0.0,
    checkpoints: Checkpoints = "side",
    normalize: Normalize = False,
) -> NDArray[np.float64]:
    """Score rows by features [n, e × d]: float64 [n], 0 or less."""
    rows = Centred(vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=normalize))
    n, d = rows.shape
    if how == "neighbours":
        return -with_distances(rows, min(k, n - 1))[1].mean(axis=1) if n > 1 else np.zeros(n)
    squares = np.concatenate([(block**2).sum(axis=1) for _, block in row_blocks(rows)])
    h = bandwidth or np.sqrt(squares.mean() / d) * n ** (-1 / (d + 4)) or 1.0
    density = np.zeros(n)
    for some, block in row_blocks(rows):
        for others, other in row_blocks(rows, beside=len(block)):
            distance = squares[others, None] - 2 * (other @ block.T) + squares[some]
            density[some] += np.exp(np.maximum(distance, 0) / (-2 * h * h)).sum(axis=0)
    return np.log(density / n)
