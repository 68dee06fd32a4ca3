"""Arrays seen another way, a block of rows at a time: some of the rows, or all of them about their mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, row_blocks


class Drawn:
    """The rows at positions [m] of an array [n, d], in that order."""

    def __init__(self, array: Array, positions: NDArray[np.int64]) -> None:
        self._array, self._positions = array, positions

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, rows first."""
        return len(self._positions), *self._array.shape[1:]

    def __len__(self) -> int:
        """Rows."""
        return len(self._positions)

    def __getitem__(self, rows: Any) -> Any:
        """Some of the rows."""
        return self._array[self._positions[rows]]


class Centred:
    """Rows [n, d] as float64 less their mean."""

    def __init__(self, array: Array) -> None:
        self._array = array
        total = np.zeros(array.shape[1:])
        for _, block in row_blocks(array):
            total += block.sum(axis=0)
        self.mean = total / len(array)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, rows first."""
        return self._array.shape

    def __len__(self) -> int:
        """Rows."""
        return len(self._array)

    def __getitem__(self, rows: Any) -> Any:
        """Some of the rows."""
        return np.asarray(self._array[rows], np.float64) - self.mean
