"""Linear CKA: how alike two representations of the same rows are, whatever their widths, turned or scaled.

Kornblith et al. 2019, "Similarity of neural network representations revisited", arXiv 1905.00414. With more features
than rows their estimate comes near 1 for whatever representations; so HSIC is estimated here without bias (Song et al.
2012, "Feature selection via dependence maximization", JMLR 13, eq. 5), of which expectations for unrelated ones are 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import NUMBERS, Array, row_blocks
from prune_cli.numeric.views import Centred


def linear_cka(representations: Sequence[Array]) -> NDArray[np.float64]:
    """CKA [r, r] of representations [n, d_r], n > 3; NaN with one that is the same for all rows."""
    centred = [Centred(array) for array in representations]
    r = len(centred)
    hsic = np.zeros((r, r))
    for i in range(r):
        for j in range(i + 1):
            hsic[i, j] = hsic[j, i] = _hsic(centred[i], centred[j])
    own = np.sqrt(np.where([_varies(array) for array in representations], np.diag(hsic), np.nan))
    return hsic / np.outer(own, own)


def _hsic(x: Array, y: Array) -> float:
    """n (n − 3) times the unbiased estimate of HSIC of centred rows x [n, d] and y [n, f], with inner products.

    The diagonals of the kernels K = x xᵀ and L = y yᵀ are left out of it. As the rows of K and L add up to zero, with
    k and l their diagonals it is ‖xᵀy‖² − n / (n − 2) Σ k l + Σ k Σ l / ((n − 1) (n − 2)).
    """
    n = len(x)
    k, l = _squares(x), _squares(y)  # noqa: E741  # the letters of the formula
    product = _by_features(x, y) if x.shape[1] * y.shape[1] <= n * n else _by_rows(x, y)
    return float(product - n / (n - 2) * (k @ l) + k.sum() * l.sum() / ((n - 1) * (n - 2)))


def _varies(array: Array) -> bool:
    """Whether its rows are not all the same."""
    first = array[:1]
    return any((block != first).any() for _, block in row_blocks(array))


def _squares(x: Array) -> NDArray[np.float64]:
    """The squared length of each row [n]."""
    squares = np.empty(len(x))
    for rows, block in row_blocks(x):
        squares[rows] = (block**2).sum(axis=1)
    return squares


def _by_features(x: Array, y: Array) -> float:
    """‖xᵀy‖², from the [d, f] products of features, added up over blocks of rows."""
    total = np.zeros((x.shape[1], y.shape[1]))
    for rows in _slices(len(x), max(x.shape[1], y.shape[1])):
        total += x[rows].T @ y[rows]
    return float((total**2).sum())


def _by_rows(x: Array, y: Array) -> float:
    """‖xᵀy‖² = Σ K L, from the products of rows, a block of them with another."""
    total = 0.0
    for some in _slices(len(x), max(x.shape[1], y.shape[1])):
        ours, theirs = x[some], y[some]
        for others in _slices(len(x), max(x.shape[1], y.shape[1])):
            total += float(((ours @ x[others].T) * (theirs @ y[others].T)).sum())
    return total


def _slices(n: int, width: int) -> Iterator[slice]:
    """Blocks of rows of so many numbers."""
    step = max(1, min(NUMBERS // width, 2048))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))
