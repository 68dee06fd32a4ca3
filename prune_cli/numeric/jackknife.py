"""What each row adds to a metric that is no mean over rows: jackknife pseudo-values.

Of a metric θ of n rows, θ₍ᵢ₎ being that of all rows but i, they are n θ − (n − 1) θ₍ᵢ₎ (Tukey 1958; Miller 1974,
Biometrika 61:1). Their mean is θ less its bias, and their variance over n estimates that of θ over samples of rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def macro_f1_values(gold: NDArray[np.int64], predicted: NDArray[np.int64], labels: int) -> NDArray[np.float64]:
    """Pseudo-values [n] of the mean F1 over the labels that are gold or predicted; gold and predicted int [n]."""
    n = len(gold)
    if n < 2:
        return np.full(n, _macro_f1(*_counts(gold, predicted, labels)))
    right, of_gold, of_predicted = _counts(gold, predicted, labels)
    whole = _macro_f1(right, of_gold, of_predicted)
    values = np.empty(n)
    # rows of one gold label and one prediction are alike
    _, first, which = np.unique(gold * labels + predicted, return_index=True, return_inverse=True)
    without = np.empty(len(first))
    for i, row in enumerate(first):
        counts = [count.copy() for count in (right, of_gold, of_predicted)]
        counts[0][gold[row]] -= gold[row] == predicted[row]
        counts[1][gold[row]] -= 1
        counts[2][predicted[row]] -= 1
        without[i] = _macro_f1(*counts)
    values[:] = n * whole - (n - 1) * without[which]
    return values


def _counts(
    gold: NDArray[np.int64], predicted: NDArray[np.int64], labels: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of each label the rows that are rightly predicted, that are gold, and that are predicted [labels]."""
    return (
        np.bincount(gold[gold == predicted], minlength=labels),
        np.bincount(gold, minlength=labels),
        np.bincount(predicted, minlength=labels),
    )


def _macro_f1(right: NDArray[np.int64], of_gold: NDArray[np.int64], of_predicted: NDArray[np.int64]) -> float:
    """Mean of 2·right/(gold + predicted) over the labels that are gold or predicted."""
    both = of_gold + of_predicted
    seen = both > 0
    return float(np.mean(2 * right[seen] / both[seen])) if seen.any() else 0.0
