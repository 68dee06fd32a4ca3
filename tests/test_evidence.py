"""Comparisons with random where some runs have no number to compare."""

from __future__ import annotations

import numpy as np

from prune_cli.pipeline.evidence import Trial, Values, _of_benchmark, compare, warned


def runs(method: str, *losses: list[float]) -> dict[Trial, Values]:
    return {(method, "0.1", seed): {("near", "loss"): np.array(rows)} for seed, rows in enumerate(losses)}


def test_an_infinite_loss_is_not_compared() -> None:
    """A method that diverged is told, and the others are compared as without it; so it is if random did."""
    random, good = runs("random", [1, 2, 3], [2, 2, 1], [3, 1, 2]), runs("less", [0, 1, 3], [0, 2, 1], [1, 0, 2])
    bad = runs("rds", [1, 2, 3], [1, np.inf, 3], [1, np.nan, 2])
    found = compare(random | good | bad)
    assert [c.method for c in found] == ["less"] and found == compare(random | good)
    told = list(warned(random | good | bad, {"near": ["loss"]}, 3))
    assert told == ["near loss: rds, keep 0.1, has runs in which it is no number; it is not compared"]
    assert compare(good | runs("random", [1, 2, np.inf], [1, 2, 3])) == []


def test_tasks_of_a_group_may_have_other_metrics() -> None:
    """Of a group of lm-eval's tasks what every document has a number for is compared, in the order it comes in."""
    document = {"task": "a", "id": 0, "filter": "none", "reference": 1, "prediction": 1}
    own = [{**document, "f1": 0.5, "acc": 1.0}, {**document, "task": "b", "mcc": 0.1, "acc": 0.0}]
    assert {name: array.tolist() for name, array in _of_benchmark(own).items()} == {"acc": [1.0, 0.0]}
