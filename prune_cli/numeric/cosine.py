"""Cosine similarities of rows to target rows, a block of both at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, row_blocks


def lengths(block: NDArray[np.float64]) -> NDArray[np.float64]:
    """The length of each vector of a block […, d]."""
    return np.sqrt(np.einsum("...d,...d->...", block, block))


def unit(block: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale each vector of a block […, d] to length one; zeros stay."""
    norms = lengths(block)[..., None]
    return np.divide(block, norms, out=np.zeros_like(block), where=norms > 0)


def similarities(
    features: Array, target_features: Array, *, normalize: bool = True
) -> Iterator[tuple[slice, slice, NDArray[np.float64]]]:
    """Cosines of features [n, d] to target_features [m, d], every pair once; without normalize, inner products.

    Yields which target rows, which rows, and their cosines [target rows, rows]; 0 where either is a row of zeros.
    """
    for targets, target_block in row_blocks(target_features):
        aims = unit(target_block) if normalize else target_block
        for rows, block in row_blocks(features, beside=len(aims)):
            found = aims @ block.T
            if normalize:
                norms = lengths(block)
                found /= np.where(norms > 0, norms, 1)
            yield targets, rows, found
