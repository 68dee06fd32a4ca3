"""The rows with the highest scores, highest first; of equal scores, the row that comes first.

Source: the rule of score-based pruning that keeps the hardest, as in Paul et al. 2021, arXiv 2107.07075.

A smaller budget is the beginning of a larger one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def select(score: NDArray[np.float64], n_keep: int) -> NDArray[np.int64]:
    """Select n_keep of n rows by score [n]: int64 [n_keep]."""
    return np.argsort(-score, kind="stable")[:n_keep]
