"""The numbers of `prune compare`: against scipy, simulation and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from prune_cli.numeric import blocks, correlation, neighbours, overlap
from prune_cli.numeric import cka as alike
from prune_cli.numeric.cka import linear_cka
from prune_cli.numeric.views import Centred, Drawn


def columns(n: int, seed: int = 0) -> NDArray[np.float64]:
    """Three related columns [3, n], the last with many equal values."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=n)
    second = first + rng.normal(size=n)
    return np.stack([first, second, np.round(second)])


def test_correlations_are_scipys() -> None:
    """Spearman with equal values, Pearson, and Pearson's interval; NaN with a constant column."""
    values = columns(60)
    ranked = correlation.correlations(np.stack([correlation.ranks(column) for column in values]))
    np.testing.assert_allclose(ranked, stats.spearmanr(values.T).statistic, rtol=1e-12)
    plain = correlation.correlations(values)
    for i in range(3):
        for j in range(i):
            expected = stats.pearsonr(values[i], values[j])
            assert plain[i, j] == pytest.approx(expected.statistic, rel=1e-12)
            interval = correlation.interval(float(plain[i, j]), 60, of_ranks=False)
            assert interval == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-9)
    constant = correlation.correlations(np.stack([values[0], np.full(60, 0.1)]))
    assert np.isnan(constant[0, 1]) and constant[0, 0] == pytest.approx(1)
    assert correlation.interval(float("nan"), 60, of_ranks=False) is None
    assert correlation.interval(0.5, 3, of_ranks=False) is None
    assert correlation.interval(1.0, 60, of_ranks=True) == (1, 1)


def test_the_interval_of_spearman_holds_the_truth() -> None:
    """Of 2,000 draws from a normal with Spearman's ρ = 0.79, about 95% of the intervals hold it."""
    rng, r, n = np.random.default_rng(1), 0.8, 40
    truth = 6 / np.pi * np.arcsin(r / 2)
    first = rng.normal(size=(2000, n))
    second = r * first + np.sqrt(1 - r * r) * rng.normal(size=(2000, n))
    held = 0
    for pair in zip(first, second, strict=True):
        found = correlation.correlations(np.stack([correlation.ranks(column) for column in pair]))[0, 1]
        low, high = correlation.interval(float(found), n, of_ranks=True) or (1, -1)
        held += low <= truth <= high
    assert 0.935 < held / 2000 < 0.965


def test_quantiles_are_a_half_on_average() -> None:
    """Equal values share a quantile, and the mean is a half whatever the values."""
    assert correlation.quantiles(np.array([5.0, 1, 5, 9])).tolist() == [0.5, 0.125, 0.5, 0.875]
    assert correlation.quantiles(columns(31)[2]).mean() == pytest.approx(0.5)


@pytest.mark.parametrize(("n", "a", "b"), [(30, 7, 12), (10, 8, 7), (5, 5, 2), (4, 1, 1), (5_000, 1_500, 400)])
def test_chance_is_hypergeometric(n: int, a: int, b: int) -> None:
    """Probabilities, both tails and the expected overlap are scipy's, at both ends of the support and in the middle."""
    chance, law = overlap.chance(n, a, b), stats.hypergeom(n, a, b)
    np.testing.assert_allclose(chance.probabilities, law.pmf(chance.counts), rtol=1e-6, atol=1e-300)
    assert chance.probabilities.sum() == pytest.approx(1)
    assert chance.overlap == pytest.approx(law.mean() / min(a, b))
    for common in {int(chance.counts[0]), round(a * b / n), int(chance.counts[-1])}:
        assert chance.at_least(common) == pytest.approx(law.sf(common - 1), rel=1e-6)
        assert chance.at_most(common) == pytest.approx(law.cdf(common), rel=1e-6)


def test_chance_is_that_of_random_draws() -> None:
    """Overlap and Jaccard of 20,000 pairs of random draws have the expected means, within five standard errors."""
    n, a, b, draws = 20, 6, 9, 20_000
    rng, chance = np.random.default_rng(0), overlap.chance(20, 6, 9)
    first = rng.random((draws, n)).argsort(axis=1) < a
    second = rng.random((draws, n)).argsort(axis=1) < b
    common = (first & second).sum(axis=1)
    for expected, found in (
        (chance.overlap, np.array([overlap.overlap(int(c), a, b) for c in common])),
        (chance.jaccard, np.array([overlap.jaccard(int(c), a, b) for c in common])),
    ):
        assert abs(found.mean() - expected) < 5 * found.std() / np.sqrt(draws)


def features(n: int = 40) -> list[NDArray[np.float16]]:
    """Representations [n, 5], [n, 60] that holds the first, [n, 3] of its own; float16, not about zero."""
    rng = np.random.default_rng(2)
    first = rng.normal(size=(n, 5)) + 3
    second = np.concatenate([first @ rng.normal(size=(5, 30)), rng.normal(size=(n, 30))], axis=1)
    return [array.astype(np.float16) for array in (first, second, rng.normal(size=(n, 3)))]


