"""The highest of whole numbers that come a few columns at a time, for many lines together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
LOW = 2**32 - 1  # the lower half of a number
NONE = np.iinfo(np.int64).min  # there is none
LEAST = 64  # columns that are put by before any is passed over


class Highest:
    """The k highest numbers of each of m lines.

    What comes is put by until it is as much as is kept: each number is then looked at about twice, however few come
    at a time.
    """

    def __init__(self, m: int, k: int) -> None:
        self._k, self._room = k, max(k, LEAST)
        self._held = np.full((m, k + self._room), NONE)
        self._ends = np.full(m, k)  # where the next of each line goes

    def add(self, lines: Numbers, numbers: Numbers) -> None:
        """More numbers [l, b] of some lines [l]."""
        if numbers.shape[1] > self._room:
            numbers = np.partition(numbers, -self._k, axis=1)[:, -self._k :]
        b = numbers.shape[1]
        self._settle(lines[self._ends[lines] + b > self._held.shape[1]])
        for end in np.unique(self._ends[lines]):
            some = self._ends[lines] == end
            self._held[lines[some], end : end + b] = numbers[some]
        self._ends[lines] += b

    def sorted(self) -> Numbers:
        """The highest first: [m, k], NONE where a line had fewer."""
        self._settle(np.arange(len(self._held)))
        return np.sort(self._held[:, : self._k], axis=1)[:, ::-1]

    def _settle(self, lines: Numbers) -> None:
        if len(lines):
            self._held[lines, : self._k] = np.partition(self._held[lines], -self._k, axis=1)[:, -self._k :]
            self._held[lines, self._k :] = NONE
            self._ends[lines] = self._k


def numbered(likeness: NDArray[np.int64], positions: NDArray[np.int64]) -> Numbers:
    """Rows [b] at positions as one number each [l, b]: their order is that of likeness [l, b], of equals the first row.

    likeness: 32 bits.
    """
    return likeness * (LOW + 1) + (LOW - positions)


def positions(numbers: Numbers) -> Numbers:
    """Where the rows stand that numbers are of."""
    return LOW - (numbers & LOW)
