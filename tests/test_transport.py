"""Methods of optimal transport to a target set, against other packages, the authors' programs and linear programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from prune_cli.errors import PruneError
from prune_cli.numeric import blocks
from prune_cli.score import uot
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
