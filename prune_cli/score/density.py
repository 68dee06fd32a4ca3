"""Density: how close together the rows around a row are.

With how=neighbours s_i = −(1/k) Σ_j ‖x_i − x_j‖ over the k nearest other rows. With how=kernel
s_i = log 1/(n − 1) Σ_j exp(−‖x_i − x_j‖² / 2h²) over all other rows, h the bandwidth.

Source: kernel density estimate: Parzen 1962; nearest neighbours: Loftsgaarden and Quesenberry 1965.
Higher: more rows are near; keep the lowest (`--method bottom`) for rare rows.
Differs: constants that are the same for all rows are left out, and the mean distance to k neighbours stands in place of
the distance to the k-th, which one row more or less changes. A row does not count for its own density: the order is the
same, but in hundreds of dimensions the kernels of all others are too small to be seen beside its own.

It runs on any representation, all checkpoints side by side or averaged. Either way all pairs of rows are looked at, a
block at a time, in single precision where that is enough.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, row_blocks, table
from prune_cli.numeric.neighbours import with_distances
from prune_cli.numeric.vectors import Checkpoints, Normalize, vectors
from prune_cli.numeric.views import Centred

OURS, OTHERS = 1024, 4096  # rows that are compared at a time: 16 MiB of kernels
LARGE = 1e4  # half of a squared length in bandwidths, above which powers would be rounding in single precision


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
    """Score rows by features [n, e × d]: float64 [n], 0 or less; of a single row 0."""
    rows = Centred(vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=normalize))
    if len(rows) == 1:
        return np.zeros(1)
    if how == "neighbours":
        return -with_distances(rows, min(k, len(rows) - 1))[1].mean(axis=1)
    return _by_kernel(rows, bandwidth)


def _by_kernel(rows: Array, bandwidth: float) -> NDArray[np.float64]:
    """The log of the mean kernel of all other rows. Sums are kept as their largest power and the rest beside it."""
    n, d = rows.shape
    scaled, half, squares = table((n, d)), np.empty(n), 0.0
    for where, block in row_blocks(rows):
        scaled[where] = block
        squares += (block**2).sum()
    h = bandwidth or np.sqrt(squares / (n * d)) * n ** (-1 / (d + 4)) or 1.0
    for start in range(0, n, OTHERS):
        where = slice(start, start + OTHERS)
        scaled[where] /= h
        half[where] = np.square(scaled[where], dtype=np.float64).sum(axis=1) / 2
    exact = np.float64 if half.max() > LARGE else np.float32
    most, total = np.full(n, -np.inf), np.zeros(n)
    for first in range(0, n, OURS):
        own = slice(first, first + OURS)
        for start in range(0, n, OTHERS):
            others = slice(start, start + OTHERS)
            power = scaled[others].astype(exact, copy=False) @ scaled[own].T.astype(exact, copy=False)
            power -= half[others, None].astype(exact)
            power -= half[own].astype(exact)
            np.minimum(power, 0, out=power)
            same = np.arange(max(first, start), min(first + OURS, start + OTHERS, n))
            power[same - start, same - first] = -np.inf
            highest = np.maximum(most[own], power.max(axis=0))
            power -= highest.astype(exact)
            total[own] *= np.exp(most[own] - highest)
            total[own] += np.exp(power, out=power).sum(axis=0)
            most[own] = highest
    return most + np.log(total / (n - 1))
