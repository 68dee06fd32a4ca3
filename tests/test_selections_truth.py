"""Selections and scores of features against brute force, closed forms, worked examples and peer libraries."""

from __future__ import annotations

import ast
import functools
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import logsumexp

from prune_cli.errors import PruneError
from prune_cli.methods import method as methods
from prune_cli.numeric import alike, apart, blocks, duplicates, lazy, products
from prune_cli.score import density
from prune_cli.select import facility_location, k_center, k_dpp
from tests.truth import truth

HERE = Path(__file__).parent
PEERS = json.loads((HERE / "peers_select.json").read_text("utf-8"))
POINTS = np.array(PEERS["features"], np.float32)
VALUES = np.array(PEERS["score"])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rows(n: int, d: int, seed: int = 0) -> NDArray[np.float64]:
    """Rows of no particular shape, far from the origin."""
    return rng(seed).normal(size=(n, d)) + 1


@functools.cache
def function(stage: str, name: str) -> Any:
    return methods.load(stage, name).function


def run(name: str, *args: Any, **options: Any) -> tuple[list[int], dict[str, NDArray[Any]]]:
    """What a selection picks, and its columns; they hold what they say for kept rows."""
    positions, columns = function("select", name)(*args, **options)
    return positions.tolist(), columns


def score(name: str, *args: Any, **options: Any) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = function("score", name)(*args, **options)
    return scores


