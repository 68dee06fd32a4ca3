"""The linear datamodeling score: against scipy, against models whose influences are known, and its interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from prune_cli.numeric.lds import lds, spearman

Values = NDArray[np.float64]


@pytest.mark.parametrize("seed", range(5))
def test_it_is_spearman_of_sums(seed: int) -> None:
    """With ties on both sides, and for every draw of the bootstrap as for its rows written out."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 5, 12).astype(float), rng.integers(0, 5, 12).astype(float)
    times = rng.multinomial(12, np.full(12, 1 / 12), 20)
    expected = [spearmanr(np.repeat(a, own), np.repeat(b, own)).statistic for own in times]
    assert spearman(a, b, times) == pytest.approx(expected)
    scores, subsets = rng.normal(size=30), rng.random((12, 30)) < 0.5
    sums = [scores[subset].sum() for subset in subsets]
    assert lds(scores, subsets, b).estimate == pytest.approx(spearmanr(sums, b).statistic)


def halves(n: int, m: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """m random halves of n rows, bool [m, n]."""
    return rng.permuted(np.tile(np.arange(n) < n // 2, (m, 1)), axis=1)


def test_a_model_that_is_a_sum_of_its_rows() -> None:
    """Its true influences have the score 1, their opposites −1, wherever zero lies."""
    rng = np.random.default_rng(0)
    influence, subsets = rng.normal(size=50), halves(50, 40, rng)
    measured = 3 + subsets @ influence
    assert (lds(influence, subsets, measured).estimate, lds(-influence, subsets, measured).estimate) == (1, -1)
    assert lds(influence + 7, subsets, measured).estimate == 1  # halves of one size
    constant = lds(np.ones(50), subsets, measured)
    assert math.isnan(constant.estimate) and math.isnan(constant.low)


def ridge(x: Values, y: Values) -> Values:
    """Weights of ridge regression with λ = 1."""
    return np.asarray(np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y), np.float64)


def test_influences_of_ridge_regression() -> None:
    """A half retrained moves the loss of a target set as first-order influences at the full model say; chance does not.

    The influence of a row on the target's loss is −∇L(target)ᵀ H⁻¹ ∇ℓ(row), its removal changes the weights by
    H⁻¹ ∇ℓ(row): here ℓ = (x·w − y)²/2 and H = XᵀX + I.
    """
    rng = np.random.default_rng(0)
    truth = rng.normal(size=5)
    x, target = rng.normal(size=(200, 5)), rng.normal(size=(40, 5))
    y, wanted = x @ truth + rng.normal(size=200), target @ truth + rng.normal(size=40)
    weights, hessian = ridge(x, y), x.T @ x + np.eye(5)
    towards = target.T @ (target @ weights - wanted) / 40
    helps = (x * (x @ weights - y)[:, None]) @ np.linalg.solve(hessian, towards)
    subsets = halves(200, 60, rng)
    measured = np.array([-((target @ ridge(x[s], y[s]) - wanted) ** 2).mean() / 2 for s in subsets])
    known, drawn = lds(helps, subsets, measured), lds(rng.normal(size=200), subsets, measured)
    assert known.estimate > 0.7 and known.low > 0.5
    assert drawn.low < 0 < drawn.high and abs(drawn.estimate) < 0.3


def test_intervals_hold() -> None:
    """At 50 subsets they hold about 95% of the time, for three true correlations; the same seed gives the same."""
    rng = np.random.default_rng(0)
    held = []
    for rho in (0.0, 0.5, 0.9):
        truth = 6 / math.pi * math.asin(rho / 2)
        for _ in range(60):
            a = rng.normal(size=50)
            found = lds(a, np.eye(50, dtype=bool), rho * a + math.sqrt(1 - rho**2) * rng.normal(size=50))
            held.append(found.low < truth < found.high)
    assert 0.9 <= np.mean(held) <= 0.99
    assert lds(a, np.eye(50, dtype=bool), a) == lds(a, np.eye(50, dtype=bool), a)
