"""Divide a budget of rows among clusters or labels: whole numbers that add up exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def equal_shares(sizes: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """The same share for each; what a small one cannot give is shared among the larger.

    S2L's rule: visited smallest first (of equals, the first first), each gives an equal part of what is left
    of total, rounded down, or all it has where that is less. total is at most the sum of sizes.
    """
    shares = np.zeros(len(sizes), np.int64)
    left = total
    for visited, j in enumerate(np.argsort(sizes, kind="stable")):
        shares[j] = min(int(sizes[j]), left // (len(sizes) - visited))
        left -= int(shares[j])
    return shares


def proportional_shares(sizes: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Shares in proportion to sizes by the largest remainder; of equal remainders, the first first."""
    shares, remainders = np.divmod(sizes * total, sizes.sum())
    shares[np.argsort(-remainders, kind="stable")[: total - shares.sum()]] += 1
    return shares
