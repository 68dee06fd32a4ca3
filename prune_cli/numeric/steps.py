"""Vectors of rows at one checkpoint, and what is solved with their Gram matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import row_blocks


def step_blocks(
    trajectory: NDArray[Any], scale: NDArray[Any] | None, checkpoint: int, beside: int = 0
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Blocks [b, d] of trajectory [n, e, d] at one checkpoint, and where their rows stand.

    scale [n, e]: what the vectors are to be multiplied by. beside: as of row_blocks.
    """
    for rows, block in row_blocks(trajectory[:, checkpoint], beside):
        yield rows, block if scale is None else block * scale[rows, checkpoint, None]


def damped_products(
    trajectory: NDArray[Any],
    scale: NDArray[Any] | None,
    checkpoint: int,
    directions: NDArray[np.float64],
    damping: float,
) -> NDArray[np.float64]:
    """Φ (ΦᵀΦ + λI)⁻¹ vᵀ [n, g], Φ [n, d] the vectors of trajectory [n, e, d] at a checkpoint, v directions [g, d].

    λ is damping × the mean of the eigenvalues that ΦᵀΦ can have above zero: trace / min(n, d). Where n is at most d it
    is (ΦΦᵀ + λI)⁻¹ Φvᵀ, the same: the matrix that is solved has the smaller side of the two. Zeros where all of Φ is.
    """
    from scipy.linalg import cho_factor, cho_solve  # here, as most scores need none of it

    n, _, d = trajectory.shape
    products = np.empty((n, len(directions)))
    if n <= d:
        whole = np.empty((n, d))
        for rows, block in step_blocks(trajectory, scale, checkpoint):
            whole[rows] = block
        gram, products = whole @ whole.T, whole @ directions.T
    else:
        gram = np.zeros((d, d))
        for _, block in step_blocks(trajectory, scale, checkpoint):
            gram += block.T @ block
    total = gram.trace()
    if total == 0:
        return np.zeros((n, len(directions)))
    gram.flat[:: len(gram) + 1] += damping * total / len(gram)
    factor = cho_factor(gram, overwrite_a=True, check_finite=False)
    if n <= d:
        return np.asarray(cho_solve(factor, products, check_finite=False))
    solved = cho_solve(factor, directions.T, check_finite=False)  # [d, g]
    for rows, block in step_blocks(trajectory, scale, checkpoint):
        products[rows] = block @ solved
    return products


def main_directions(
    trajectory: NDArray[Any], scale: NDArray[Any] | None, checkpoint: int, rank: int
) -> NDArray[np.float64]:
    """The first right singular vectors [r, d] of the vectors [m, d] of a checkpoint, r at most rank; no zero ones.

    Of XᵀX or XXᵀ, whichever is smaller, the eigenvectors are taken.
    """
    m, _, d = trajectory.shape
    blocks = step_blocks(trajectory, scale, checkpoint)
    if d <= m:
        gram = np.zeros((d, d))
        for _, block in blocks:
            gram += block.T @ block
    else:
        whole = np.concatenate([block for _, block in blocks])
        gram = whole @ whole.T
    values, vectors = np.linalg.eigh(gram)
    kept = np.flatnonzero(values > values[-1] * len(gram) * np.finfo(np.float64).eps)[::-1][:rank]
    found = vectors[:, kept]
    if d > m:
        found = whole.T @ found / np.sqrt(values[kept])
    return np.asarray(found.T)
