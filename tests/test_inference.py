"""Intervals against scipy's where they are the same, hand-worked cases, and by simulation: how often they hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import polygamma
from sklearn.metrics import f1_score

from prune_cli.numeric.inference import _prior, differences, holm, moderated
from prune_cli.numeric.jackknife import macro_f1_values


def close(difference, other):
    low, high = other.confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx((low, high))
    assert difference.p == pytest.approx(other.pvalue)


def test_of_test_rows_alone_it_is_the_paired_t_test():
    """Where no chance is in training, only rows vary: the difference is that of scipy's test of pairs."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 50), rng.normal(0, 1, 50)
    found = differences({"a": a[None], "b": b[None]}, "b", fixed=["a", "b"])["a"]
    assert found is not None
    assert found.estimate == pytest.approx(a.mean() - b.mean())
    close(found, stats.ttest_rel(a, b))


def test_of_runs_alone_it_is_the_t_test():
    """Where all rows say the same, only runs vary: of one method it is scipy's test of one sample."""
    runs = np.array([0.71, 0.74, 0.69, 0.75])
    rows = np.ones(9)
    found = differences({"a": runs[:, None] * rows, "b": 0.7 * rows[None]}, "b", fixed=["b"])["a"]
    assert found is not None
    close(found, stats.ttest_1samp(runs - 0.7, 0))


def test_the_parts_come_together_by_hand():
    """Two runs against two: half-width² is the sum of (t·standard error)² of each part."""
    values = {"a": np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]), "b": np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])}
    found = differences(values, "b")["a"]
    assert found is not None
    # means of runs 2/3 and 1, 1/3 and 1/3: variances 1/18 and 0, whose logarithms differ too much to be pooled at
    # fewer than two degrees of freedom in all; of the rows 1, 1/2, 0 the variance is 1/4
    (va, da), (vb, db) = moderated({"a": np.array([2 / 3, 1]), "b": np.array([1 / 3, 1 / 3])}).values()
    assert 0 < vb < va < 1 / 18 and 1 <= da == db <= 2
    squared = stats.t.isf(0.025, da) ** 2 * va / 2 + stats.t.isf(0.025, db) ** 2 * vb / 2
    squared += stats.t.isf(0.025, 2) ** 2 * 0.25 / 3
    assert found.estimate == pytest.approx(0.5)
    assert (found.high - found.low) / 2 == pytest.approx(squared**0.5)


def test_variances_are_shrunk_as_far_as_they_agree():
    """Of a scaled inverse χ² with 8 degrees of freedom about 0.5 the prior is found again; equal ones are pooled."""
    rng = np.random.default_rng(0)
    true = 8 * 0.5 / rng.chisquare(8, 4000)
    means = {i: rng.normal(0, v**0.5, 4) for i, v in enumerate(true)}
    own = np.array([runs.var(ddof=1) for runs in means.values()])
    found = np.array(list(moderated(means).values()))
    # posterior = (d0·0.5 + 3·own)/(d0 + 3): a line in own, whose slope says d0
    slope, level = np.polyfit(own, found[:, 0], 1)
    assert 3 / slope - 3 == pytest.approx(8, rel=0.15)
    assert level / (1 - slope) == pytest.approx(0.5, rel=0.05)
    assert found[0, 1] == pytest.approx(3 / slope)
    same = moderated({i: np.array([0.0, 1.0, 2.0]) for i in range(5)})
    assert set(same.values()) == {(1.0, 10.0)}


def test_variances_that_differ_as_chance_has_it_but_for_little():
    """Where nothing but a hair is left of how they differ they are pooled, however little it is."""
    dof = np.array([3.0, 3.0])
    chance = polygamma(1, 1.5)  # of the logarithm of a variance with three degrees of freedom
    for more in (1e-12, 1e-9, 1e-7, 1e-3):
        reach = np.sqrt((chance + more) / 2)
        prior, value = _prior(np.exp(np.array([-reach, reach])), dof)
        assert prior == np.inf or prior == pytest.approx(2 / more, rel=0.01)
        assert value == pytest.approx(np.exp(0) * np.cosh(reach), rel=0.2)


def test_one_run_says_nothing_of_how_runs_vary():
    """Without two runs of anything there is no interval; one run beside others has the variance of those."""
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, 9))
    assert differences({"a": one, "b": one + 1}, "b")["a"] is None
    known = differences({"a": one, "b": rng.normal(size=(3, 9))}, "b")["a"]
    assert known is not None and known.low < known.estimate < known.high


def test_holm_by_hand():
    """Sorted p times how many are left, never falling: .005·4, .01·3, .03·2, .04·1 raised to .06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_pseudo_values_of_macro_f1_by_leaving_rows_out():
    """n·θ − (n − 1)·θ without the row, θ from scikit-learn; a label that goes with its only row is no longer one."""
    rng = np.random.default_rng(0)
    gold, predicted = rng.integers(0, 4, 30), rng.integers(0, 4, 30)
    gold[7] = predicted[7] = 4  # the only row of its label
    found = macro_f1_values(gold, predicted, 6)
    whole = f1_score(gold, predicted, average="macro")
    for i in range(30):
        rest = np.arange(30) != i
        without = f1_score(gold[rest], predicted[rest], average="macro")
        assert found[i] == pytest.approx(30 * whole - 29 * without)


def grid(rng, methods, seeds, random_seeds, rows, sd, spread, *, same):
    """Right or wrong [s, n] of each method's runs on the rows, and the true difference of each to random (key 0)."""
    sds = sd * np.exp(rng.normal(0, 0 if same else spread, methods + 1))
    means = 0.3 + rng.normal(0, 0 if same else 0.3, methods + 1)
    own = np.full(methods + 1, 0 if same else 0.5)
    own[0] = 0
    hard = rng.normal(size=rows)
    values = {}
    for k in range(methods + 1):
        runs = random_seeds if k == 0 else seeds
        latent = means[k] + hard + rng.normal(0, 1, rows) * own[k] + rng.normal(0, sds[k], (runs, 1))
        values[k] = (latent + rng.normal(0, 0.5, (runs, rows)) > 0).astype(float)
    true = stats.norm.cdf(means / np.sqrt(1 + own**2 + sds**2 + 0.25))
    return values, true - true[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("methods", "rows", "sd", "spread"), [(8, 300, 0.1, 0.5), (16, 300, 0.2, 0.5), (16, 1500, 0.2, 1)]
)
def test_how_often_intervals_hold(methods, rows, sd, spread):
    """With 3 seeds, and 10 of random, 95% intervals hold 93 to 97% of the time, over 200 simulated grids."""
    rng = np.random.default_rng(1)
    holds = []
    for _ in range(200):
        values, true = grid(rng, methods, 3, 10, rows, sd, spread, same=False)
        found = differences(values, 0)
        holds += [d.low <= true[k] <= d.high for k, d in found.items() if d is not None]
    assert len(holds) == 200 * methods
    assert 0.93 <= np.mean(holds) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("sd", [0.05, 0.3])
def test_how_often_nothing_is_claimed(sd):
    """Where every method is a random draw, at most 5% of 200 grids claim that one is better."""
    rng = np.random.default_rng(2)
    claims = 0
    for _ in range(200):
        values, _ = grid(rng, 8, 3, 10, 300, sd, 0, same=True)
        found = [d for d in differences(values, 0).values() if d is not None]
        adjusted = holm([d.p for d in found])
        claims += any(p < 0.05 and d.estimate > 0 for p, d in zip(adjusted, found, strict=True))
    assert claims <= 10
