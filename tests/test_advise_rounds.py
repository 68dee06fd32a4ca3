"""Trials in rounds, simulated: how often something is claimed where there is nothing, and found where there is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from scipy import stats

from prune_cli.pipeline.advise.choice import Advice
from prune_cli.pipeline.advise.rounds import Decision, Question, Round, decide

DRAWS = 3
METHODS = tuple(f"m{j}" for j in range(8))
# seconds: warm-up and representations of a sub-pool, training on all of it, one trial of a method
SHARED, ALL, TRIAL = 20.0, 10.0, 1.5


def runs(rng: np.random.Generator, mean: float, hard: np.ndarray, pool: float, sd: float, times: int) -> np.ndarray:
    """Right or wrong on each test row, the mean over some runs whose level differs by sd."""
    latent = mean + hard + pool + rng.normal(0, sd, (times, 1))
    right: np.ndarray = (latent + rng.normal(0, 0.5, (times, len(hard))) > 0).mean(axis=0)
    return right


def advised(
    rng: np.random.Generator, gains: Mapping[str, float], budget: float, sd: float, rows: int = 500
) -> tuple[Advice, Decision, float]:
    """The advice that simulated rounds come to, the last decision, and the seconds used. gains: over random, latent."""
    hard = rng.normal(size=rows)
    own = {method: rng.normal(0, 0.5, rows) if gain else np.zeros(rows) for method, gain in gains.items()}
    question = Question("test", "accuracy", "0.1", 50, 500, tuple(gains), None, budget)
    methods, rounds, used, spent = tuple(gains), [], 0.0, 0.0
    while True:
        pool = rng.normal(0, sd)
        values = {"random": runs(rng, 0.3, hard, pool, sd, DRAWS), "full": runs(rng, 0.9, hard, pool, sd / 3, 1)}
        values |= {m: runs(rng, 0.3 + gains[m], hard + own[m], pool, sd, 1) for m in methods}
        seconds = SHARED + ALL + TRIAL * (DRAWS + len(methods))
        rounds.append(Round(values, {name: float(array.mean()) for name, array in values.items()}, seconds))
        used += seconds
        decision, found = decide(question, rounds, methods, used, spent)
        methods, spent = decision.methods, decision.spent
        if decision.stop:
            assert found is not None
            return found, decision, used


def accuracy(gain: float, sd: float, own: float) -> float:
    """The accuracy that a latent gain over random comes to, over that of random."""
    there, here = np.sqrt(1 + 0.25 + 2 * sd**2 + own**2), np.sqrt(1 + 0.25 + 2 * sd**2)
    return float(stats.norm.cdf((0.3 + gain) / there) - stats.norm.cdf(0.3 / here))


@pytest.mark.slow
@pytest.mark.parametrize("sd", [0.05, 0.15])
@pytest.mark.parametrize("budget", [150.0, 300.0])
def test_nothing_is_claimed_where_nothing_is(sd: float, budget: float) -> None:
    """Where every method is a random draw, at most 5% of 200 problems end in one of them."""
    rng = np.random.default_rng(3)
    claims = 0
    for _ in range(200):
        found, _, _ = advised(rng, dict.fromkeys(METHODS, 0.0), budget, sd)
        claims += found.picks[0].method != "random"
    print(sd, budget, claims)
    assert claims <= 10


@pytest.mark.slow
@pytest.mark.parametrize("gain", [0.2, 0.3, 0.4, 0.6])
def test_what_is_better_is_found(gain) -> None:
    sd, budget = 0.1, 250.0
    rng = np.random.default_rng(4)
    best, time, stops, n = 0, [], {}, []
    for _ in range(100):
        found, decision, used = advised(rng, {**dict.fromkeys(METHODS, 0.0), "m3": gain}, budget, sd)
        best += found.picks[0].method == "m3"
        time.append(used)
        stops[decision.stop] = stops.get(decision.stop, 0) + 1
    exhaustive = 2 * (SHARED + 3 * ALL + 3 * TRIAL * 8 + 10 * TRIAL)
    print(gain, accuracy(gain, sd, 0.5), best, np.mean(time), exhaustive, stops)
