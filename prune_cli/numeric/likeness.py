"""How like each row is to each target row, by influence or by words, a block at a time; by cosine: cosine.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import NUMBERS, row_blocks
from prune_cli.numeric.bm25 import weigh

Likeness = Iterator[tuple[slice, slice, NDArray[np.float64]]]  # which target rows, which rows; [target rows, rows]


def by_influence(influence: NDArray[Any], learning_rate: NDArray[np.float64], used: NDArray[np.int64]) -> Likeness:
    """Influence [n, e, m] on the target rows `used`, summed over checkpoints with learning rates [e] for weights."""
    for rows, block in row_blocks(influence):
        yield slice(0, len(used)), rows, np.tensordot(learning_rate, block[:, :, used], axes=(0, 1)).T


def by_words(text: Sequence[str], target_text: Sequence[str], k1: float, b: float) -> Likeness:
    """How well texts [n] answer target_text [m] as queries, by BM25."""
    rows, queries = weigh(text, target_text, k1, b)
    step = max(1, NUMBERS // max(1, *rows.shape))
    for start in range(0, len(target_text), step):
        asked = queries[start : start + step].toarray()
        yield slice(start, start + len(asked)), slice(0, len(text)), np.asarray((rows @ asked.T).T)
