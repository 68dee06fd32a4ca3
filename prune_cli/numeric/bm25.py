"""BM25: rows' words, weighted so that the sum over a query's words is how well a row answers it (score/bm25.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from prune_cli.numeric.words import counts, vocabulary

K1 = Annotated[float, "How soon another occurrence of a word counts for little."]
B = Annotated[float, Meta(ge=0, le=1), "How much long rows are held back: 1 in full, 0 not at all."]


def weigh(text: Sequence[str], target_text: Sequence[str], k1: float, b: float) -> tuple[Any, Any]:
    """Weights of the target's words in rows [n, words] and their counts in target rows [m, words], both sparse.

    A row answers a target row as well as their inner product says.
    """
    known = vocabulary(target_text)
    rows, lengths = counts(text, known)
    queries, _ = counts(target_text, known)
    holding = np.bincount(rows.indices, minlength=len(known))
    idf = np.log1p((len(text) - holding + 0.5) / (holding + 0.5))
    damping = k1 * (1 - b + b * lengths / (lengths.mean() or 1))
    times = rows.data
    rows.data = times / (times + np.repeat(damping, np.diff(rows.indptr))) * idf[rows.indices]
    return rows, queries
