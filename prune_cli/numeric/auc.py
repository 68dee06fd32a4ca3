"""How well scores tell some rows from the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.correlation import ranks


def auc(score: NDArray[np.float64], some: NDArray[np.bool_]) -> float:
    """The probability that one of `some` [n] has a higher score [n] than one of the others; a tie counts as a half.

    The area under the ROC curve, by the rank sum of Mann and Whitney. There must be rows of both.
    """
    m = int(some.sum())
    return float((ranks(score)[some].sum() - m * (m + 1) / 2) / (m * (len(some) - m)))
