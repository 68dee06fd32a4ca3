"""Divide a budget of rows among clusters or labels: whole numbers that add up exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def equal_shares(sizes: NDArray[np.int64], total: int, order: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """The same share for each; what a small one cannot give is shared among the larger.

    S2L's rule: visited smallest first, each gives an equal part of what is left of total, rounded down, or all it has
    where that is less. total is at most the sum of sizes. order: the order of visits, smallest first; None: of equal
    sizes the first comes first. As parts are rounded down, those visited last give one more, or give one at all.
    """
    shares = np.zeros(len(sizes), np.int64)
    left = total
    for visited, j in enumerate(np.argsort(sizes, kind="stable") if order is None else order):
        shares[j] = min(int(sizes[j]), left // (len(sizes) - visited))
        left -= int(shares[j])
    return shares


def smallest_first(sizes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """An order from the smallest size to the largest, equal sizes in random order."""
    shuffled = rng.permutation(len(sizes))
    return shuffled[np.argsort(sizes[shuffled], kind="stable")]


def proportional_shares(
    sizes: NDArray[np.int64], total: int, rng: np.random.Generator | None = None
) -> NDArray[np.int64]:
    """Shares in proportion to sizes by the largest remainder; of equal remainders at random, without rng the first."""
    shares, remainders = np.divmod(sizes * total, sizes.sum())
    order = np.arange(len(sizes)) if rng is None else rng.permutation(len(sizes))
    shares[order[np.argsort(-remainders[order], kind="stable")][: total - shares.sum()]] += 1
    return shares
