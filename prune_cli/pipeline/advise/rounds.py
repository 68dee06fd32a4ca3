"""Trials in rounds: which methods go on after each, when to stop, and what is shown by then.

Every round has a sub-pool and seeds of its own, so that what happens in one is independent of the others; within a
round all methods are tried on the same rows. Of a method the differences to random, one a round, are what is judged:
their spread is that of the sub-pool, of what is drawn and of training together.

Looking after each round would find by chance what is not there. Of the 5% that may go wrong, 5% · t² is spent by the
look at a share t of the time, and what is left at the last one, which the clock decides (spending as Lan and DeMets
1983, Biometrika 70:659). A look tests at what it spends by itself, so the sum bounds the error whatever the looks
have in common; Holm's correction is over all methods of the first round, those that were dropped since too.

Trials also stop when no method is likely to be found better by the last look: when the predictive power of each, its
chance of that by what was seen and a flat prior, is below FUTILE (Spiegelhalter et al. 1986, Controlled Clinical Trials
7:8). To stop so claims nothing, so it spends nothing of the 5%.

What is better on sub-pools need not be on all rows. Where time is left the methods found so are tried again on those,
in rounds that are judged by themselves: with a 5% of their own, of which shares of the time left are spent, and still
corrected for all methods of the first round, since the test rows by which they were chosen are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.inference import Difference, differences
from prune_cli.pipeline.advise.choice import FULL, NONE, Advice, Key, Line, Measured, advise
from prune_cli.pipeline.evidence import BASELINE, LEVEL

DRAWS = 3  # of random, a round
FEWEST = 2  # rounds before a look
LEAST = 2  # methods that are not dropped
FUTILE = 0.05  # chance of being found better, below which a method is not worth another round

Runs = NDArray[np.float64]  # [n]: a value of each test row, the mean over the seeds of a round


@dataclass(frozen=True)
class Round:
    """What one round measured: a method's values of the test rows and its metric.

    The model as it is stands in the first round alone. again: seconds that another round takes.
    """

    values: Mapping[str, Runs]
    metrics: Mapping[str, float]
    again: float


@dataclass(frozen=True)
class Question:
    """What is to be found out. methods: all of the first round. kept: rows of a selection, of pool rows."""

    test: str
    metric: str
    keep: str
    kept: int
    pool: int
    methods: tuple[str, ...]
    margin: float | None
    budget: float


@dataclass(frozen=True)
class Decision:
    """What follows from the rounds so far. spent: of the 5%, with this look. stop: why, else empty. better: methods."""

    methods: tuple[str, ...]
    spent: float
    level: float
    stop: str
    dropped: Mapping[str, str] = field(default_factory=dict)
    better: tuple[str, ...] = ()


def decide(
    question: Question, rounds: Sequence[Round], methods: Sequence[str], used: float, spent: float
) -> tuple[Decision, Advice | None]:
    """What follows from the rounds so far, and the advice that they come to; None where they are too few to look.

    methods: those of the last round. used: seconds. spent: of the 5% by earlier looks.
    """
    out_of_time = used + rounds[-1].again > question.budget
    if len(rounds) < FEWEST and not out_of_time:
        return Decision(tuple(methods), spent, 0.0, ""), None
    by_now = LEVEL if out_of_time else LEVEL * min(used / question.budget, 1.0) ** 2
    level = max(by_now - spent, 0.0)
    found = advise(measured(question, rounds, methods, level), question.margin)
    own = [line for line in found.lines if line.method in methods and line.method in rounds[-1].values]
    sign, margin = (-1 if found.lower else 1), found.margin or 0.0

    def chance(line: Line) -> float:
        """How much better than random a method may be, by its interval."""
        return np.inf if line.over_random is None else max(sign * line.over_random.low, sign * line.over_random.high)

    stop, dropped = "", {}
    better = tuple(line.method for line in own if line.better)
    if better:
        stop = "a method is better than random"
    elif all(chance(line) < margin for line in own):
        stop = f"no method can be better than random by {margin:.2g}"
    elif out_of_time:
        stop = "no time for another round"
    elif all(predictive_power(line, sign, used / question.budget, by_now, question) < FUTILE for line in own):
        stop = "no method is likely to be found better than random in the time left"
    else:
        ranked = sorted(own, key=lambda line: -sign * line.mean)
        going = ranked[: max(LEAST, (len(ranked) + 1) // 2)]
        dropped = {line.method: f"{line.mean:.3f}, not in the better half" for line in ranked[len(going) :]}
        gone = [method for method in methods if method not in {line.method for line in own}]
        dropped |= dict.fromkeys(gone, "its runs diverged")
        methods = [method for method in methods if method not in dropped]
    return Decision(tuple(methods), max(spent, by_now), level, stop, dropped, better), found


def predictive_power(line: Line, sign: int, share: float, spent: float, question: Question) -> float:
    """The chance that the last look finds a method better than random, by what a share of the time has shown.

    Where z is seen, that of the last look is normal about z / sqrt(share) with variance (1 - share) / share. It has
    to pass the level that is left then, of the first of all comparisons (Holm). 1 where nothing is known yet.
    """
    from scipy.stats import norm

    if line.over_random is None:
        return 1.0
    z = np.sign(sign * line.over_random.estimate) * norm.isf(line.over_random.p / 2)
    needed = norm.isf((LEVEL - spent) / len(question.methods) / 2)
    return float(norm.cdf((z / np.sqrt(share) - needed) / np.sqrt((1 - share) / share)))


def measured(question: Question, rounds: Sequence[Round], methods: Sequence[str], level: float) -> Measured:
    """What the rounds come to: each method's mean, and its differences round by round."""
    keys: dict[str, Key] = {BASELINE: (BASELINE, question.keep), FULL: (FULL, "100%"), NONE: (NONE, "0%")}
    keys |= {method: (method, question.keep) for method in question.methods}
    untrained = {NONE: rounds[0].values[NONE]} if NONE in rounds[0].values else {}
    values_of = [{**untrained, **entry.values} for entry in rounds]
    tried = {name for values in values_of for name in values}
    kept = {FULL: question.pool, NONE: 0}

    def against(line: Key, by: float) -> Mapping[Key, Difference | None]:
        zero = np.zeros((1, len(rounds[0].values[BASELINE])))
        apart: dict[Key | None, NDArray[np.float64]] = {None: zero}
        for name in tried - {line[0]}:
            both = [values for values in values_of if name in values and line[0] in values]
            if both:
                apart[keys[name]] = np.stack([values[name] - values[line[0]] - by for values in both])
        found = differences(apart, None, fixed=[None], compared=len(question.methods))
        return {key: difference for key, difference in found.items() if key is not None}

    shown = [name for name in (FULL, NONE, BASELINE, *methods) if name in tried]
    means = {keys[n]: float(np.mean([entry.metrics[n] for entry in rounds if n in entry.metrics])) for n in shown}
    sizes = {keys[name]: kept.get(name, question.kept) for name in shown}
    return Measured(question.test, question.metric, means, sizes, against, len(question.methods), level)
