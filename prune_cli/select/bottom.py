"""The rows with the lowest scores, lowest first; of equal scores, the row that comes first.

Source: keeping the easiest, better where data is scarce: Sorscher et al. 2022, arXiv 2206.14486.

A smaller budget is the beginning of a larger one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def select(score: NDArray[np.float64], n_keep: int) -> NDArray[np.int64]:
    """Select n_keep of n rows by score [n]: int64 [n_keep]."""
    return np.argsort(score, kind="stable")[:n_keep]
