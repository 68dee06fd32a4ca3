"""Cosine similarities of rows to target rows, a block of both at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, row_blocks


def unit(block: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale each vector of a block […, d] to length one; zeros stay."""
    norms = np.sqrt(np.einsum("...d,...d->...", block, block))[..., None]
    return np.divide(block, norms, out=np.zeros_like(block), where=norms > 0)


def similarities(
    features: Array, target_features: Array, *, normalize: bool = True
) -> Iterator[tuple[slice, slice, NDArray[np.float64]]]:
    """Cosines of features [n, d] to target_features [m, d], every pair once; without normalize, inner products.

    Yields which target rows, which rows, and their cosines [target rows, rows]; 0 where either is a row of zeros.
    """
    scaled = unit if normalize else np.asarray
    for targets, target_block in row_blocks(target_features):
        aims = scaled(target_block)
        for rows, block in row_blocks(features, beside=len(aims)):
            yield targets, rows, aims @ scaled(block).T
