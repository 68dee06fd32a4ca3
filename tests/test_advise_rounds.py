"""Trials in rounds: what is decided after each; by simulation, how often a method is claimed that is none, or found."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from scipy.stats import norm

from prune_cli.numeric.inference import Difference, differences, holm
from prune_cli.pipeline.advise.choice import Advice, Line
from prune_cli.pipeline.advise.rounds import DRAWS, Decision, Question, Round, decide, predictive_power

METHODS = tuple(f"m{j}" for j in range(8))
# seconds: warm-up and representations of a sub-pool, training on all of it, one trial of a method
SHARED, ALL, TRIAL = 20.0, 10.0, 1.5
ROUND = SHARED + ALL + TRIAL * (DRAWS + len(METHODS))
ROWS, SD, OWN = 500, 0.1, 0.5  # test rows; latent deviations of runs, and of what a method gets right


def runs(rng: np.random.Generator, level: np.ndarray, sd: float, times: int) -> np.ndarray:
    """Right or wrong on each test row [times, n], of runs whose level differs by sd."""
    latent = level + rng.normal(0, sd, (times, 1)) + rng.normal(0, 0.5, (times, len(level)))
    return (latent > 0).astype(float)


def problem(rng: np.random.Generator, gains: Mapping[str, float]) -> dict[str, np.ndarray]:
    """The level of each method on each test row; one of no gain is a random draw. gains: latent, over random."""
    hard = 0.3 + rng.normal(size=ROWS)
    levels = {name: hard + gain + (rng.normal(0, OWN, ROWS) if gain else 0) for name, gain in gains.items()}
    return {"random": hard, "full": hard + 0.6, **levels}


def one_round(rng: np.random.Generator, levels: Mapping[str, np.ndarray], methods: tuple[str, ...], sd: float) -> Round:
    """What a round measures: the sub-pool is good or bad for all, each run for itself."""
    pool = rng.normal(0, sd)
    times = {"random": DRAWS, "full": 1, **dict.fromkeys(methods, 1)}
    values = {name: runs(rng, levels[name] + pool, sd, count).mean(axis=0) for name, count in times.items()}
    metrics = {name: float(array.mean()) for name, array in values.items()}
    return Round(values, metrics, SHARED + ALL + TRIAL * (DRAWS + len(methods)))


def question(budget: float, methods: tuple[str, ...] = METHODS, margin: float | None = None) -> Question:
    return Question("test", "accuracy", "0.1", 50, 500, methods, margin, budget)


def advised(
    rng: np.random.Generator, gains: Mapping[str, float], budget: float, sd: float = SD
) -> tuple[Advice, Decision, float]:
    """The advice that simulated rounds come to, the last decision, and the seconds used."""
    levels = problem(rng, gains)
    methods, rounds, used, spent = tuple(gains), list[Round](), 0.0, 0.0
    while True:
        rounds.append(one_round(rng, levels, methods, sd))
        used += rounds[-1].again
        decision, found = decide(question(budget, tuple(gains)), rounds, methods, used, spent)
        methods, spent = decision.methods, decision.spent
        if decision.stop:
            assert found is not None and spent <= 0.05
            return found, decision, used


def in_a_grid(rng: np.random.Generator, gains: Mapping[str, float]) -> str:
    """What a grid of 3 seeds, and 10 of random, finds best at one budget: random where nothing is better."""
    levels = problem(rng, gains)
    values = {name: runs(rng, levels[name], SD, 10 if name == "random" else 3) for name in ("random", *gains)}
    found = {name: d for name, d in differences(values, "random").items() if d is not None}
    adjusted = dict(zip(found, holm([d.p for d in found.values()]), strict=True))
    better = [name for name, d in found.items() if adjusted[name] <= 0.05 and d.estimate > 0]
    return max(better, key=lambda name: found[name].estimate, default="random")


@pytest.mark.slow
@pytest.mark.parametrize("sd", [0.05, 0.15])
@pytest.mark.parametrize("rounds", [3, 7])
def test_nothing_is_claimed_where_nothing_is(sd: float, rounds: int) -> None:
    """Where every method is a random draw, at most 5% of 200 problems end in one of them."""
    rng = np.random.default_rng(3)
    gains = dict.fromkeys(METHODS, 0.0)
    picks = [advised(rng, gains, rounds * ROUND, sd)[0].picks[0].method for _ in range(200)]
    assert sum(pick != "random" for pick in picks) <= 10


@pytest.mark.slow
def test_trials_end_early_where_nothing_is_better() -> None:
    """With time for 16 rounds, in less than two thirds of it: nothing is likely to be found."""
    rng = np.random.default_rng(3)
    found = [advised(rng, dict.fromkeys(METHODS, 0.0), 16 * ROUND) for _ in range(50)]
    assert np.mean([seconds for *_, seconds in found]) <= 16 * ROUND * 2 / 3
    assert sum("likely" in decision.stop for _, decision, _ in found) >= 45


@pytest.mark.parametrize(("p", "sign", "share"), [(0.3, 1, 0.4), (0.6, -1, 0.3), (0.05, 1, 0.7), (0.5, 1, 0.5)])
def test_predictive_power_is_the_chance_of_being_found(p: float, sign: int, share: float) -> None:
    """Of all drifts, by a flat prior, those that pass by what was seen: how often the last look finds a method.

    What has been seen grows as a Brownian motion with a drift, whose value at time 1 is z of the last look.
    """
    rng = np.random.default_rng(0)
    seen = sign * norm.isf(p / 2) * np.sqrt(share)  # of the motion at the share
    drift = rng.normal(seen / share, np.sqrt(1 / share), 400_000)
    last = seen + drift * (1 - share) + rng.normal(0, np.sqrt(1 - share), len(drift))
    difference = Difference(sign * 0.1, 0.0, 0.0, p, 0.0)
    line = Line("m0", "0.1", 50, 0.5, difference, 1.0, False, None, False, None, True)
    power = predictive_power(line, 1, share, 0.02, question(1.0))
    assert power == pytest.approx(np.mean(last > norm.isf(0.03 / 8 / 2)), abs=0.003)
    assert predictive_power(line, -1, share, 0.02, question(1.0)) == pytest.approx(
        np.mean(last < norm.ppf(0.03 / 8 / 2)), abs=0.003
    )


@pytest.mark.slow
@pytest.mark.parametrize(("rounds", "least", "most"), [(3, 25, 0.7), (7, 85, 1.1)])
def test_what_is_better_is_found(rounds: int, least: int, most: float) -> None:
    """One of eight that gains 0.08 in accuracy is found, and no other, at a share of the time of a grid.

    A grid of 3 seeds, and 10 of random, finds it in about half of the problems.
    """
    rng = np.random.default_rng(4)
    gains = {**dict.fromkeys(METHODS, 0.0), "m3": 0.3}
    found = [advised(rng, gains, rounds * ROUND) for _ in range(100)]
    picks = [advice.picks[0].method for advice, _, _ in found]
    grid = 2 * (SHARED + 3 * ALL + 3 * TRIAL * len(METHODS) + 10 * TRIAL)  # of twice the rows, at one budget
    assert picks.count("m3") >= least and picks.count("m3") + picks.count("random") >= 98
    assert np.mean([seconds for _, _, seconds in found]) <= most * grid
    by_grid = [in_a_grid(rng, gains) for _ in range(100)]
    assert 30 <= by_grid.count("m3") <= 65


def test_what_is_decided() -> None:
    """No look after one round; then the better half goes on, and what is spent is 5% · t²."""
    rng = np.random.default_rng(0)
    gains = dict(zip(METHODS, np.linspace(-2, 0.1, 8), strict=True))
    levels = problem(rng, gains)
    rounds = [one_round(rng, levels, METHODS, 0.01)]
    asked = question(10 * rounds[0].again)
    first, none = decide(asked, rounds, METHODS, rounds[0].again, 0.0)
    assert (first, none) == (Decision(METHODS, 0.0, 0.0, ""), None)
    rounds.append(one_round(rng, levels, METHODS, 0.01))
    second, found = decide(asked, rounds, METHODS, 2 * rounds[0].again, 0.0)
    assert second.methods == METHODS[4:] and set(second.dropped) == set(METHODS[:4]) and not second.stop
    assert second.level == second.spent == pytest.approx(0.05 * 0.2**2)
    rounds.append(one_round(rng, levels, second.methods, 0.01))
    third, found = decide(asked, rounds, second.methods, 3 * rounds[0].again, second.spent)
    assert third.methods == METHODS[6:]
    assert third.spent == pytest.approx(0.05 * 0.3**2) and third.level == pytest.approx(third.spent - second.spent)
    assert found is not None
    line = next(line for line in found.lines if line.method == "m7")
    assert line.over_random is not None
    by_round = [np.mean(entry.values["m7"] - entry.values["random"]) for entry in rounds]
    assert line.over_random.estimate == pytest.approx(np.mean(by_round))
    others = [d.over_random.p if d.over_random else 1.0 for d in found.lines if d.method in second.methods]
    assert [d.p for d in found.lines if d.method in second.methods] == pytest.approx(holm([*others, *[1.0] * 4])[:4])


def test_when_trials_stop() -> None:
    """When the clock says so, with all that is left to spend; when a method is better; when none can be."""
    rng = np.random.default_rng(1)
    levels = problem(rng, {**dict.fromkeys(METHODS, 0.0), "m3": 2.0})
    rounds = [one_round(rng, levels, METHODS, 0.01)]
    alone, found = decide(question(rounds[0].again), rounds, METHODS, rounds[0].again, 0.0)
    assert alone.stop == "no time for another round" and found is not None
    assert found.picks[0].method == "random" and found.picks[0].to_full is None  # one round has no spread
    rounds += [one_round(rng, levels, METHODS, 0.01) for _ in range(2)]
    better, found = decide(question(10 * rounds[0].again), rounds, METHODS, 3 * rounds[0].again, 0.0)
    assert better.stop == "a method is better than random" and found is not None
    assert found.picks[0].method == "m3"
    nothing = [one_round(rng, problem(rng, dict.fromkeys(METHODS, 0.0)), METHODS, 0.01) for _ in range(3)]
    useless, _ = decide(question(1e6, margin=0.2), nothing, METHODS, 300.0, 0.0)
    assert useless.stop == "no method can be better than random by 0.2"
    last, _ = decide(question(310.0, margin=0.001), nothing, METHODS, 300.0, 0.02)
    assert (last.stop, last.spent) == ("no time for another round", 0.05) and last.level == pytest.approx(0.03)
