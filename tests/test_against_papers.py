"""Scores and selections against what their sources say: formulas by hand, published code, and what they are for.

Published code was read at princeton-nlp/LESS 8abf962, BigML-CS-UCLA/S2L 2bc84dd, tianyi-lab/Cherry_LLM 6c200ba,
hamishivi/automated-instruction-selection 0227547, and the code of Du et al. 2025 (arXiv 2507.03648).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prune_cli.methods import balance
from prune_cli.methods import method as methods
from prune_cli.numeric.shares import equal_shares, proportional_shares, smallest_first


def rng(seed: int = 0) -> np.random.Generator:
    """A generator."""
    return np.random.default_rng(seed)


def scored(name: str, *args: Any, **options: Any) -> Any:
    """What a score method returns."""
    return methods.load("score", name).function(*args, **options)


def selected(name: str, *args: Any, **options: Any) -> list[int]:
    """The positions that a selection returns."""
    returned = methods.load("select", name).function(*args, **options)
    positions: np.ndarray = returned[0] if isinstance(returned, tuple) else returned
    return positions.tolist()


def crowd_and_outliers(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """40 rows in random order, 20 within 0.2 of each other and 20 a hundred apart; which are of the crowd."""
    crowd = rng(seed).uniform(0, 0.1, (20, 2))
    apart = 100.0 * np.array([[i % 5 + 1, i // 5 + 1] for i in range(20)])
    order = rng(seed).permutation(40)
    return np.concatenate([crowd, apart]).astype(np.float32)[order], (np.arange(40) < 20)[order]


@pytest.mark.parametrize("k", [1, 5, 10, 20, 21, 39, 40, 100])
def test_kmeans_keeps_no_more_of_a_crowd_than_a_random_draw_does(k: int) -> None:
    """Of 40 rows, half of them alike, 20 kept: at most 10 are alike on average, 3 with a cluster a row."""
    kept = []
    for seed in range(30):
        features, crowd = crowd_and_outliers(seed)
        kept.append(int(crowd[selected("kmeans", features, 20, rng(seed), k=k)].sum()))
    assert np.mean(kept) < 10 + 4 * (20 * 0.25 * 20 / 39 / 30) ** 0.5  # the mean of a draw, and four standard errors
    if k >= 20:
        assert max(kept) <= 3


def test_kmeans_keeps_no_more_of_a_crowd_within_each_label() -> None:
    """The same with a balance of two labels, each with rows alike and rows apart."""
    kmeans = methods.load("select", "kmeans")
    for seed in range(10):
        (one, crowd), (other, more) = crowd_and_outliers(seed), crowd_and_outliers(seed + 50)
        features, alike = np.concatenate([one, other + 1000]), np.concatenate([crowd, more])
        label = np.repeat([0, 1], 40)
        for how in ("keep", "equal"):
            chosen = balance.select(kmeans, {"features": features, "rng": rng(seed), "k": 100}, label, 40, how, 80)
            for part in (0, 1):
                rows = chosen.positions[label[chosen.positions] == part]
                assert len(rows) == 20 and alike[rows].sum() <= 3


def test_clusters_of_equal_size_have_equal_chances() -> None:
    """Four clusters of two rows, five kept: each gives two rows a quarter of the time, within four standard errors."""
    features = np.repeat(100.0 * np.eye(4), 2, axis=0).astype(np.float32) + np.tile([[0.0], [1.0]], (4, 1))
    double = np.zeros(4)
    for seed in range(600):
        double += np.bincount(np.array(selected("kmeans", features, 5, rng(seed), k=4)) // 2, minlength=4) == 2
    assert double.sum() == 600
    assert (np.abs(double - 150) < 4 * (600 * 0.25 * 0.75) ** 0.5).all()


@pytest.mark.parametrize("how", ["keep", "equal"])
def test_a_random_draw_balanced_over_many_groups_does_not_go_by_their_names(how: str) -> None:
    """Of 40 groups of one row, 20 kept at random: each group is kept about half the time, not the first or the last."""
    draw = methods.load("select", "random")
    kept = np.zeros(40)
    for seed in range(400):
        chosen = balance.select(draw, {"n": 40, "rng": rng(seed)}, np.arange(40), 20, how, 40)
        kept[chosen.positions] += 1
    assert (np.abs(kept - 200) < 4.5 * (400 * 0.25) ** 0.5).all()


def test_shares_in_random_order_are_still_exact() -> None:
    """In any order of equals shares add up to the budget, and none is above its size."""
    for seed in range(50):
        sizes = rng(seed).integers(0, 4, 30)
        total = int(rng(seed).integers(1, sizes.sum() + 1))
        for shares in (
            equal_shares(sizes, total, smallest_first(sizes, rng(seed))),
            proportional_shares(sizes, total, rng(seed)),
        ):
            assert shares.sum() == total and (shares <= sizes).all()


def test_a_step_of_adam_is_that_of_the_published_code_of_less() -> None:
    """Six entries of very different size through `obtain_gradients_with_adam` of princeton-nlp/LESS 8abf962, float64.

    Entries whose root of the second moment is below 1e-4, the third and on, tell ε within the root from ε beside it.
    """
    torch = pytest.importorskip("torch")
    from prune_cli.gradients.adam import Adam

    grads = [0.5, -2e-3, 3e-5, 0.0, 1e-6, -0.04]
    first, second = np.array([0.1, 1e-3, -2e-5, 4e-6, 0.0, -0.01]), np.array([0.02, 4e-6, 9e-10, 1e-12, 0.0, 1e-4])
    theirs = [0.98430567029, 0.34956331861, -0.14367394278, 0.03599820193, 0.00099999995, -1.29029477441]
    weight = torch.zeros(6, dtype=torch.float64)
    adam = Adam.of({"w": first}, {"w": second}, (0.9, 0.999), 1e-8, {"w": weight})
    ours = adam.step("w", torch.tensor([grads], dtype=torch.float64))[0]
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9)
    assert adam.resting("w")[3].item() == pytest.approx(theirs[3], rel=1e-9)
