"""Whether a model knows more of a test set than which label is the most frequent: metrics alone can hide it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Baseline:
    """Shares of rows: predicted right, and of the most frequent label.

    only: the one label that is predicted for every row, else None. labels: how many the rows have.
    """

    accuracy: float
    frequent: str
    share: float
    only: str | None
    labels: int


def compared(predictions: Sequence[Mapping[str, Any]]) -> Baseline:
    """The predictions of a test set, {"label", "prediction"}, beside the most frequent label."""
    n = len(predictions)
    gold, said = (Counter(str(row[key]) for row in predictions) for key in ("label", "prediction"))
    right = sum(str(row["label"]) == str(row["prediction"]) for row in predictions)
    ((frequent, most),) = gold.most_common(1)
    return Baseline(right / n, frequent, most / n, next(iter(said)) if len(said) == 1 else None, len(gold))


def warnings(found: Mapping[str, Baseline]) -> list[str]:
    """What to warn of in test sets, by name. Rows of one label alone have nothing to tell apart."""
    several = {name: own for name, own in found.items() if own.labels > 1}
    one = [f"{name} ({own.only}, accuracy {own.accuracy:.3f})" for name, own in several.items() if own.only is not None]
    poor = [
        f"{name} (accuracy {own.accuracy:.3f}, {own.frequent} {own.share:.3f})"
        for name, own in several.items()
        if own.only is None and own.accuracy <= own.share
    ]
    told = {"one label is predicted for every row": one, "no better than always the most frequent label": poor}
    return [f"{what}: {', '.join(sets)}" for what, sets in told.items() if sets]
