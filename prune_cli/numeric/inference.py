"""Differences between training runs with their intervals: a few seeds each, all measured on the same test rows.

A measured mean has two sources of chance: the seeds of training, and the test rows. Let a method have s runs and the
baseline r, each with a value for every one of n test rows. The difference of their means has the variance

    v = σ²(method)/s + σ²(baseline)/r + τ²/n,

σ² the variance over runs of a run's mean, τ² the variance over rows of the difference of the means over runs (the rows
are paired). Three runs say little about σ², so that of all methods is moderated: shrunk to a common value as far as the
methods agree on it (Smyth 2004, Statistical Applications in Genetics and Molecular Biology 3(1), article 3, section
6.2). The three parts are put together with their own quantiles of Student's t, half-width² = Σ t²·part (Zou and Donner
2008, Statistics in Medicine 27:1693). Part of the variance, that of runs on single rows, is counted in σ² and in τ²:
intervals are a little wide rather than narrow.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)
LEVEL, POWER = 0.95, 0.8
# Below this share of the median a variance over runs counts as that much: a model that always says the same has none.
_LEAST = 1e-3
_LEAST_SPREAD = 1e-8  # of logarithms of variances, beyond what chance gives them


@dataclass(frozen=True)
class Difference:
    """A method's mean less the baseline's, with its 95% interval.

    p: two-sided, of no difference. detectable: the difference that the runs would have shown with probability 0.8, at
    the level that the first of all comparisons has to meet (Holm).
    """

    estimate: float
    low: float
    high: float
    p: float
    detectable: float


def differences(
    values: Mapping[Key, Values], baseline: Key, *, fixed: Collection[Key] = (), compared: int = 1
) -> dict[Key, Difference | None]:
    """The difference of each method to the baseline; None where runs are too few to know how they vary.

    values: method -> [s, n], a value for each run and test row, rows in the same order for all. fixed: methods that
    have one run because no chance is in it. compared: how many comparisons are made together.
    """
    variances = moderated({key: array.mean(axis=1) for key, array in values.items() if key not in fixed})
    found: dict[Key, Difference | None] = {}
    base = values[baseline]
    for key, array in values.items():
        if key == baseline:
            continue
        by_row = array.mean(axis=0) - base.mean(axis=0)
        n = len(by_row)
        parts = [
            (variances[other][0] / len(values[other]), variances[other][1])
            for other in (key, baseline)
            if other not in fixed
        ]
        parts.append((float(by_row.var(ddof=1)) / n if n > 1 else 0.0, float(n - 1)))
        if any(dof < 1 for _, dof in parts):
            found[key] = None
            continue
        found[key] = _difference(float(by_row.mean()), parts, compared)
    return found


def moderated(means: Mapping[Key, Values]) -> dict[Key, tuple[float, float]]:
    """Variance over the runs of each method, and its degrees of freedom; means: method -> [s], the mean of each run.

    Degrees of freedom are 0 where no method has two runs.
    """
    dof = np.array([len(runs) - 1 for runs in means.values()], np.float64)
    own = np.array([runs.var(ddof=1) if len(runs) > 1 else 0.0 for runs in means.values()])
    total = float(dof.sum())
    if total == 0:
        return dict.fromkeys(means, (0.0, 0.0))
    prior_dof, prior = _prior(own[dof > 0], dof[dof > 0])
    if np.isinf(prior_dof):
        return dict.fromkeys(means, (prior, total))
    shrunk = (prior_dof * prior + dof * own) / (prior_dof + dof)
    freedom = np.minimum(prior_dof + dof, total)
    return {key: (float(v), float(d)) for key, v, d in zip(means, shrunk, freedom, strict=True)}


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for being several (Holm 1979, Scandinavian Journal of Statistics 6:65), in the order given."""
    order = np.argsort(p, kind="stable")
    m = len(order)
    raised = np.maximum.accumulate([(m - i) * p[at] for i, at in enumerate(order)])
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(raised, 1.0)
    return [float(value) for value in adjusted]


def _prior(variances: Values, dof: Values) -> tuple[float, float]:
    """Degrees of freedom and value of the variance that methods have in common: Smyth 2004, section 6.2.

    Infinite degrees of freedom where they differ no more than chance makes them.
    """
    from scipy.special import digamma, polygamma

    pooled = float((variances * dof).sum() / dof.sum())
    if len(variances) < 2 or pooled == 0:
        return np.inf, pooled
    floor = _LEAST * float(np.median(variances[variances > 0]))
    logs = np.log(np.maximum(variances, floor)) - digamma(dof / 2) + np.log(dof / 2)
    spread = float(logs.var(ddof=1) - polygamma(1, dof / 2).mean())
    if spread <= _LEAST_SPREAD:
        return np.inf, pooled
    prior_dof = 2 * _inverse_trigamma(spread)
    return prior_dof, float(np.exp(logs.mean() + digamma(prior_dof / 2) - np.log(prior_dof / 2)))


def _inverse_trigamma(value: float) -> float:
    """x with trigamma(x) = value > 0."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    return float(brentq(lambda x: polygamma(1, x) - value, 1e-8, 2 / _LEAST_SPREAD))


def _difference(estimate: float, parts: Sequence[tuple[float, float]], compared: int) -> Difference:
    """The interval of a difference whose variance has these parts, each with its degrees of freedom."""
    from scipy.optimize import brentq
    from scipy.special import stdtrit

    variances, dof = (np.array(column) for column in zip(*parts, strict=True))

    def half(tail: float) -> float:  # half-width of the interval that leaves out this much on either side
        return float(np.sqrt((stdtrit(dof, tail) ** 2 * variances).sum()))

    width = half((1 - LEVEL) / 2)
    first = stdtrit(dof, (1 - LEVEL) / 2 / compared) + stdtrit(dof, 1 - POWER)
    detectable = float(np.sqrt((first**2 * variances).sum()))
    if width == 0:
        p = 1.0 if estimate == 0 else 0.0
    elif half(1e-12) <= abs(estimate):
        p = 2e-12
    else:
        p = 2 * float(brentq(lambda tail: half(tail) - abs(estimate), 1e-12, 0.5))
    return Difference(estimate, estimate - width, estimate + width, p, detectable)
