"""Methods of optimal transport to a target set, against other packages, the authors' programs and linear programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prune_cli.errors import PruneError
from prune_cli.numeric import blocks
from prune_cli.numeric.ranked import likeness, positions, ranked
from prune_cli.score import uot
from prune_cli.select import tsds
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
    """How often a row is drawn first is its chance; rows of none come last, the nearest first; budgets are beginnings."""
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
