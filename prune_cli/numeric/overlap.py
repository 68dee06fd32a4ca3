"""What two selections of the same rows have in common, beside what two random draws of their sizes would."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def overlap(common: float, a: int, b: int) -> float:
    """|A∩B| / min(|A|, |B|) of selections of a and b rows."""
    return common / min(a, b)


def jaccard(common: int, a: int, b: int) -> float:
    """|A∩B| / |A∪B| of selections of a and b rows."""
    return common / (a + b - common)


@dataclass(frozen=True)
class Chance:
    """How many rows two random draws of a and b out of n rows have in common: counts [c], their probabilities [c].

    The number is hypergeometric.
    """

    n: int
    a: int
    b: int
    counts: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def overlap(self) -> float:
        """The expected overlap, exact: a·b / n rows in common are expected."""
        return overlap(self.a * self.b / self.n, self.a, self.b)

    @property
    def jaccard(self) -> float:
        """The expected Jaccard index, summed over all counts."""
        return float(self.probabilities @ (self.counts / (self.a + self.b - self.counts)))

    def at_least(self, common: int) -> float:
        """The probability of so many rows in common, or more."""
        return min(1.0, float(self.probabilities[self.counts >= common].sum()))

    def at_most(self, common: int) -> float:
        """The probability of so many rows in common, or fewer."""
        return min(1.0, float(self.probabilities[self.counts <= common].sum()))


def chance(n: int, a: int, b: int) -> Chance:
    """What two random draws of a and b out of n rows have in common.

    From each count to the next the probability grows by (a − x)(b − x) / ((x + 1)(n − a − b + x + 1)).
    """
    counts = np.arange(max(0, a + b - n), min(a, b) + 1)
    x = counts[:-1].astype(np.float64)
    steps = np.log(a - x) + np.log(b - x) - np.log(x + 1) - np.log(n - a - b + x + 1)
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.exp(logs - logs.max())
    return Chance(n, a, b, counts, weights / weights.sum())
