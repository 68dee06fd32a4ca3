"""Scores of training dynamics, and of several scores, against numbers worked out by hand and scipy's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from prune_cli.errors import PruneError
from prune_cli.methods import method as methods
from tests.truth import truth


def scored(name: str, *args: Any, **options: Any) -> Any:
    """What a score method returns."""
    return methods.load("score", name).function(*args, **options)


DOUBT = np.array([[0.8, 0.6], [0.1, 0.3], [0.5, 0.5], [1, 1]], np.float32)  # 1 − p at two checkpoints


@truth("score/confidence", by="worked example")
def test_confidence_is_the_mean_probability() -> None:
    """(0.2 + 0.4) / 2, (0.9 + 0.7) / 2, one half, and 0; what hard_to_learn lacks to one."""
    np.testing.assert_allclose(scored("confidence", DOUBT), [0.3, 0.8, 0.5, 0], atol=1e-7)
    np.testing.assert_allclose(scored("confidence", DOUBT) + scored("hard_to_learn", DOUBT), 1, atol=1e-12)


@truth("score/threshold_closeness", by="worked example")
def test_threshold_closeness_is_of_the_mean_probability() -> None:
    """0.3 × 0.7, 0.8 × 0.2, ¼ and 0: of the mean, and not the mean of 0.2 × 0.8 and 0.4 × 0.6, which is 0.2."""
    np.testing.assert_allclose(scored("threshold_closeness", DOUBT), [0.21, 0.16, 0.25, 0], atol=1e-7)


@truth("score/correctness", by="worked example")
def test_correctness_is_the_share_of_right_checkpoints() -> None:
    """Two of three, none, and a response with half, all and none of its tokens right."""
    correct = np.array([[1, 0, 1], [0, 0, 0], [0.5, 1, 0]], np.float32)
    np.testing.assert_allclose(scored("correctness", correct), [2 / 3, 0, 0.5], atol=1e-7)


@truth("score/forgetting", by="worked example")
def test_forgetting_counts_each_loss_of_what_was_right() -> None:
    """Right, wrong, right, wrong is two events; right at the end is none; to start wrong is none; never right is e."""
    correct = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]], np.float32)
    assert scored("forgetting", correct).tolist() == [2, 0, 0, 1, 4]
    assert scored("forgetting", correct[:, :1]).tolist() == [0, 1, 0, 1, 1]


def test_forgetting_takes_a_response_for_right_above_half_of_its_tokens() -> None:
    """0.6 to 0.5 is an event; 0.4 to 0.5 is never right."""
    assert scored("forgetting", np.array([[0.6, 0.5], [0.4, 0.5]], np.float32)).tolist() == [1, 2]


@truth("score/aum", by="worked example")
def test_aum_is_the_mean_margin() -> None:
    """Margins of 1 and 3 are 2; −4 and 1 are −1.5."""
    assert scored("aum", np.array([[1, 3], [-4, 1]], np.float32)).tolist() == [2, -1.5]


@truth("score/grand", by="worked example")
def test_grand_is_the_mean_norm() -> None:
    """Norms of 1 and 3 are 2; not the root of their mean square, √5."""
    assert scored("grand", np.array([[1, 3], [0.5, 0.5]], np.float32)).tolist() == [2, 0.5]


@truth("score/tailsft", by="worked example")
def test_tailsft_is_how_far_the_loss_has_fallen() -> None:
    """From ln 8 to ln 2 is ln 4, whatever was between; from ln 2 to ln 4 is −ln 2."""
    logprob = -np.log([[8, 9, 2], [2, 1, 4]]).astype(np.float32)
    np.testing.assert_allclose(scored("tailsft", logprob), [math.log(4), -math.log(2)], atol=1e-6)
    assert scored("tailsft", logprob[:, :1]).tolist() == [0, 0]


def test_entropy_and_upd_are_of_the_last_checkpoint() -> None:
    """Their tensors are held against formulas where the tasks make them."""
    tensor = np.array([[0.1, 0.5], [0.7, 0.25]], np.float32)
    for name in ("entropy", "upd"):
        assert scored(name, tensor).tolist() == [0.5, 0.25]


@truth("score/combine", by="peer: scipy's rankdata")
def test_combine_adds_ranks_as_scipy_gives_them() -> None:
    """rankdata's mean ranks, from 0 to 1, by their weights; without weights their mean."""
    scores = np.random.default_rng(0).integers(0, 6, (30, 3)).astype(np.float64)
    ranks = (stats.rankdata(scores, axis=0) - 1) / 29
    np.testing.assert_allclose(scored("combine", scores, weights="1,-2,0.5"), ranks @ [1, -2, 0.5], rtol=1e-12)
    np.testing.assert_allclose(scored("combine", scores), ranks.mean(axis=1), rtol=1e-12)


@truth("score/combine", by="peer: scipy's zscore")
def test_combine_adds_standard_scores_as_scipy_gives_them() -> None:
    """zscore by its weights; a score that is the same for all rows adds nothing."""
    scores = np.random.default_rng(0).normal(size=(30, 2)) * [1, 100]
    made = scored("combine", np.column_stack([scores, np.ones(30)]), weights="1,2,9", scale="z")
    np.testing.assert_allclose(made, stats.zscore(scores, axis=0) @ [1, 2], rtol=1e-10)


@pytest.mark.parametrize("weights", ["1", "1,2,3", "1,x", "1,nan", ",", "0,0"])
def test_combine_refuses_weights_that_are_not_one_for_each_score(weights: str) -> None:
    """The message has what was given and how many are allowed."""
    with pytest.raises(PruneError, match=f"^weights: {weights}; allowed: 2 numbers with commas, "):
        scored("combine", np.ones((3, 2)), weights=weights)
