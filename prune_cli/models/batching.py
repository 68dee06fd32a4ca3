"""Batches of a bounded size, longest rows first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def longest_first(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions [n], longest example first (input order among equals): little padding, memory trouble early."""
    return np.argsort(-lengths, kind="stable")


def next_batch(order: NDArray[np.int64], lengths: NDArray[np.int64], rows: int, tokens: int) -> NDArray[np.int64]:
    """The next batch from `order` (longest first): at most `rows` rows and `tokens` tokens, padding counted.

    It has one row at least, however long that is.
    """
    longest = max(1, int(lengths[order[0]]))
    return order[: max(1, min(rows, tokens // longest))]


def batches(lengths: NDArray[np.int64], rows: int, tokens: int) -> Iterator[NDArray[np.int64]]:
    """All positions [n], longest example first, in batches as `next_batch` forms them."""
    order = longest_first(lengths)
    while len(order):
        batch = next_batch(order, lengths, rows, tokens)
        yield batch
        order = order[len(batch) :]
