"""How alike every row is to some of them: the columns of a matrix of similarities that is never held as a whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import IN_MEMORY, Array, single_blocks
from prune_cli.numeric.products import held

TOGETHER = 512  # rows that the similarities of all to are worked out to at a time, where all are kept
CELLS = 2**18  # of a block of similarities: 1 MiB, which stays in a processor's cache


class Alike:
    """Similarities s_ij of n rows.

    `cosine`: (1 + cos) / 2. `euclidean`: D − ‖x_i − x_j‖, D twice the largest distance from the mean of all rows, so
    that none is negative. Rows are vectors of length one for the first, and have mean zero for the second.
    """

    def __init__(self, rows: Array, metric: str) -> None:
        self.rows = held(rows)
        self.cosine = metric == "cosine"
        self._squares = np.concatenate([(block**2).sum(axis=1) for _, block in single_blocks(self.rows)])
        self.most = 1.0 if self.cosine else 2 * float(np.sqrt(self._squares.max()))
        self._all: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Rows."""
        return len(self.rows)

    def hold(self) -> None:
        """Keep all similarities, which are symmetric, where they take no more than 256 MiB, to work each out once."""
        n = len(self)
        if 4 * n * n > IN_MEMORY:
            return
        every = np.empty((n, n), np.float32)
        for start in range(0, n, TOGETHER):
            some = np.arange(start, min(start + TOGETHER, n))
            for where, similarity in self.to(some):
                every[where, some[0] : some[-1] + 1] = similarity
        self._all = every

    def to(self, some: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Which rows, and their similarity to some of them [rows, some], the caller's to change."""
        if self._all is not None:
            yield slice(0, len(self)), self._all[some].T
            return
        columns = np.asarray(self.rows[some], np.float32).T
        step = max(1, CELLS // len(some))
        for where, block in single_blocks(self.rows):
            for start in range(0, len(block), step):
                rows = slice(where.start + start, min(where.start + start + step, where.start + len(block)))
                inner = block[start : start + step] @ columns
                yield rows, self._similarity(inner, rows, some)

    def _similarity(self, inner: NDArray[np.float32], rows: slice, some: NDArray[np.int64]) -> NDArray[np.float32]:
        """From inner products [rows, some], in place."""
        if self.cosine:
            inner += 1
            inner *= 0.5
            return inner
        inner *= -2
        inner += self._squares[rows, None]
        inner += self._squares[some]
        np.maximum(inner, 0, out=inner)
        own = np.flatnonzero((some >= rows.start) & (some < rows.stop))
        inner[some[own] - rows.start, own] = 0
        np.sqrt(inner, out=inner)
        return np.subtract(np.float32(self.most), inner, out=inner)

    def column(self, row: int) -> NDArray[np.float32]:
        """The similarity of every row to one [n]."""
        return np.concatenate([block[:, 0] for _, block in self.to(np.array([row]))])