def brute_cka(x: NDArray[np.float16], y: NDArray[np.float16]) -> float:
    """CKA by kernels [n, n], U-centred as in Székely and Rizzo 2014."""

    def kernel(z: NDArray[np.float16]) -> NDArray[np.float64]:
        k, n = np.asarray(z, np.float64) @ np.asarray(z, np.float64).T, len(z)
        np.fill_diagonal(k, 0)
        sums = k.sum(axis=0)
        k = k - sums[:, None] / (n - 2) - sums[None, :] / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
        np.fill_diagonal(k, 0)
        return k

    k, l = kernel(x), kernel(y)  # noqa: E741
    return float((k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum()))


def test_cka_is_that_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """By features or by rows, in one block or in many; a constant representation has none."""
    arrays = features()
    expected = [[brute_cka(x, y) for y in arrays] for x in arrays]
    np.testing.assert_allclose(linear_cka(arrays), expected, rtol=1e-9, atol=1e-12)
    monkeypatch.setattr(blocks, "NUMBERS", 500)
    monkeypatch.setattr(alike, "NUMBERS", 500)
    np.testing.assert_allclose(linear_cka(arrays), expected, rtol=1e-9, atol=1e-12)
    centred = [Centred(array) for array in arrays]
    np.testing.assert_allclose(alike._by_features(centred), alike._by_rows(centred), rtol=1e-12)
    some = [arrays[0], arrays[2]]  # no more features than rows
    np.testing.assert_allclose(linear_cka(some), [[brute_cka(x, y) for y in some] for x in some], atol=1e-12)
    found = linear_cka([arrays[0], np.full((40, 4), 0.1)])
    assert np.isnan(found[0, 1]) and found[0, 0] == pytest.approx(1)


def test_cka_of_unrelated_features_is_about_zero() -> None:
    """Unlike the biased estimate, which has 0.9 and more for many features of few rows."""
    rng = np.random.default_rng(3)
    found = linear_cka([rng.normal(size=(50, 2000)), rng.normal(size=(50, 2000))])
    assert abs(found[0, 1]) < 0.1


def test_neighbours_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest by cosine, never the row itself; what two have in common; their labels, by chance as well."""
    arrays, k, m = features(), 4, 40
    label = np.random.default_rng(4).integers(-1, 3, m)
    sets = []
    for array in arrays[:2]:
        centred = array.astype(np.float64) - array.astype(np.float64).mean(axis=0)
        units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        cosine = units @ units.T
        np.fill_diagonal(cosine, -2)
        sets.append([set(map(int, np.argsort(-row)[:k])) for row in cosine])
    monkeypatch.setattr(neighbours, "OURS", 9)
    monkeypatch.setattr(neighbours, "OTHERS", 7)
    found = [neighbours.nearest(Centred(array), k) for array in arrays[:2]]
    assert [[set(row.tolist()) for row in rows] for rows in found] == sets
    shared = np.mean([len(a & b) / k for a, b in zip(*sets, strict=True)])
    assert neighbours.in_common(*found) == pytest.approx(shared)
    of_known = [i for i in range(m) if label[i] >= 0]
    same = np.mean([label[j] == label[i] for i in of_known for j in sets[0][i]])
    by_chance = np.mean([label[j] == label[i] for i in of_known for j in range(m) if i != j])
    assert neighbours.purity(found[0], label) == pytest.approx((same, by_chance))
    assert neighbours.purity(found[0], np.full(m, -1)) is None


@pytest.mark.parametrize("block", [3, 7, 64])
def test_the_closest_of_many_close_rows(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Angles of a thousandth, whose cosines differ by less than a millionth, in whichever block the nearest are."""
    monkeypatch.setattr(neighbours, "OTHERS", block)
    angle = np.random.default_rng(6).permutation(50) * 1e-3
    near = neighbours.nearest(np.stack([np.cos(angle), np.sin(angle)], axis=1), 2)
    inner = (angle > 0) & (angle < 0.049 - 1e-9)
    np.testing.assert_allclose(np.abs(angle[near[inner]] - angle[inner, None]), 1e-3, rtol=1e-6)


def test_equal_neighbours_come_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows that are equally near the first come first, in whichever block; a row of zeros is near to none."""
    rows = np.array([[1.0, 0], [2, 0], [0, 0], [4, 0], [0, 1]])
    for block in (1, 2, 3, 5, 100):
        monkeypatch.setattr(neighbours, "OTHERS", block)
        assert neighbours.nearest(rows, 2).tolist() == [[1, 3], [0, 3], [0, 1], [0, 1], [0, 1]]
        assert neighbours.nearest(-rows, 4)[3].tolist() == [0, 1, 2, 4]
        for size in (1e-30, 1e30):  # whose squares single precision does not hold
            assert neighbours.nearest(size * rows, 2).tolist() == neighbours.nearest(rows, 2).tolist()


def test_drawn_rows_are_those_at_the_positions() -> None:
    """By slices and by positions."""
    array, at = np.arange(20.0).reshape(10, 2), np.array([7, 1, 3])
    drawn = Drawn(array, at)
    assert drawn.shape == (3, 2)
    np.testing.assert_array_equal(drawn[1:], array[[1, 3]])
    np.testing.assert_array_equal(Drawn(drawn, np.array([2, 0]))[:], array[[3, 7]])
