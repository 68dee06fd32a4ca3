"""The area under the ROC curve: against scikit-learn; its variance and its interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from prune_cli.numeric.auc import auc


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_that_of_sklearn(seed: int) -> None:
    """With equal scores too; of several scores it is the mean."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (3, 40)).astype(float)
    marked = rng.random(40) < 0.3
    assert auc(scores, marked).area == pytest.approx(np.mean([roc_auc_score(marked, row) for row in scores]))


def test_the_interval_is_that_of_delong() -> None:
    """Its variance, written out over all pairs (DeLong et al. 1988), on the scale of log-odds."""
    rng = np.random.default_rng(0)
    marked = np.arange(30) < 9
    scores = rng.integers(0, 9, 30) + 2.0 * marked
    psi = np.array([[(x > y) + (x == y) / 2 for y in scores[~marked]] for x in scores[marked]])
    area = psi.mean()
    variance = psi.mean(axis=1).var(ddof=1) / 9 + psi.mean(axis=0).var(ddof=1) / 21
    found = auc(scores[None], marked)
    assert found.low is not None and found.high is not None
    for end, sign in ((found.low, -1), (found.high, 1)):
        expected = math.log(area / (1 - area)) + sign * 1.959964 * math.sqrt(variance) / (area * (1 - area))
        assert math.log(end / (1 - end)) == pytest.approx(expected, abs=1e-5)


def test_edges() -> None:
    """Told apart wholly; one marked row; all scores equal."""
    scores = np.array([[1.0, 2, 3, 4]])
    assert auc(scores, np.array([False, False, True, True])) == auc(scores + 1, np.array([False, False, True, True]))
    whole = auc(scores, np.array([False, False, True, True]))  # which a few rows more may end
    assert (whole.area, whole.low, whole.high) == (1, None, None)
    alone = auc(scores, np.array([False, True, False, False]))
    assert alone.area == pytest.approx(1 / 3) and alone.low is None
    assert auc(np.ones((1, 4)), np.array([False, False, True, True])).area == 0.5


def test_intervals_hold() -> None:
    """95% intervals hold 93 to 97% of the time: normal scores a distance of one apart, whose area is Φ(1/√2)."""
    rng = np.random.default_rng(0)
    truth = 0.5 * (1 + math.erf(0.5))
    marked = np.arange(300) < 30
    held = [
        found.low < truth < found.high
        for found in (auc(rng.normal(size=(1, 300)) + marked, marked) for _ in range(1000))
        if found.low is not None and found.high is not None
    ]
    assert len(held) == 1000 and 930 <= sum(held) <= 970
