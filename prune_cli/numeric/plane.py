"""The plane in which rows differ most: principal component analysis to two dimensions, for wide rows too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, row_blocks
from prune_cli.numeric.views import Centred


@dataclass(frozen=True)
class Plane:
    """The mean [d] of rows, two directions [d, 2] of length one, and the share of the variance along each."""

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    shares: tuple[float, float]

    def place(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where rows [b, d] are in the plane [b, 2]."""
        return (rows - self.mean) @ self.axes


def plane(features: Array) -> Plane:
    """The plane of features [m, d]. A direction has its largest entry positive; without any variance it is zero."""
    from scipy.linalg import eigh

    m, d = features.shape
    centred = Centred(features)
    products = _by_features(centred) if d <= m else _by_rows(centred)  # their largest eigenvalues are the same
    size = len(products)
    first = max(size - 2, 0)
    values, vectors = eigh(products, subset_by_index=[first, size - 1])
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    axes = np.zeros((d, 2))
    found = vectors if d <= m else _combined(centred, vectors)
    length = np.linalg.norm(found, axis=0)
    told = values > 1e-12 * max(np.trace(products), 1e-300)
    axes[:, : len(values)] = np.where(told, found / np.where(length > 0, length, 1), 0)
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    shares = np.zeros(2)
    shares[: len(values)] = np.where(told, values / max(np.trace(products), 1e-300), 0)
    return Plane(centred.mean, axes * np.where(signs == 0, 1, signs), (float(shares[0]), float(shares[1])))


def _by_features(x: Array) -> NDArray[np.float64]:
    """xᵀx [d, d]."""
    total = np.zeros((x.shape[1], x.shape[1]))
    for _, block in row_blocks(x):
        total += block.T @ block
    return total


def _by_rows(x: Array) -> NDArray[np.float64]:
    """x xᵀ [m, m]."""
    products = np.empty((len(x), len(x)))
    for some, ours in row_blocks(x):
        for others, theirs in row_blocks(x):
            products[some, others] = ours @ theirs.T
    return products


def _combined(x: Array, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """xᵀ w [d, 2]."""
    total = np.zeros((x.shape[1], weights.shape[1]))
    for rows, block in row_blocks(x):
        total += block.T @ weights[rows]
    return total
