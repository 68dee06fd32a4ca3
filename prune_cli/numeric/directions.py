"""Rows as directions: each checkpoint's vector at length one, the checkpoints weighted by their learning rates.

The inner product of two rows is the mean of their cosines over checkpoints, weighted by learning rates, which LESS
(arXiv 2402.04333) calls influence; with one checkpoint it is their cosine. The square of their distance is 2 minus
twice that, where no vector is zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.cosine import unit


class Directions:
    """n directions [n, e × d], made a few at a time when they are asked for: memory does not grow with n."""

    def __init__(self, trajectory: NDArray[Any], learning_rate: NDArray[np.float64]) -> None:
        self._trajectory = trajectory
        total, e = learning_rate.sum(), len(learning_rate)
        self._root = np.sqrt(learning_rate / total if total > 0 else np.full(e, 1 / e))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and numbers in each."""
        n, e, d = self._trajectory.shape
        return n, e * d

    def __len__(self) -> int:
        """Rows."""
        return len(self._trajectory)

    def __getitem__(self, rows: Any) -> NDArray[np.float64]:
        """The directions [b, e × d] of rows, a slice or positions."""
        block = unit(np.asarray(self._trajectory[rows], np.float64)) * self._root[:, None]
        return block.reshape(len(block), -1)
