"""The linear datamodeling score: do the scores of training rows predict what models trained on parts of them do?

    LDS = ρ({Σ_{i∈S_j} s_i}, {f(S_j)}) over random subsets S_1 … S_m of the training rows,

ρ Spearman's correlation, s_i the score of a row, f(S) what a model trained on S is measured by. Source: Ilyas et al.
2022, arXiv 2202.00622 (datamodels), and Park et al. 2023, arXiv 2303.14186, definition 2.3 (the score). As retrainings
differ by chance too, even true scores stay below 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.correlation import LEVEL

DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True)
class Lds:
    """The score with its 95% interval over subsets, by the bootstrap's percentiles; NaN where one side is constant."""

    estimate: float
    low: float
    high: float


def lds(scores: NDArray[np.float64], subsets: NDArray[np.bool_], measured: NDArray[np.float64], seed: int = 0) -> Lds:
    """Scores [n] against what models trained on subsets [m, n] are measured by [m]."""
    predicted, m = subsets @ scores, len(measured)
    drawn = np.random.default_rng(seed).multinomial(m, np.full(m, 1 / m), DRAWS)
    estimate = spearman(predicted, measured, np.ones((1, m), np.int64))[0]
    several = spearman(predicted, measured, drawn)
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(several, [tail, 1 - tail]) if np.isfinite(estimate) else (np.nan, np.nan)
    return Lds(float(estimate), float(low), float(high))


def spearman(a: NDArray[np.float64], b: NDArray[np.float64], times: NDArray[np.int64]) -> NDArray[np.float64]:
    """Spearman's correlation of a and b [m], each entry taken so many times [s, m]: [s]; NaN where one is constant."""
    left, right = _ranks(a, times), _ranks(b, times)
    products = [(times * x * y).sum(axis=1) for x, y in ((left, right), (left, left), (right, right))]
    with np.errstate(invalid="ignore"):
        return np.clip(products[0] / np.sqrt(products[1] * products[2]), -1, 1)


def _ranks(values: NDArray[np.float64], times: NDArray[np.int64]) -> NDArray[np.float64]:
    """Ranks of values [m], each taken so many times [s, m], less their mean: [s, m]. Equal ones share a rank."""
    distinct, place = np.unique(values, return_inverse=True)
    counts = times.astype(np.float64) @ (place[:, None] == np.arange(len(distinct)))  # [s, distinct]
    ranks = (np.cumsum(counts, axis=1) - (counts - 1) / 2)[:, place]
    centred: NDArray[np.float64] = ranks - (times.sum(axis=1, keepdims=True) + 1) / 2
    return centred
