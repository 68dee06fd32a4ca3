"""Kernel ridge regression: values known of some rows, predicted for others by how like those they are.

f(x) = Σ_l w_l k(x, x_l) over the N rows whose values Y [N, c] are known, w = (K + λI)⁻¹ Y. Vectors are scaled to length
one, and k(x, z) = x·z + 1, a linear function with an intercept. Left out of the fit, the known row l would be predicted
to within y_l − f₋ₗ(x_l) = w_l / ((K + λI)⁻¹)_ll (as ridge regression's in Golub, Heath and Wahba 1979, Technometrics
21, 215–223), which costs no fit more. λ is that of GRID × the mean eigenvalue of K for which the errors of rows left
out are the smallest, those of a column over its variance.

Memory: three matrices of N × N.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, row_blocks
from prune_cli.numeric.correlation import correlations, ranks
from prune_cli.numeric.cosine import unit

GRID = 10.0 ** np.arange(-6, 3.5, 0.5)


@dataclass(frozen=True)
class Fit:
    """A fit to the values of N rows.

    rows: their vectors [N, d], of length one. weights [N, c]. ridge: λ. left_out [N, c]: what each row's values are
    predicted to be by a fit without that row.
    """

    rows: NDArray[np.float64]
    weights: NDArray[np.float64]
    ridge: float
    left_out: NDArray[np.float64]

    def predicted(self, features: Array) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """The values [b, c] of rows of features [n, d], a block at a time, and where they stand."""
        for where, block in row_blocks(features, beside=len(self.rows)):
            yield where, kernel(unit(block), self.rows) @ self.weights


def kernel(x: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """How alike rows [b, d] and [N, d] of length one are: [b, N]."""
    return x @ z.T + 1


def fit(features: NDArray[np.floating], values: NDArray[np.float64]) -> Fit:
    """Fit values [N, c] to features [N, d]."""
    rows = unit(np.asarray(features, np.float64))
    eigenvalues, vectors = np.linalg.eigh(kernel(rows, rows))
    eigenvalues = np.maximum(eigenvalues, 0)  # those below are rounding
    turned, squares, variance = vectors.T @ values, vectors**2, values.var(axis=0)
    best = np.inf
    for ridge in eigenvalues.mean() * GRID:
        shrunk = 1 / (eigenvalues + ridge)
        weights = vectors @ (turned * shrunk[:, None])
        errors = weights / (squares @ shrunk)[:, None]
        total = (errors**2).mean(axis=0) @ np.divide(1, variance, out=np.zeros_like(variance), where=variance > 0)
        if total < best:
            best, chosen = total, (weights, float(ridge), values - errors)
    return Fit(rows, *chosen)


def explained(values: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """R²: the share of the variance of values [N, c] that predictions explain, the mean over columns; NaN as below."""
    varies = np.ptp(values, axis=0) > 0
    if not varies.any():
        return np.nan
    true, errors = values[:, varies], (values - predicted)[:, varies]
    return float(1 - ((errors**2).mean(axis=0) / true.var(axis=0)).mean())


def agreement(values: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """Spearman's correlation of values [N, c] with predictions, the mean over columns; NaN where none varies."""
    found = [correlations(np.stack([ranks(v), ranks(p)]))[0, 1] for v, p in zip(values.T, predicted.T, strict=True)]
    known = [r for r in found if not np.isnan(r)]
    return float(np.mean(known)) if known else np.nan