def unit(x: NDArray[Any]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = x / np.linalg.norm(x, axis=1, keepdims=True)
    return lengths


def distances(x: NDArray[Any]) -> NDArray[np.float64]:
    apart: NDArray[np.float64] = np.linalg.norm(x[:, None].astype(float) - x, axis=2)
    return apart


def greedily(n: int, n_keep: int, value: Any, first: list[int]) -> list[int]:
    """The greedy rule by its definition: of all rows the one with which the set has the highest value."""
    kept = list(first)
    while len(kept) < n_keep:
        kept.append(max((i for i in range(n) if i not in kept), key=lambda i: value([*kept, i])))
    return kept


def prefixes(name: str, *args: Any, **options: Any) -> bool:
    """Whether picks for 1, 2, … rows are beginnings of those for ten; args have None where n_keep stands."""
    chosen = {
        k: run(
            name, *(k if a is None else a for a in args), **{**options, **({"rng": rng()} if "rng" in options else {})}
        )
        for k in (1, 2, 5, 10)
    }
    return all(chosen[k][0] == chosen[10][0][:k] for k in chosen)


@truth("select/k_center", by="brute force: all sets of four of twelve rows, and the plain greedy rule")
@pytest.mark.parametrize("seed", range(4))
def test_k_center_is_within_twice_the_smallest_radius(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Picks are those of the plain rule whatever the pool, and their radius is at most twice that of the best set."""
    x = rows(12, 3, seed)
    apart = distances(x)
    central = int(np.linalg.norm(x - x.mean(axis=0), axis=1).argmin())
    expected = greedily(12, 4, lambda kept: min(apart[kept[-1], kept[:-1]]), [central])
    for pool in (1, 2, 1024):
        monkeypatch.setattr(k_center, "POOL", pool)
        kept, columns = run("k_center", x.astype(np.float32), 4)
        assert kept == expected
    np.testing.assert_allclose(columns["distance"], apart[:, kept].min(axis=1), atol=1e-5)
    assert columns["cluster"].tolist() == apart[:, kept].argmin(axis=1).tolist()
    np.testing.assert_allclose(columns["gain"][kept[1:]], [min(apart[kept[t], kept[:t]]) for t in (1, 2, 3)], rtol=1e-5)
    best = min(apart[:, list(some)].min(axis=1).max() for some in itertools.combinations(range(12), 4))
    assert columns["distance"].max() <= 2 * best + 1e-5
    assert prefixes("k_center", x, None)


def test_k_center_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 rows in blocks of a few with a small pool: the plain rule's picks, by cosine too."""
    x = rows(2000, 6).astype(np.float16)
    monkeypatch.setattr(k_center, "POOL", 50)
    monkeypatch.setattr(blocks, "NUMBERS", 700)
    for normalize in (False, True):
        y = unit(x.astype(float)) if normalize else x.astype(float)
        centred = y - y.mean(axis=0)
        kept, nearest = [int((centred**2).sum(axis=1).argmin())], np.full(2000, np.inf)
        while len(kept) < 60:
            nearest = np.minimum(nearest, ((y - y[kept[-1]]) ** 2).sum(axis=1))
            kept.append(int(nearest.argmax()))
        assert run("k_center", x, 60, normalize=normalize)[0] == kept


LINE = np.array([[0.0], [1], [5], [6], [10]])


@truth("select/k_center", "select/facility_location", by="worked example: their docstrings")
def test_points_on_a_line() -> None:
    """Of 0, 1, 5, 6, 10 the farthest from 5 is 0, then 10. The sum of distances is least from 5; 0 or 1 takes off 8.

    Of copies that are kept each stands for itself at least.
    """
    assert run("k_center", LINE, 3)[0] == [2, 0, 4]
    kept, columns = run("facility_location", LINE, 2, rng())
    assert kept[0] == 2 and kept[1] in (0, 1) and columns["cluster"].tolist() == [1, 1, 0, 0, 0]
    assert columns["gain"][kept[1]] == pytest.approx(8) and columns["weight"][kept].tolist() == [3, 2]
    kept, columns = run("facility_location", np.ones((4, 2)), 3, rng())
    assert columns["cluster"][kept].tolist() == [0, 1, 2]


def facility(similarity: NDArray[Any]) -> Any:
    return lambda kept: similarity[:, kept].max(axis=1).sum()


@truth("select/facility_location", by="brute force: the plain greedy rule on all pairs")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(("how", "memory"), [("exact", 0), ("exact", 2**28), ("sparse", 2**28)])
def test_facility_location_is_the_greedy_maximum(
    metric: str, how: str, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lazily, all pairs kept or not, or over known neighbours (here all), in small blocks: the plain rule's picks.

    Each row is served by its best. Weights are the numbers of rows served, as CRAIG's.
    """
    monkeypatch.setattr(alike, "CELLS", 30)
    monkeypatch.setattr(alike, "IN_MEMORY", memory)
    monkeypatch.setattr(alike, "TOGETHER", 7)
    monkeypatch.setattr(facility_location, "TOGETHER", 3)
    monkeypatch.setattr(lazy, "BATCH", 5)
    x = rows(40, 4).astype(np.float32)
    similarity = (1 + unit(x) @ unit(x).T) / 2 if metric == "cosine" else -distances(x)
    expected = greedily(40, 10, facility(similarity), [])
    kept, columns = run("facility_location", x, 10, rng(), metric=metric, how=how)
    assert kept == expected
    served = similarity[:, kept].argmax(axis=1)
    assert columns["cluster"].tolist() == served.tolist()
    assert columns["weight"][kept].tolist() == np.bincount(served, minlength=10).tolist()
    if how == "exact":
        values = [facility(similarity)(kept[: t + 1]) for t in range(10)]
        np.testing.assert_allclose(columns["gain"][kept[1:]], np.diff(values), atol=1e-4)
        assert prefixes("facility_location", x, None, rng=rng(), metric=metric, how=how)


def test_of_equal_picks_the_first_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where picks are compared a few at a time."""
    monkeypatch.setattr(facility_location, "TOGETHER", 2)
    kept, columns = run("facility_location", np.ones((7, 2)), 6, rng())
    (left,) = {*range(7)} - {*kept}
    assert columns["cluster"][left] == 0 and columns["weight"][kept].tolist() == [2, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(("distinct", "copies"), [(20, 1), (20, 50), (3, 300)])
def test_lazy_picks_are_those_of_the_plain_rule(distinct: int, copies: int) -> None:
    """Of how many weighed items sets cover; gains are whole numbers, so that many are equal, of copies all."""
    sets = (rng().random((distinct, 30)) < 0.3)[rng().permutation(np.repeat(np.arange(distinct), copies))]
    weight, n_keep = rng().integers(1, 4, 30), min(60, distinct * copies)
    covered, asked = np.zeros(30, bool), []

    def gains(some: NDArray[np.int64]) -> NDArray[np.float64]:
        asked.append(len(some))
        assert min(asked) > 0 and len(asked) < 20_000  # or it goes on for ever
        return np.asarray(((sets[some] & ~covered) * weight).sum(axis=1), float)

    def take(row: int) -> None:
        covered[:] |= sets[row]

    kept, gained = lazy.lazy(len(sets), n_keep, gains, take)
    left = np.ones(30, bool)
    expected: list[int] = []
    for pick, gain in zip(kept.tolist(), gained, strict=True):
        now = ((sets & left) * weight).sum(axis=1)
        now[expected] = -1
        assert (pick, gain) == (now.argmax(), now.max())
        expected.append(pick)
        left &= ~sets[pick]


@truth("select/facility_location", by="peer: apricot-select, lazy greedy (peers_select.py)")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_facility_location_is_that_of_apricot(metric: str) -> None:
    """The same similarities give the same ten rows in the same order."""
    kept, _ = run("facility_location", POINTS, 10, rng(), metric=metric)
    assert kept == PEERS["picks"][f"apricot facility_location {metric}"]


@pytest.mark.parametrize("n_keep", [20, 100])
def test_sparse_and_stochastic_facility_location_are_near_the_exact(n_keep: int) -> None:
    """On 600 rows in clusters f of the sparse greedy is within 1% of that of the exact one, the stochastic near.

    f is counted from what a single best row gives, so that a random draw is below that: it is the harder measure.
    """
    centres = rng(1).normal(size=(25, 8)) * 2
    x = (centres[rng(2).integers(0, 25, 600)] + rng(3).normal(size=(600, 8))).astype(np.float32)
    apart = distances(x)
    least = apart.sum(axis=0).min()
    found = {}
    for how in ("exact", "sparse", "stochastic"):
        kept, _ = run("facility_location", x, n_keep, rng(), how=how)
        found[how] = least - apart[:, kept].min(axis=1).sum()
    drawn = least - apart[:, rng().permutation(600)[:n_keep]].min(axis=1).sum()
    assert found["sparse"] > 0.99 * found["exact"] and found["stochastic"] > 0.95 * found["exact"] > drawn


def test_facility_location_takes_all_pairs_where_few_rows_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 64 neighbours known at most, of 640 rows: sparse if 80 are kept, or more, else exact, as if few rows."""
    x = (rows(640, 4) * np.exp(rng(1).normal(size=(640, 1)))).astype(np.float32)
    monkeypatch.setattr(facility_location, "MOST", 64)
    for most, n_keep, how in ((639, 80, "sparse"), (639, 79, "exact"), (640, 80, "exact")):
        monkeypatch.setattr(facility_location, "EXACT", most)
        found = {each: run("facility_location", x, n_keep, rng(), how=each)[0] for each in ("auto", "sparse", "exact")}
        assert found["auto"] == found[how] and found["sparse"] != found["exact"]


@truth("select/saturated_coverage", by="peer: apricot-select (peers_select.py)")
@truth("select/saturated_coverage", by="brute force: the plain greedy rule")
def test_saturated_coverage_is_the_greedy_maximum() -> None:
    """The plain rule's picks and gains; with α = ¼ those of apricot in its order."""
    x = rows(30, 3).astype(np.float32)
    similarity = (1 + unit(x) @ unit(x).T) / 2
    room = 0.3 * similarity.sum(axis=1)

    def value(kept: list[int]) -> float:
        return float(np.minimum(similarity[:, kept].sum(axis=1), room).sum())

    kept, columns = run("saturated_coverage", x, 8, alpha=0.3)
    assert kept == greedily(30, 8, value, [])
    np.testing.assert_allclose(columns["gain"][kept].sum(), value(kept), rtol=1e-5)
    assert run("saturated_coverage", POINTS, 10, alpha=0.25)[0] == PEERS["picks"]["apricot saturated_coverage"]
    assert prefixes("saturated_coverage", x, None, alpha=0.3)


@truth("select/graph_cut", by="peer: submodlib-py (peers_select.py)")
@truth("select/graph_cut", by="brute force: the plain greedy rule")
def test_graph_cut_is_the_greedy_maximum() -> None:
    """The plain rule's picks with cosines, and with (1 + cos) / 2; those of submodlib in its order."""
    x = rows(12, 3).astype(np.float32)
    cosine = unit(x) @ unit(x).T
    for similarity in (cosine, (1 + cosine) / 2):

        def value(kept: list[int], s: NDArray[Any] = similarity) -> float:
            return float(s[:, kept].sum() - 0.3 * s[np.ix_(kept, kept)].sum())

        kept, columns = run("graph_cut", x, 8, penalty=0.3)
        assert kept == greedily(12, 8, value, [])
    np.testing.assert_allclose(
        columns["gain"][kept].sum(), cosine[:, kept].sum() - 0.3 * cosine[kept][:, kept].sum(), 1e-5
    )
    assert run("graph_cut", POINTS, 10, penalty=0.4)[0] == PEERS["picks"]["submodlib graph_cut"]
    assert prefixes("graph_cut", x, None)


@truth("select/k_dpp", by="brute force: numpy.linalg.det of every set with one more row")
@pytest.mark.parametrize("normalize", [True, False])
def test_k_dpp_multiplies_the_determinant_most(normalize: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pick is the argmax of det(L_S + εI); the gains' product is the determinant, computed anew or not."""
    x = rows(12, 7).astype(np.float32)
    y = unit(x) if normalize else x.astype(float)
    kernel = y @ y.T
    kernel += 1e-4 * np.diag(kernel).mean() * np.eye(12)
    for afresh in (2, 64):
        monkeypatch.setattr(k_dpp, "AFRESH", afresh)
        kept, columns = run("k_dpp", x, 7, normalize=normalize)
        first = [int((y @ y.sum(axis=0)).argmax() if normalize else np.diag(kernel).argmax())]
        assert kept == greedily(12, 7, lambda s: np.linalg.det(kernel[np.ix_(s, s)]), first)
        np.testing.assert_allclose(columns["gain"][kept].prod(), np.linalg.det(kernel[np.ix_(kept, kept)]), rtol=1e-3)
    assert prefixes("k_dpp", x, None, normalize=normalize)


@truth("select/herding", by="brute force: the weights of the definition, pick by pick")
@truth("select/herding", by="worked example: its docstring")
def test_herding_follows_the_mean() -> None:
    """−1, 0, 4: first 4, then −1. On other rows the picks are those of the rule; their mean comes near that of all."""
    assert run("herding", np.array([[-1.0], [0.0], [4.0]]), 2)[0] == [2, 0]
    x = rows(12, 4)
    weights, kept = x.mean(axis=0), []
    for _ in range(10):
        kept.append(max((i for i in range(12) if i not in kept), key=lambda i: float(weights @ x[i])))
        weights = weights + x.mean(axis=0) - x[kept[-1]]
    assert run("herding", x, 10)[0] == kept and prefixes("herding", x, None)
    many = rng().normal(size=(2000, 4))
    assert np.linalg.norm(many[run("herding", many, 100)[0]].mean(axis=0) - many.mean(axis=0)) < 0.05


def test_omp_has_its_digits_or_says_so() -> None:
    """Its weights are those of a solver, to five digits, for rows as long as it takes; longer ones are refused."""
    x = np.random.default_rng(0).normal(size=(60, 20))
    for scale in (1e-4, 1.0, 1e3):
        long = (x * scale).astype(np.float32).astype(np.float64)
        found, columns = methods.load("select", "omp").function(long, 10)
        kept = long[found]
        true = np.linalg.lstsq(np.vstack([kept.T, np.eye(10) * 0.5**0.5]), np.append(long.sum(axis=0), np.zeros(10)))[0]
        np.testing.assert_allclose(columns["weight"][found], true, rtol=1e-5, atol=1e-12)
    with pytest.raises(PruneError, match=r"^omp: a penalty of 0.5 is lost beside a row of length \d.\d+e\+06"):
        methods.load("select", "omp").call(features=x * 1e6, n_keep=10)


@truth("select/omp", by="worked example: its docstring")
@truth("select/omp", by="brute force: ridge regression on the picks at each step")
def test_omp_matches_the_sum_of_all() -> None:
    """The next pick agrees most with what ridge regression on the last ones leaves; weights are that regression's."""
    assert run("omp", np.array([[3.0, 0], [0, 1], [0, 1.5]]), 2)[0] == [0, 2]
    x = rng().normal(size=(12, 6))
    total, kept, left = x.sum(axis=0), [], x.sum(axis=0)
    for _ in range(10):
        kept.append(max((i for i in range(12) if i not in kept), key=lambda i: abs(float(x[i] @ left))))
        weights = np.linalg.solve(x[kept] @ x[kept].T + 0.5 * np.eye(len(kept)), x[kept] @ total)
        left = total - weights @ x[kept]
    found, columns = run("omp", x, 10)
    assert found == kept and prefixes("omp", x, None)
    np.testing.assert_allclose(columns["weight"][found], weights, rtol=1e-6)


@truth("select/stratified", by="closed form: shares in proportion, chances alike")
def test_stratified_draws_from_every_stratum() -> None:
    """Ten rows in five strata: one of each pair of ranks, each of the two as often; its column says which."""
    values = rng().permutation(10) / 3
    counts = np.zeros(10)
    for seed in range(300):
        kept, columns = run("stratified", values, 5, rng(seed), k=5)
        ranks = np.argsort(np.argsort(values))
        assert sorted(ranks[kept] // 2) == list(range(5))
        counts[kept] += 1
    assert columns["stratum"].tolist() == (ranks // 2).tolist()
    assert (np.abs(counts - 150) < 4 * np.sqrt(300 / 4)).all()


@truth("select/ccs", by="worked example: strata, budgets and the cut by hand")
def test_ccs_shares_the_budget_among_ranges_of_scores() -> None:
    """Of 0 … 9 and 100 the hardest is cut; in three ranges of 3 rows or 4 a budget of 5 gives 1, 2 and 2.

    With scores 0, 0, 0, 0, 0, 5, 10 ranges of 5, 1 and 1 rows give 1 and 1 and what is left.
    """
    values = np.array([3.0, 0, 8, 1, 7, 2, 100, 4, 9, 5, 6])
    for seed in range(20):
        kept, columns = run("ccs", values, 5, rng(seed), beta=0.1, k=3)
        assert 6 not in kept and columns["stratum"][6] == -1
        assert sorted(np.bincount(columns["stratum"][kept], minlength=3)) == [1, 2, 2]
        few, columns = run("ccs", np.array([0.0, 0, 0, 0, 0, 5, 10]), 4, rng(seed), beta=0, k=3)
        assert set(few[:2]) == {5, 6} and len(few) == 4
    assert columns["stratum"].tolist() == [0, 0, 0, 0, 0, 1, 2]
    low, columns = run("ccs", values, 9, rng(), beta=0.2, hard="low")
    assert columns["stratum"][1] == columns["stratum"][3] == -1 and {1, 3}.isdisjoint(low)
    assert len(run("ccs", values, 11, rng(), beta=0.5)[0]) == 11
    for beta, n in ((0.29, 29), (0.57, 57), (0.58, 58)):  # which times 100 is less in binary
        assert (run("ccs", np.arange(100.0), 5, rng(), beta=beta)[1]["stratum"] == -1).sum() == n


@truth("select/weighted", by="closed form: the chances of sampling in proportion without replacement")
@pytest.mark.parametrize("weight", ["score", "exp"])
def test_weighted_draws_in_proportion(weight: str) -> None:
    """Weights 1, 2, 5: i first and j second in w_i w_j / (8 (8 − w_i)) of draws; a row of weight 0 comes last."""
    weights = np.array([1.0, 2, 5])
    values = np.log(weights) * 3 if weight == "exp" else np.append(weights, 0.0)
    options = {"weight": weight, **({"temperature": 3.0} if weight == "exp" else {})}
    counts = np.zeros((3, 3))
    for seed in range(4000):
        kept, columns = run("weighted", values, len(values), rng(seed), **options)
        counts[kept[0], kept[1]] += 1
        assert weight == "exp" or kept[-1] == 3
    expected = weights[:, None] * weights / (8 * (8 - weights[:, None])) * (1 - np.eye(3))
    assert (np.abs(counts / 4000 - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000) + 1e-12).all()
    np.testing.assert_allclose(columns["chance"][:3], weights / 8)
    assert prefixes("weighted", rng().random(20), None, rng=rng())


def skipping(order: NDArray[np.int64], apart: NDArray[Any], least: float, n_keep: int) -> list[int]:
    """Rows in order, each if it is far enough from those kept; then the others."""
    kept: list[int] = []
    for i in order:
        if len(kept) < n_keep and all(apart[i, j] >= least for j in kept):
            kept.append(int(i))
    return (kept + [int(i) for i in order if i not in kept])[:n_keep]


@truth("select/deita", by="brute force: a loop over rows in order of score")
@pytest.mark.parametrize("block", [3, 1024])
def test_deita_skips_what_is_too_near(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are kept if no kept row has a cosine above the threshold, whatever the blocks; then the skipped ones."""
    monkeypatch.setattr(apart, "BLOCK", block)
    monkeypatch.setattr(apart, "TAKEN", 4)
    x, values = rows(40, 2).astype(np.float32), rng(1).permutation(40) / 4
    cosine = unit(x) @ unit(x).T
    order = np.argsort(-values)
    for n_keep in (1, 6, 25):
        kept, columns = run("deita", values, x, n_keep, threshold=0.98)
        assert kept == skipping(order, 1 - cosine, 0.02, n_keep)
    for at, i in enumerate(order):
        before = [
            j
            for j in order[:at]
            if j in skipping(order, 1 - cosine, 0.02, 40)[: np.sum(columns["nearest"] <= 0.98) + 1]
        ]
        if before and not np.isnan(columns["nearest"][i]):
            assert columns["nearest"][i] == pytest.approx(cosine[i, before].max(), abs=1e-5)
    assert prefixes("deita", values, x, None, threshold=0.98)


@truth("select/gist", by="peer: gist-select (peers_select.py)")
@truth("select/gist", by="brute force: the best of all sets of four of twelve rows")
def test_gist_is_near_the_best_of_all_sets() -> None:
    """f is at least 2/3 − ε of the best of all sets, as its bound says, and that of the set which gist-select finds."""

    def value(kept: Any, u: NDArray[Any], apart: NDArray[Any], weight: float) -> float:
        return float(sum(u[i] for i in kept) + weight * min(apart[i, j] for i, j in itertools.combinations(kept, 2)))

    for seed in range(4):
        x, values = rows(12, 2, seed), rng(seed).random(12)
        for weight in (0.1, 1.0, 10.0):
            kept, columns = run("gist", values, x, 4, weight=weight)
            table = distances(x)
            best = max(value(some, values, table, weight) for some in itertools.combinations(range(12), 4))
            assert value(kept, values, table, weight) >= best * (2 / 3 - 0.1)
        assert np.nanmin(columns["distance"]) == pytest.approx(min(distances(x[kept])[np.triu_indices(4, 1)]), rel=1e-5)
    theirs = value(PEERS["picks"]["gist-select gist"], VALUES, distances(POINTS), 0.2)
    ours = value(run("gist", VALUES, POINTS, 6, weight=0.2)[0], VALUES, distances(POINTS), 0.2)
    assert ours >= theirs * 0.98


@truth("select/semdedup", by="brute force: a loop over pairs of each cluster")
@pytest.mark.parametrize("keep", ["hard", "easy"])
def test_semdedup_leaves_out_the_later_of_like_rows(keep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The highest cosine to a row before it, from the edge of its cluster on, and those above 1 − ε go last."""
    monkeypatch.setattr(duplicates, "BLOCK", 4)
    x = rows(40, 3).astype(np.float32)
    kept, columns = run("semdedup", x, 15, rng(), k=3, keep=keep)
    y, cluster = unit(x), columns["cluster"]
    cosine = y @ y.T
    towards = np.array([y[i] @ unit(y[cluster == cluster[i]].mean(axis=0)[None])[0] for i in range(40)])
    rank = towards if keep == "hard" else -towards
    nearest = np.full(40, np.nan)
    for i in range(40):
        before = [j for j in range(40) if cluster[j] == cluster[i] and rank[j] < rank[i]]
        nearest[i] = cosine[i, before].max() if before else np.nan
    np.testing.assert_allclose(columns["nearest"], nearest, atol=1e-5)
    order = np.argsort(np.nan_to_num(nearest, nan=-1.0), kind="stable")
    assert kept == order[:15].tolist()
    unlike = set(np.flatnonzero(~(nearest > 0.98)))
    for n_keep in (5, len(unlike), len(unlike) + 3):
        some, _ = run("semdedup", x, n_keep, rng(), k=3, keep=keep, epsilon=0.02)
        assert set(some) <= unlike if n_keep <= len(unlike) else unlike < set(some)


@truth("select/d4", by="worked example: copies go first, then prototypes")
def test_d4_takes_no_copies_and_then_the_farthest() -> None:
    """Of rows of which a quarter are copies, no row is kept with its copy; what is kept is far from the centroid."""
    x = rows(30, 3).astype(np.float32)
    x = np.concatenate([x, x[:10]])
    kept, columns = run("d4", x, 12, rng(), k=1, dedup=0.75)
    assert len({i % 30 for i in kept}) == 12
    left = np.flatnonzero(columns["cluster"] >= 0)
    y = unit(x)
    towards = y[left] @ unit(y[left].mean(axis=0)[None])[0]
    assert len(left) == 30 and kept == left[np.argsort(towards)][:12].tolist()


@truth("select/d2", by="brute force: message passing over a whole table of distances")
def test_d2_passes_messages() -> None:
    """Scores are raised by neighbours and lowered by kept ones: the loops of the paper over all pairs."""
    x, values = rows(12, 3), rng(1).random(12)
    squares = distances(unit(x)) ** 2
    near = [sorted((j for j in range(12) if j != i), key=lambda j, i=i: squares[i, j])[:3] for i in range(12)]  # type: ignore[misc]
    u = [values[i] + sum(np.exp(-0.7 * squares[i, j]) * values[j] for j in near[i]) for i in range(12)]
    expected: list[int] = []
    gains = []
    for _ in range(10):
        i = max((i for i in range(12) if i not in expected), key=lambda i: u[i])
        expected.append(i)
        gains.append(u[i])
        for j in near[i]:
            u[j] -= np.exp(-0.4 * squares[i, j]) * u[i]
    kept, columns = run("d2", values, x, 10, k=3, forward=0.7, reverse=0.4)
    assert kept == expected and prefixes("d2", values, x, None)
    np.testing.assert_allclose(columns["gain"][kept], gains, rtol=1e-5)


@truth("select/mig", by="brute force: the gain of every row from the matrix of shares")
def test_mig_maximises_information() -> None:
    """With topics as told, each pick is the argmax over all rows of score times what its topic's shares gain."""
    x, values = rows(30, 2).astype(np.float32), rng(1).random(30)
    kept, columns = run("mig", values, x, 12, rng(), k=5, threshold=0.9)
    topic = columns["cluster"]
    centres = unit(np.stack([unit(x)[topic == c].mean(axis=0) for c in range(topic.max() + 1)]))
    graph = np.where(centres @ centres.T >= 0.9, centres @ centres.T, 0)
    spread = np.eye(len(centres))[topic] * values[:, None] @ (graph / graph.sum(axis=0))
    held = np.zeros(len(centres))
    expected: list[int] = []
    for _ in range(12):
        gain = spread @ (0.8 * (held + 1e-6) ** -0.2)
        gain[expected] = -1
        expected.append(int(gain.argmax()))
        held += spread[expected[-1]]
    assert kept == expected
    assert (np.count_nonzero(graph) > len(graph)) and prefixes("mig", values, x, None, rng=rng(), k=5)


@truth("select/novel", by="brute force: the novelty of every row at each pick, sorted anew")
def test_novel_takes_the_most_novel() -> None:
    """After the first, each pick has the largest sum of distances by rank, times the kept rows' density to the half."""
    x = rows(40, 3).astype(np.float32)
    far = 1 - unit(x) @ unit(x).T
    dense = (1 / np.sort(far, axis=1)[:, 1:6].sum(axis=1)) ** 0.5
    kept, _ = run("novel", x, 10, rng(), k=5)
    expected = kept[:1]
    while len(expected) < 10:

        def value(i: int) -> float:
            order = sorted(expected, key=lambda j: far[i, j])
            return sum(far[i, j] * dense[j] / (r + 1) for r, j in enumerate(order))

        expected.append(max((i for i in range(40) if i not in expected), key=value))
    assert kept == expected and prefixes("novel", x, None, rng=rng(), k=5)
    assert run("novel", x, 10, rng(), k=5, counted=3)[0][:3] == kept[:3]


@truth("score/moderate", by="worked example: distances of two classes by hand")
def test_moderate_is_near_the_median_distance() -> None:
    """Class 0 at 0, 2, 10 (mean 4): 4, 2, 6. Class 1 at 20, 22: 1, 1. The median is 2."""
    found = score("moderate", np.array([[0.0], [2], [10], [20], [22]]), np.array([0, 0, 0, 3, 3]))
    assert found.tolist() == [-2, 0, -4, -1, -1]


@truth("score/density", by="peer: scikit-learn's KernelDensity, and a whole table of distances")
def test_density_is_that_of_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean distance to the five nearest others; the log density of KernelDensity, up to a constant."""
    from sklearn.neighbors import KernelDensity

    monkeypatch.setattr(blocks, "NUMBERS", 50)
    x = rows(40, 3).astype(np.float32)
    np.testing.assert_allclose(score("density", x, k=5), -np.sort(distances(x), axis=1)[:, 1:6].mean(axis=1), rtol=1e-5)
    monkeypatch.setattr(density, "OURS", 7)
    monkeypatch.setattr(density, "OTHERS", 9)
    theirs = KernelDensity(bandwidth=0.7).fit(x).score_samples(x)
    kernels = 40 * (2 * np.pi * 0.7**2) ** 1.5 * np.exp(theirs)  # without its constant; with 1 of the row itself
    np.testing.assert_allclose(score("density", x, how="kernel", bandwidth=0.7), np.log((kernels - 1) / 39), atol=1e-5)


def test_density_by_kernel_tells_rows_apart_in_hundreds_of_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each kernel is far below the least number: the nearest other row decides. Two copies are the densest."""
    monkeypatch.setattr(density, "OURS", 16)
    monkeypatch.setattr(density, "OTHERS", 24)
    x = rows(50, 600)
    x[30] = x[40]
    h = np.sqrt(((x - x.mean(axis=0)) ** 2).mean()) * 50 ** (-1 / 604)
    power = distances(x) ** 2 / (-2 * h**2)
    np.fill_diagonal(power, -np.inf)
    found = score("density", x, how="kernel")
    assert np.median(power.max(axis=1)) < np.log(np.finfo(np.float32).tiny)
    np.testing.assert_allclose(found, logsumexp(power, axis=1) - np.log(49), rtol=1e-5, atol=1e-3)
    assert set(np.argsort(found)[-2:]) == {30, 40}
    assert score("density", x[:1], how="kernel").tolist() == [0]
    line = rows(300, 1, seed=1).astype(np.float32)
    power = distances(line) ** 2 / (-2 * 1e-3**2)
    np.fill_diagonal(power, -np.inf)
    narrow = score("density", line, how="kernel", bandwidth=1e-3)
    np.testing.assert_allclose(narrow, logsumexp(power, axis=1) - np.log(299), atol=0.05)
    assert all((score("density", x[[i, i, 49]], how="kernel", bandwidth=1e-3) <= 0).all() for i in range(50))


@truth("score/length", by="worked example")
def test_length_is_that_of_the_response() -> None:
    """Five letters, none, and two that are accented."""
    assert score("length", ["seven", "", "éà"]).tolist() == [5, 0, 2]


@pytest.mark.parametrize("rates", [None, np.array([3.0, 1.0, 2.0])])
@pytest.mark.parametrize("name", ["k_center", "herding", "omp", "graph_cut", "k_dpp", "novel", "greats"])
def test_rows_that_are_not_held_give_the_same(
    name: str, rates: NDArray[np.float64] | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From a memory map in half precision that is read a block at a time, the picks are those from memory.

    rates: learning rates, where the rows are of three checkpoints.
    """
    np.save(tmp_path / "x.npy", rows(300, 6).astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    more = {} if rates is None else {"learning_rate": rates}
    targets = [rows(4, 6, seed=1)] if name == "greats" else []

    def picks(x: NDArray[Any]) -> list[int]:
        draws = {"rng": rng()} if name == "novel" else {}
        return run(name, x, *targets, 20, **draws, **more)[0]

    expected = picks(np.array(mapped))
    monkeypatch.setattr(products, "IN_MEMORY", 0)
    monkeypatch.setattr(blocks, "NUMBERS", 64)
    assert picks(mapped) == expected


def truths() -> dict[str, list[str]]:
    """Method -> its outside truths, from the marks of all tests."""
    found: dict[str, list[str]] = {}
    for path in HERE.glob("test_*.py"):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)) if "@truth(" in text else ():
            for mark in getattr(node, "decorator_list", []):
                if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "truth":
                    by = ast.literal_eval(mark.keywords[0].value)
                    for name in mark.args:
                        found.setdefault(ast.literal_eval(name), []).append(f"{path.name}: {by}")
    return found


def test_every_method_has_its_outside_truth() -> None:
    """Each file of score/ and select/ has a test that is marked as its outside truth, and each mark is of a file."""
    files = {f"{stage}/{name}" for stage in methods.STAGES for name in methods.names(stage)}
    assert set(truths()) == files
