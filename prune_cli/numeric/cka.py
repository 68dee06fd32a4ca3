"""Linear CKA: how alike two representations of the same rows are, whatever their widths, turned or scaled.

Kornblith et al. 2019, "Similarity of neural network representations revisited", arXiv 1905.00414. With more features
than rows their estimate comes near 1 for whatever representations; so HSIC is estimated here without bias (Song et al.
2012, "Feature selection via dependence maximization", JMLR 13, eq. 5), of which expectations for unrelated ones are 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import NUMBERS, Array, row_blocks
from prune_cli.numeric.views import Centred

WIDE = 4096  # features: products of more with more are not held


def linear_cka(representations: Sequence[Array]) -> NDArray[np.float64]:
    """CKA [r, r] of representations [n, d_r], n > 3; NaN with one that is the same for all rows."""
    centred = [Centred(array) for array in representations]
    wide = max(array.shape[1] for array in centred) > min(WIDE, len(centred[0]))
    products = _by_rows(centred) if wide else _by_features(centred)
    squares = np.stack([_squares(array) for array in centred])
    hsic = _hsic(products, squares)
    own = np.sqrt(np.where([_varies(array) for array in representations], np.diag(hsic), np.nan))
    return hsic / np.outer(own, own)


def _hsic(products: NDArray[np.float64], squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """n (n − 3) times the unbiased estimates of HSIC [r, r] of centred rows x, with inner products.

    products [r, r]: Σ K L of the kernels K = x xᵀ of each two. squares [r, n]: the diagonals of K, which are left out
    of the estimate. As the rows of K and L add up to zero it is, with k and l their diagonals,
    Σ K L − n / (n − 2) Σ k l + Σ k Σ l / ((n − 1) (n − 2)).
    """
    n, sums = squares.shape[1], squares.sum(axis=1)
    return products - n / (n - 2) * (squares @ squares.T) + np.outer(sums, sums) / ((n - 1) * (n - 2))


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


def _by_features(arrays: Sequence[Array]) -> NDArray[np.float64]:
    """Σ K L = ‖xᵀy‖² of each two [r, r], from the [d, f] products of features, added up over blocks of rows."""
    found = np.zeros((len(arrays), len(arrays)))
    for i, x in enumerate(arrays):
        for j, y in enumerate(arrays[: i + 1]):
            total = np.zeros((x.shape[1], y.shape[1]))
            step = max(1, NUMBERS // max(x.shape[1], y.shape[1]))
            for start in range(0, len(x), step):
                rows = slice(start, start + step)
                total += x[rows].T @ y[rows]
            found[i, j] = found[j, i] = (total**2).sum()
    return found


def _by_rows(arrays: Sequence[Array]) -> NDArray[np.float64]:
    """Σ K L of each two [r, r], from the kernels themselves, some of their rows at a time: for few rows, wide ones."""
    n, r = len(arrays[0]), len(arrays)
    found = np.zeros((r, r))
    step = max(1, 4 * NUMBERS // max(r * n, *(array.shape[1] for array in arrays)))
    for start in range(0, n, step):
        kernels = np.stack([_kernel(array, slice(start, start + step)).ravel() for array in arrays])
        found += kernels @ kernels.T
    return found


def _kernel(x: Array, some: slice) -> NDArray[np.float64]:
    """Some rows [b, n] of K = x xᵀ."""
    ours = x[some]
    kernel = np.empty((len(ours), len(x)))
    for others, block in row_blocks(x):
        kernel[:, others] = ours @ block.T
    return kernel
