"""The rows in the middle: the n_keep ranks around the median rank, nearest to it first.

Rows are ranked by score, lowest first, and equal scores in the order of rows. Of two ranks equally far from
the median the lower comes first, so a band that cannot be centred leans to the low scores by half a rank.

Source: Moderate Coreset, Xia et al. 2023, ICLR.

The paper keeps the scores nearest to the median score; here nearness is counted in ranks. A smaller budget is the
beginning of a larger one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def select(score: NDArray[np.float64], n_keep: int) -> NDArray[np.int64]:
    """Select n_keep of n rows by score [n]: int64 [n_keep]."""
    n = len(score)
    ranks = np.argsort(np.abs(np.arange(n) - (n - 1) / 2), kind="stable")[:n_keep]
    return np.argsort(score, kind="stable")[ranks]
