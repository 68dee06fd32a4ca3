"""Methods of optimal transport to a target set, against other packages, the authors' programs and linear programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prune_cli.errors import PruneError
from prune_cli.numeric import blocks, transport
from prune_cli.numeric.highest import NONE, Highest, positions
from prune_cli.numeric.ranked import likeness, ranked
from prune_cli.numeric.transport import transport_distance
from prune_cli.numeric.whitened import Whitened, whitening
from prune_cli.score import uot
from prune_cli.select import tarot, tsds
from tests.truth import truth

PEERS = json.loads((Path(__file__).parent / "transport_peers.json").read_text("utf-8"))
ROWS, TARGETS = np.array(PEERS["rows"]), np.array(PEERS["targets"])
ONE = np.ones(1)  # the learning rate of one checkpoint


def unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return lengths


@truth("score/uot", by="peer: POT's sinkhorn_unbalanced (transport_peers.py)")
@pytest.mark.parametrize("small", [False, True])
def test_uot_is_the_mass_of_the_plan_of_pot(small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same masses at the options of the source and at higher ones, in one block or many, from disk too."""
    if small:
        monkeypatch.setattr(blocks, "NUMBERS", 40)
        monkeypatch.setattr(blocks, "IN_MEMORY", 0)
    for options, mass in PEERS["uot"].items():
        epsilon, penalty = map(float, options.split())
        found = uot.score(ROWS[:, None], TARGETS[:, None], ONE, epsilon=epsilon, penalty=penalty)
        np.testing.assert_allclose(found, mass, rtol=1e-5)


@truth("score/uot", by="closed form: with λ near 0 the mean of the target rows' softmax over rows")
@pytest.mark.parametrize("epsilon", [0.01, 1e-5])
def test_uot_without_penalty_is_a_softmax(epsilon: float) -> None:
    """Two checkpoints, whose cosines are weighted by learning rates 3 and 1; ε as low as where exponents underflow."""
    x, y = np.random.default_rng(0).normal(size=(2, 30, 2, 4))
    y = y[:5]
    cosine = np.einsum("c,vcd,icd->vi", [0.75, 0.25], unit(y), unit(x))
    exponent = cosine / (2 * epsilon)
    weights = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    expected = (weights / weights.sum(axis=1, keepdims=True)).mean(axis=0)
    found = uot.score(x, y, np.array([3.0, 1]), epsilon=epsilon, penalty=1e-14)
    np.testing.assert_allclose(found, expected, rtol=0.01 if epsilon < 0.01 else 1e-5, atol=1e-300)


def test_uot_on_influence_is_that_on_the_cosines_it_holds() -> None:
    """The cosine with each target row at two checkpoints, averaged with their learning rates."""
    x, y = np.random.default_rng(1).normal(size=(2, 30, 2, 4))
    y = y[:5]
    influence = np.einsum("vcd,icd->icv", unit(y), unit(x))
    for rates in ([3.0, 1], [0.0, 0]):
        expected = uot.score(x, y, np.array(rates))
        np.testing.assert_allclose(uot.score_influence(influence, np.array(rates)), expected, rtol=1e-4)


def test_uot_that_does_not_settle_is_an_error() -> None:
    """A penalty far above ε asks for more passes than there are."""
    with pytest.raises(
        PruneError, match=r"not settled after 1000 passes, with penalty 100 and epsilon 0\.001$"
    ) as caught:
        uot.score(ROWS[:, None], TARGETS[:, None], ONE, epsilon=0.001, penalty=100.0)
    assert caught.value.hint


