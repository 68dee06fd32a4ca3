"""The optimal transport distance of two sets of rows, all of a set with the same mass.

Sinkhorn's iteration in logarithms, both sides at once, with an ε that falls from the largest cost to BLUR²: Feydy 2020,
"Geometric data analysis, beyond convolutions", chapter 3 (the algorithm of geomloss).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLUR = 0.01  # its square is the last ε
FALL = 0.25  # of ε from one step to the next


def transport_distance(cost: NDArray[np.float64]) -> float:
    """The distance by a cost [a, b]: the value of the dual that the iteration ends with."""
    epsilon, least = float(cost.max()) ** 2, BLUR**2
    ours, theirs = _softmin(cost, 0.0, epsilon, 1), _softmin(cost, 0.0, epsilon, 0)
    while True:
        better = _softmin(cost, theirs, epsilon, 1), _softmin(cost, ours[:, None], epsilon, 0)
        if epsilon <= least:
            return float(better[0].mean() + better[1].mean())
        ours, theirs = (ours + better[0]) / 2, (theirs + better[1]) / 2
        epsilon = max(epsilon * FALL, least)


def _softmin(
    cost: NDArray[np.float64], potential: float | NDArray[np.float64], epsilon: float, axis: int
) -> NDArray[np.float64]:
    """−ε log of the mean over an axis of exp((potential − cost) / ε)."""
    exponent = (potential - cost) / max(epsilon, np.finfo(np.float64).tiny)
    highest = exponent.max(axis=axis, keepdims=True)
    total = np.log(np.exp(exponent - highest).mean(axis=axis)) + highest.squeeze(axis)
    return np.asarray(-epsilon * total)
