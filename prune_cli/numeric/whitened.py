"""Rows whitened and at length one, so that no direction in which all of them differ much outweighs the others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, row_blocks
from prune_cli.numeric.cosine import unit


class Whitened:
    """Rows [n, d] as unit((x − μ) W), [n, r], made a few at a time when they are asked for."""

    def __init__(self, rows: Array, mean: NDArray[np.float64], matrix: NDArray[np.float64]) -> None:
        self._rows, self._mean, self._matrix = rows, mean, matrix

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, rows first."""
        return len(self._rows), self._matrix.shape[1]

    def __len__(self) -> int:
        """Rows."""
        return len(self._rows)

    def __getitem__(self, rows: Any) -> NDArray[np.float64]:
        """Some of the rows."""
        return unit((np.asarray(self._rows[rows], np.float64) - self._mean) @ self._matrix)


def whitening(some: Array, others: Array, damping: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean μ [d] of all rows [n, d] and [m, d], and W [d, d] with W Wᵀ = (Σ + λI)⁻¹, by Cholesky's factor.

    Where the rows are no more than d, W is [d, r], which is the same to them. Σ is their covariance, λ damping × the
    mean of its eigenvalues.
    """
    from scipy.linalg import solve_triangular  # here, as listing methods imports no scipy

    n, d = len(some) + len(others), some.shape[1]
    mean = sum(block.sum(axis=0) for rows in (some, others) for _, block in row_blocks(rows)) / n
    if n <= d:
        return mean, _in_their_span(some, others, mean, damping)
    covariance = np.zeros((d, d))
    for rows in (some, others):
        for _, block in row_blocks(rows):
            centred = block - mean
            covariance += centred.T @ centred / n
    covariance.flat[:: d + 1] += damping * covariance.trace() / d or 1.0
    return mean, np.asarray(solve_triangular(np.linalg.cholesky(covariance), np.eye(d), lower=True).T)


def _in_their_span(some: Array, others: Array, mean: NDArray[np.float64], damping: float) -> NDArray[np.float64]:
    """A W [d, r] that gives rows, which span r dimensions, the same inner products; of their products [n, n]."""
    whole = np.concatenate([block - mean for rows in (some, others) for _, block in row_blocks(rows)])
    n, d = whole.shape
    values, vectors = np.linalg.eigh(whole @ whole.T / n)
    kept = values > max(values[-1], 0) * n * np.finfo(np.float64).eps
    values = values[kept]
    return whole.T @ vectors[:, kept] / np.sqrt(n * values * (values + damping * values.sum() / d))