def chances(x: NDArray[np.float64], n_keep: int = 10, **options: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What TSDS picks for the target rows, and the chance of each row."""
    picks, columns = tsds.select(x[:, None], TARGETS[:, None], n_keep, np.random.default_rng(0), ONE, **options)
    return picks, columns["chance"]


@truth("select/tsds", by="published code: the chances that ZifanL/TSDS draws from (transport_peers.py)")
def test_tsds_has_the_chances_of_the_authors() -> None:
    """With near-duplicates among the rows and as many neighbours as theirs, a tenth of all rows."""
    rows = np.array(PEERS["repeated"])
    for options, expected in PEERS["tsds"].items():
        alpha, bandwidth = map(float, options.split())
        found = chances(rows, alpha=alpha, bandwidth=bandwidth, neighbours=len(rows) // 10)[1]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def best_plan(rows: NDArray[np.float64], alpha: float, bandwidth: float) -> NDArray[np.float64]:
    """The mass of each row in the plan of TSDS, by a linear program over plans and the largest deviation."""
    from scipy.optimize import linprog

    x, y = unit(rows), unit(TARGETS)
    m, n = len(y), len(x)
    apart, near = np.linalg.norm(y[:, None] - x, axis=2), np.linalg.norm(x[:, None] - x, axis=2)
    density = np.maximum(0, 1 - near**2 / bandwidth**2).sum(axis=1)
    even = 1 / (1 / density).sum()  # m ρ γ of an even share
    deviations = np.diag(m * np.tile(density, m))
    ones, cells = np.ones((m * n, 1)), np.full(m * n, even)
    found = linprog(
        np.append(alpha / tsds.C * apart.ravel(), 1 - alpha),
        np.block([[deviations, -ones], [-deviations, -ones]]),
        np.concatenate([cells, -cells]),
        np.hstack([np.kron(np.eye(m), np.ones(n)), np.zeros((m, 1))]),
        np.full(m, 1 / m),
    )
    masses: NDArray[np.float64] = found.x[:-1].reshape(m, n).sum(axis=0)
    return masses


@truth("select/tsds", by="brute force: a linear program over all plans")
@pytest.mark.parametrize("alpha", [0.99, 0.9, 0.8])
def test_tsds_solves_its_linear_program(alpha: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The masses of the closed form are those of the program, whatever the blocks and the neighbours tried first."""
    expected = best_plan(ROWS, alpha, 0.75)
    for first, numbers in ((64, 2**22), (3, 40)):
        monkeypatch.setattr(tsds, "FIRST", first)
        monkeypatch.setattr(blocks, "NUMBERS", numbers)
        np.testing.assert_allclose(chances(ROWS, alpha=alpha)[1], expected, atol=1e-6)


def test_tsds_draws_by_chance() -> None:
    """How often a row is drawn first is its chance; rows of none come last, the nearest first."""
    chance = chances(ROWS, alpha=0.9)[1]
    args = ROWS[:, None], TARGETS[:, None]
    firsts = [tsds.select(*args, 1, np.random.default_rng(seed), ONE, alpha=0.9)[0][0] for seed in range(400)]
    often = np.bincount(firsts, minlength=60)
    assert (np.abs(often - 400 * chance) <= 4 * np.sqrt(400 * chance * (1 - chance))).all()
    picks, some = np.count_nonzero(chance), chances(ROWS, 5, alpha=0.9)[0]
    order = chances(ROWS, 60, alpha=0.9)[0]
    assert order[:5].tolist() == some.tolist() and (chance[order[:picks]] > 0).all()
    closest = (unit(TARGETS) @ unit(ROWS).T).max(axis=0)
    assert (np.diff(closest[order[picks:]]) <= 0).all()
    assert (np.diff(chance[chances(ROWS, 60, alpha=0.9, how="top")[0]]) <= 0).all()


def test_checkpoints_of_tsds_weigh_by_their_learning_rates() -> None:
    """Cosines of 3 : 1 are those of vectors of length √¾ and √¼ side by side, for rows and target rows alike."""
    two = [np.stack([x, np.roll(x, 1, axis=1) ** 3], axis=1) for x in (ROWS, TARGETS)]
    beside = [np.hstack([unit(x[:, 0]) * 0.75**0.5, unit(x[:, 1]) * 0.25**0.5])[:, None] for x in two]
    found = tsds.select(two[0], two[1], 10, np.random.default_rng(0), np.array([3e-4, 1e-4]), alpha=0.9)[1]["chance"]
    expected = tsds.select(beside[0], beside[1], 10, np.random.default_rng(0), ONE, alpha=0.9)[1]["chance"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("k", [1, 5, 70, 300])
def test_the_highest_are_those_of_a_sort(k: int) -> None:
    """Of numbers that come for some lines at a time, in pieces of any size; NONE where there are fewer than k."""
    rng = np.random.default_rng(k)
    whole = rng.permutation(5 * 400).reshape(5, 400)
    best, ends = Highest(5, k), np.zeros(5, int)
    while (ends < 400).any():
        lines = np.sort(rng.choice(5, rng.integers(1, 6), replace=False))
        lines = lines[ends[lines] < 400]
        size = int(min(rng.integers(1, 200), (400 - ends[lines]).min(initial=400)))
        best.add(lines, np.array([whole[j, ends[j] : ends[j] + size] for j in lines]).reshape(len(lines), size))
        ends[lines] += size
    np.testing.assert_array_equal(best.sorted(), np.sort(whole, axis=1)[:, ::-1][:, :k])
    few = Highest(2, 3)
    few.add(np.array([1]), np.array([[4, 6]]))
    assert few.sorted().tolist() == [[NONE, NONE, NONE], [6, 4, NONE]]


def test_rows_are_ranked_by_likeness_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next rows after the first ten are the eleventh to the fifteenth, of equals the first; in small blocks too."""
    monkeypatch.setattr(blocks, "NUMBERS", 40)
    x, y = unit(np.repeat(ROWS[:15], 2, axis=0)), unit(TARGETS)
    order = np.argsort(-np.round(y @ x.T, 8), axis=1, kind="stable")
    first = ranked(x, y, 10)
    after = ranked(x, y, 5, first[:, -1])
    found = np.concatenate([first, after], axis=1)
    assert positions(found).tolist() == order[:, :15].tolist()
    np.testing.assert_allclose(likeness(found), np.take_along_axis(y @ x.T, order[:, :15], 1), atol=2**-30)


AUTHORS = PEERS["tarot"]
REPEATED = np.array(PEERS["repeated"])


def mahalanobis(rows: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosines of target rows to rows [m, n] by the inverse covariance of all, about their mean."""
    together = np.concatenate([rows, targets])
    x, y = rows - together.mean(axis=0), targets - together.mean(axis=0)
    inverse = np.linalg.inv(np.cov(together.T, bias=True))
    lengths = [np.sqrt(np.einsum("id,de,ie->i", z, inverse, z)) for z in (y, x)]
    cosines: NDArray[np.float64] = y @ inverse @ x.T / lengths[0][:, None] / lengths[1]
    return cosines


class Folds:
    """A generator whose permutation of the target rows is that of the authors' folds."""

    def permutation(self, m: int) -> NDArray[np.int64]:
        return np.concatenate(AUTHORS["folds"])


@truth("select/tarot", by="closed form: layers by Mahalanobis cosines, which any whitening has")
@pytest.mark.parametrize("candidates", [2**22, 7 * 4])
def test_tarot_takes_layer_after_layer(candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The k-th nearest rows of all target rows, the nearest first, in pages of few layers and small blocks too."""
    if candidates < 100:
        monkeypatch.setattr(tarot, "CANDIDATES", candidates)
        monkeypatch.setattr(blocks, "NUMBERS", 40)
    cosine = mahalanobis(REPEATED, TARGETS)
    expected: dict[int, int] = {}
    near = np.argsort(-cosine, axis=1)
    for k in range(len(REPEATED)):
        for v in np.argsort([-cosine[v, near[v, k]] for v in range(7)]):
            expected.setdefault(int(near[v, k]), k + 1)
    for n_keep in (1, 25, 120):
        kept, columns = tarot.select(REPEATED, TARGETS, n_keep, np.random.default_rng(0), damping=1e-9)
        assert kept.tolist() == list(expected)[:n_keep]
        assert columns["layer"][kept].tolist() == list(expected.values())[:n_keep]
        assert (np.delete(columns["layer"], kept) == -1).all()


@truth("select/tarot", by="published code: vita-epfl/TAROT, fixed size and own budget (transport_peers.py)")
def test_tarot_keeps_what_the_authors_keep() -> None:
    """Of a given budget all whole layers; of its own the layers up to the least distance, the distance that they have.

    Theirs has one layer more of each fold, the one with which the distance rose.
    """
    kept, columns = tarot.select(REPEATED, TARGETS, 25, np.random.default_rng(0), damping=1e-9)
    last = columns["layer"][kept[-1]]
    assert set(kept[columns["layer"][kept] < last]) <= set(AUTHORS["fixed"])
    order, columns = tarot.select(REPEATED, TARGETS, 120, Folds(), budget="own", folds=3, damping=1e-9)
    near = np.argsort(-mahalanobis(REPEATED, TARGETS), axis=1)
    cost = np.sqrt(2 - 2 * mahalanobis(REPEATED, TARGETS).T)
    ours, theirs = set(), set()
    for fold, distances in zip(AUTHORS["folds"], AUTHORS["distances"], strict=True):
        ours |= set(near[fold, : len(distances) - 1].ravel())
        theirs |= set(near[fold, : len(distances)].ravel())
        for k, distance in enumerate(distances):
            found = transport_distance(np.delete(cost, fold, axis=1)[np.unique(near[fold, : k + 1])])
            assert found == pytest.approx(distance, rel=0.01)
    assert theirs == set(AUTHORS["own"])
    assert set(np.flatnonzero(columns["own"])) == ours == set(order[: len(ours)])


@pytest.mark.parametrize("d", [5, 40])
def test_whitened_rows_have_the_products_of_the_inverse_covariance(d: int) -> None:
    """Cosines by (Σ + λI)⁻¹, for more rows than features and for fewer."""
    x = np.random.default_rng(0).normal(size=(20, d))
    mean, matrix = whitening(x[:15], x[15:], 0.1)
    covariance = np.cov(x.T, bias=True)
    inverse = np.linalg.inv(covariance + 0.1 * covariance.trace() / d * np.eye(d))
    products = (x - x.mean(axis=0)) @ inverse @ (x - x.mean(axis=0)).T
    lengths = np.sqrt(np.diag(products))
    rows = Whitened(x, mean, matrix)
    found = rows[:]
    assert rows.shape == found.shape
    np.testing.assert_allclose(found @ found.T, products / lengths / lengths[:, None], atol=1e-9)


def test_tarot_s_own_budget_is_that_of_its_rule() -> None:
    """Layers of each fold's rows, of cosine above 0 alone, as long as the distance to the other target rows falls."""
    for seed in range(12):
        x, y = np.random.default_rng(seed).normal(size=(2, 12, 3))
        y = y[:6]
        cosine = mahalanobis(x, y)
        near, cost = np.argsort(-cosine, axis=1), np.sqrt(2 - 2 * cosine.T)
        own: set[int] = set()
        for fold in np.array_split(np.random.default_rng(seed).permutation(6), 3):
            taken: set[int] = set()
            best = np.inf
            for k in range(12):
                more = taken | {int(near[v, k]) for v in fold if cosine[v, near[v, k]] > 0}
                found = transport_distance(np.delete(cost, fold, axis=1)[sorted(more)]) if more > taken else np.inf
                if found >= best:
                    break
                taken, best = more, found
            own |= taken
        options = {"budget": "own", "folds": 3, "damping": 1e-9}
        order, columns = tarot.select(x, y, 12, np.random.default_rng(seed), **options)
        assert set(np.flatnonzero(columns["own"])) == own == set(order[: len(own)])


@truth("select/tarot", by="brute force: the best assignment of 40 rows to 40, by scipy")
def test_transport_distance_is_near_that_of_the_best_assignment(monkeypatch: pytest.MonkeyPatch) -> None:
    """From below, within 8% as it is, and within 1% if ε falls slowly; of a set to itself it is 0."""
    from scipy.optimize import linear_sum_assignment

    x, y = unit(np.random.default_rng(0).normal(size=(2, 40, 5)))
    cost = np.linalg.norm(x[:, None] - y, axis=2)
    exact = cost[linear_sum_assignment(cost)].mean()
    assert 0.92 * exact < transport_distance(cost) < exact
    monkeypatch.setattr(transport, "FALL", 0.95)
    assert transport_distance(cost) == pytest.approx(exact, rel=0.01)
    assert transport_distance(np.zeros((3, 2))) == 0
