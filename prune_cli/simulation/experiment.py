"""The experiment: draw points, train on all, select by each method, train on what it kept, and measure.

The selections are the published methods of prune as they are, with two options as in the notebook of Du et al. 2025
(arXiv 2507.03648): k-means looks for as many clusters as a class has, and no vector is scaled to length one.
Differs: there what is hard to learn has a high mean of 1 / p, not of 1 − p; and a cluster with too few points gives
what it has, so that less than the budget is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from prune_cli.methods import balance
from prune_cli.methods.method import Method, parse_options
from prune_cli.methods.published import PublishedMethod
from prune_cli.simulation import logistic
from prune_cli.simulation.arguments import Tensors, arguments, represent
from prune_cli.simulation.points import Points, draw
from prune_cli.simulation.settings import Setting

FULL = "full"


@dataclass(frozen=True)
class Trial:
    """One draw of the points, and what each method made of it."""

    seed: int
    points: dict[str, Points]  # by split
    kept: dict[str, NDArray[np.int64]]  # by method: positions of the training points, best first
    weights: dict[str, NDArray[np.float64]]  # by method, and of full: (w, b) [3]
    accuracy: dict[str, float]  # by method, and of full: on the test points


def stream(seed: int, name: str) -> np.random.Generator:
    """Random numbers for one purpose: methods that shared them would agree more than by chance."""
    return np.random.default_rng([seed, crc32(name.encode())])


def run(
    setting: Setting, methods: Sequence[PublishedMethod], seeds: Sequence[int], advance: Callable[[int], None]
) -> list[Trial]:
    """Run a setting with each seed. advance is called with 1 after each."""
    trials = []
    for seed in seeds:
        points = draw(
            stream(seed, "points"), noise=setting.noise, imbalance=setting.imbalance, clusters=setting.clusters
        )
        trials.append(trial(points, methods, setting, seed))
        advance(1)
    return trials


def trial(points: dict[str, Points], methods: Sequence[PublishedMethod], setting: Setting, seed: int) -> Trial:
    """Train on all training points, select, and train on what each method kept."""
    train, test = points["train"], points["test"]
    path = logistic.train(train.x[None], train.y[None])[0]
    own, target = (represent(points[name], path) for name in ("train", "validation"))
    kept = {method.name: select(method, own, target, setting, seed) for method in methods}
    chosen = np.stack(list(kept.values()))
    again = logistic.train(train.x[chosen], train.y[chosen])[:, -1]
    weights = {FULL: path[-1], **dict(zip(kept, again, strict=True))}
    accuracy = {name: logistic.accuracy(test.x, test.y, found) for name, found in weights.items()}
    return Trial(seed, points, kept, weights, accuracy)


def select(method: PublishedMethod, own: Tensors, target: Tensors, setting: Setting, seed: int) -> NDArray[np.int64]:
    """The positions of the points that a published method keeps, best first."""
    *scores, selection = method.halves
    rng = stream(seed, method.name)
    values: dict[str, Any] = {}
    for score in scores:
        given = arguments(score, method.main, own, target, rng)
        values["score"] = np.asarray(score.call(**given, **_options(score, method.score_options, setting)))
    values |= arguments(selection, method.main, own, target, rng)
    values |= _options(selection, method.select_options, setting)
    return balance.select(selection, values, None, setting.keep, "none", len(own["label"])).positions


def _options(half: Method, as_published: dict[str, Any], setting: Setting) -> dict[str, Any]:
    ours = {"k": setting.clusters, "normalize": False}
    return parse_options(half, as_published | {name: value for name, value in ours.items() if name in half.options})


def results(setting: Setting, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """A line for each seed and method: the setting, and what was kept and measured."""
    lines = []
    for found in trials:
        train = found.points["train"]
        for name, accuracy in found.accuracy.items():
            kept = found.kept.get(name, np.arange(len(train.y)))
            counts = {"flipped": int(train.flipped[kept].sum()), "positive": int((train.y[kept] == 1).sum())}
            rows = {"rows": len(kept), **counts}
            lines.append({**setting.columns, "seed": found.seed, "method": name, **rows, "accuracy": accuracy})
    return lines


def summary(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results over seeds: mean and sample deviation of the accuracy, means of what was kept."""
    by: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in lines:
        by.setdefault(tuple(line[key] for key in (*Setting.__annotations__, "method")), []).append(line)
    found = []
    for group in by.values():
        mean = {key: float(np.mean([line[key] for line in group])) for key in ("flipped", "positive", "accuracy")}
        spread = {"accuracy_sd": deviation([line["accuracy"] for line in group]), "seeds": len(group)}
        found.append({**{key: value for key, value in group[0].items() if key != "seed"}, **mean, **spread})
    return found


def overlaps(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """For each two methods the share of points kept by the one that the other keeps too; chance is the share kept."""
    lines = []
    for one, other in combinations(trials[0].kept, 2):
        shares = [len(np.intersect1d(t.kept[one], t.kept[other])) / len(t.kept[one]) for t in trials]
        chance = len(trials[0].kept[one]) / len(trials[0].points["train"].y)
        facts = {"overlap": float(np.mean(shares)), "overlap_sd": deviation(shares), "chance": chance}
        lines.append({"method": one, "other": other, **facts})
    return lines


def deviation(values: Sequence[float]) -> float:
    """The sample deviation; 0 of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
