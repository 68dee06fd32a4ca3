"""Greedy picks of a submodular function: a row's gain only falls, so that an old one bounds what it is now.

Source: Minoux 1978 (lazy greedy); Mirzasoleiman et al. 2015, arXiv 1409.7938 (stochastic greedy).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

BATCH = 64  # gains computed together
MISSED = 0.01  # ε of stochastic greedy: its expected value is at least 1 − 1/e − ε of the best

Gains = Callable[[NDArray[np.int64]], NDArray[np.float64]]


def lazy(
    n: int, n_keep: int, gains: Gains, take: Callable[[int], None]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The picks in order, int64 [n_keep], and what each one's gain was: those of the plain greedy rule.

    gains: what rows would gain now. take: picks a row. Of equal gains the first row is taken.
    """
    bound = np.concatenate([gains(np.arange(start, min(start + BATCH, n))) for start in range(0, n, BATCH)])
    computed = np.zeros(n, np.int64)  # after how many picks
    positions, gained = np.empty(n_keep, np.int64), np.empty(n_keep)
    for t in range(n_keep):
        together = 1
        while computed[best := int(bound.argmax())] < t:
            highest = np.argpartition(-bound, together - 1)[:together] if together > 1 else np.array([best])
            stale = np.union1d(highest[computed[highest] < t], [best])  # of many equals it may not be among them
            bound[stale], computed[stale] = gains(stale), t
            together = min(2 * together, BATCH, n)
        positions[t], gained[t] = best, bound[best]
        take(best)
        bound[best], computed[best] = -np.inf, n_keep
    return positions, gained


def stochastic(
    n: int, n_keep: int, gains: Gains, take: Callable[[int], None], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The same, each pick the best of (n / n_keep) ln(1 / ε) rows drawn from those not picked."""
    size = math.ceil(n / n_keep * math.log(1 / MISSED))
    free = np.arange(n)
    positions, gained = np.empty(n_keep, np.int64), np.empty(n_keep)
    for t in range(n_keep):
        drawn = np.sort(free if len(free) <= size else rng.choice(free, size, replace=False))
        gain = np.concatenate([gains(drawn[start : start + BATCH]) for start in range(0, len(drawn), BATCH)])
        positions[t], gained[t] = drawn[gain.argmax()], gain.max()
        take(int(positions[t]))
        free = free[free != positions[t]]
    return positions, gained
