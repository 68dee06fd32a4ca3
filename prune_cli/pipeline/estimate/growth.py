"""What grows with rows: tokens that a model goes through, padding counted, and lines through what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prune_cli import options
from prune_cli.models.batching import batches


@dataclass(frozen=True)
class Line:
    """constant + slope × amount, neither below 0."""

    constant: float
    slope: float

    def at(self, amount: float) -> float:
        """Its value there."""
        return self.constant + self.slope * amount


def line(points: Sequence[tuple[float, float]]) -> Line:
    """The line through the first and the last of points (amount, value), whose amounts do not fall.

    Through the last alone where amounts are the same, or the value fell; from the origin where it would start below 0.
    """
    (x, y), (u, v) = points[0], points[-1]
    if u == x or v <= y:
        return Line(v, 0.0)
    slope = (v - y) / (u - x)
    return Line(y - slope * x, slope) if slope * x <= y else Line(0.0, v / u)


def expected_longest(lengths: NDArray[np.int64], rows: int) -> float:
    """The expected length of the longest of a random draw of rows, none twice, from those of these lengths [n]."""
    n = len(lengths)
    values, counts = np.unique(lengths, return_counts=True)
    within = np.cumsum(counts)  # rows that are as long at most
    drawn = np.arange(min(rows, n))
    below = np.prod(np.clip(within[:, None] - drawn, 0, None) / (n - drawn), axis=1)  # P(longest <= value)
    return float(values @ np.diff(below, prepend=0.0))


def trained(lengths: NDArray[np.int64], n: int, opts: options.Finetune) -> float:
    """Tokens of a whole training on n rows of these lengths, in batches drawn at random."""
    whole, rest = divmod(n, opts.batch_size)
    epoch = whole * opts.batch_size * expected_longest(lengths, opts.batch_size)
    if rest:
        epoch += rest * expected_longest(lengths, rest)
    return epoch * opts.passes(n)


def walked(lengths: NDArray[np.int64], n: int, rows: int, tokens: int) -> float:
    """Tokens of one pass over n rows of these lengths, the longest first, in batches of so many rows and tokens."""
    if n == 0:
        return 0.0
    drawn = np.sort(lengths)[((np.arange(n) + 0.5) * len(lengths) / n).astype(np.int64)]
    return float(sum(len(batch) * int(drawn[batch].max()) for batch in batches(drawn, rows, tokens)))
