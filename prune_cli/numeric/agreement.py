"""Inner products of rows with means of rows, checkpoint by checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import row_blocks
from prune_cli.numeric.cosine import unit


def group_means(
    trajectory: NDArray[Any], group: NDArray[np.int64] | None, scale: NDArray[Any] | None, *, normalize: bool
) -> NDArray[np.float64]:
    """Mean [g, e, d] of each group's rows of trajectory [n, e, d]; without group [n] all rows are one.

    scale [n, e]: what the vectors are to be multiplied by. normalize: each has length one at each checkpoint.
    """
    if group is None:
        group = np.zeros(len(trajectory), np.int64)
    names, sizes = np.unique(group, return_counts=True)
    sums = np.zeros((len(names), *trajectory.shape[1:]), np.float64)
    for rows, block in row_blocks(trajectory):
        member = (names[:, None] == group[rows]).astype(np.float64)  # [g, b]
        sums += np.tensordot(member, _vectors(block, scale, rows, normalize), axes=1)
    return sums / sizes[:, None, None]


def best_agreement(
    trajectory: NDArray[Any], means: NDArray[np.float64], scale: NDArray[Any] | None, *, normalize: bool
) -> NDArray[np.float64]:
    """The largest inner product, over g, of each row of trajectory [n, e, d] with means [g, e, d]: float64 [n]."""
    flat = means.reshape(len(means), -1)  # [g, e × d]
    best = np.empty(len(trajectory), np.float64)
    for rows, block in row_blocks(trajectory):
        vectors = _vectors(block, scale, rows, normalize)
        best[rows] = (vectors.reshape(len(block), -1) @ flat.T).max(axis=1)
    return best


def _vectors(
    block: NDArray[np.float64], scale: NDArray[Any] | None, rows: slice, normalize: bool
) -> NDArray[np.float64]:
    """Rows [b, e, d] at length one, or as long as they are."""
    if normalize:
        return unit(block)
    return block if scale is None else block * scale[rows, :, None]
