"""How well scores tell some rows from the rest: the area under the ROC curve, with its interval.

It is the probability that one of those rows has a higher score than one of the rest, equal scores counting a half. Its
variance is that of DeLong et al. 1988, Biometrics 44:837; the interval is symmetric in the log-odds of the area, so
that it stays between 0 and 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.correlation import LEVEL, ranks


@dataclass(frozen=True)
class Area:
    """An area under the ROC curve with its 95% interval; without one where it is 0 or 1, or of fewer than two rows."""

    area: float
    low: float | None
    high: float | None


def auc(scores: NDArray[np.float64], marked: NDArray[np.bool_]) -> Area:
    """The mean area of scores [s, n] of the same rows for the rows marked [n], of which there is one, and one not.

    The interval is about which rows there are, not about how scores vary.
    """
    placed = [_placements(row, marked) for row in scores]
    above, below = (np.mean(side, axis=0) for side in zip(*placed, strict=True))
    area = float(above.mean())
    if min(len(above), len(below)) < 2 or not 0 < area < 1:
        return Area(area, None, None)
    variance = above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below)
    reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * math.sqrt(variance) / (area * (1 - area))
    odds = math.log(area / (1 - area))
    return Area(area, *(1 / (1 + math.exp(-(odds + step))) for step in (-reach, reach)))


def _placements(
    scores: NDArray[np.float64], marked: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The share of the rest below each marked row, and of the marked above each of the rest."""
    of_all, of_marked, of_rest = ranks(scores), ranks(scores[marked]), ranks(scores[~marked])
    below = (of_all[marked] - of_marked) / len(of_rest)
    above = 1 - (of_all[~marked] - of_rest) / len(of_marked)
    return below, above
