"""Correlations of scores over the same rows, with intervals."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95  # of intervals


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank of each value [n], from 1 for the lowest; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def quantiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank of each value [n] as a share of all: between 0 and 1, on average a half."""
    return (ranks(values) - 0.5) / len(values)


def correlations(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson correlations [s, s] of columns [s, n]; NaN with one whose values are all equal.

    Of ranks these are Spearman correlations.
    """
    centred = columns - columns.mean(axis=1, keepdims=True)
    constant = np.ptp(columns, axis=1) == 0
    length = np.where(constant, np.nan, np.linalg.norm(centred, axis=1))
    units = centred / length[:, None]
    return np.clip(units @ units.T, -1, 1)


def interval(r: float, n: int, *, of_ranks: bool) -> tuple[float, float] | None:
    """The 95% interval of a correlation over n rows, by Fisher's z; None for NaN and for fewer than four rows.

    The variance of z is 1 / (n − 3) for Pearson's, (1 + r² / 2) / (n − 3) for Spearman's (Bonett and Wright 2000,
    "Sample size requirements for estimating Pearson, Kendall and Spearman correlations", Psychometrika 65, 23–28).
    """
    if n < 4 or math.isnan(r):
        return None
    if abs(r) >= 1:
        return r, r
    deviation = math.sqrt((1 + r * r / 2 if of_ranks else 1) / (n - 3))
    reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * deviation
    return math.tanh(math.atanh(r) - reach), math.tanh(math.atanh(r) + reach)
