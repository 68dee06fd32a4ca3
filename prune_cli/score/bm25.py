"""BM25: how well a row's text answers the target rows' texts as queries.

s_i = max_v Σ_{t∈v} idf(t) f_i(t) / ( f_i(t) + k₁ (1 − b + b |i| / mean |·|) ), idf(t) = log( 1 + (n − n_t + ½) /
(n_t + ½) ), t the words of target row v, each as often as it stands there, f_i(t) how often row i has it, |i| the words
of row i, n_t the rows that have t. With reduce=mean the mean over target rows.

Source: Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", in the form of Lucene, as
compared by Lù 2024, arXiv 2407.03618.
Higher: shares more rare words with a target row; 0 where it shares none.

A word is a run of letters, digits and underscores in lower case, and in scripts without spaces, such as Chinese, a
letter. No word is left out, and none is cut to its stem.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.bm25 import K1, B, weigh
from prune_cli.numeric.likeness import by_words


def score(
    text: Sequence[str],
    target_text: Sequence[str],
    *,
    reduce: Annotated[Literal["max", "mean"], "Best target row (max), or the mean over all of them (mean)."] = "max",
    k1: K1 = 1.5,
    b: B = 0.75,
) -> NDArray[np.float64]:
    """Score rows by text [n] against target_text [m]: float64 [n], 0 or more."""
    if reduce == "mean":
        rows, queries = weigh(text, target_text, k1, b)
        return np.asarray(rows @ np.asarray(queries.mean(axis=0)).ravel())
    best = np.zeros(len(text))
    for _, _, found in by_words(text, target_text, k1, b):
        np.maximum(best, found.max(axis=0), out=best)
    return best
