"""Scores and selections beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.data.open import WHY
from prune_cli.numeric import correlation, overlap
from prune_cli.report.compare.inputs import Inputs, Item
from prune_cli.stages.counts import gone, halved, share

BEYOND = 0.01  # a probability by chance below it is told


def scores(inputs: Inputs) -> dict[str, NDArray[np.float64]]:
    """Name -> the score of each row [n]."""
    return {item.name: _arranged(item, "score.jsonl", "score", np.float64) for item in inputs.scores}


def selections(inputs: Inputs) -> dict[str, NDArray[np.bool_]]:
    """Name -> whether each row was kept [n]."""
    return {item.name: _arranged(item, WHY, "kept", np.bool_) for item in inputs.selections}


def _arranged(item: Item, file: str, column: str, dtype: type) -> NDArray[Any]:
    """A column of an artifact's file, in the order of the rows."""
    return item.arranged(
        item.artifact.read(file, lambda path: np.fromiter((line[column] for line in read_jsonl(path)), dtype))
    )


def correlated(values: Mapping[str, NDArray[np.float64]]) -> list[dict[str, Any]]:
    """For each two scores Spearman's and Pearson's correlation with their 95% intervals; None with a constant one."""
    if len(values) < 2:
        return []
    columns = np.stack(list(values.values()))
    n = columns.shape[1]
    found = {
        "spearman": correlation.correlations(np.stack([correlation.ranks(column) for column in columns])),
        "pearson": correlation.correlations(columns),
    }
    pairs = []
    for (i, a), (j, b) in combinations(enumerate(values), 2):
        pair: dict[str, Any] = {"a": a, "b": b}
        for which, matrix in found.items():
            r = float(matrix[i, j])
            pair[which] = None if math.isnan(r) else r
            interval = correlation.interval(r, n, of_ranks=which == "spearman")
            pair[f"{which}_interval"] = interval and list(interval)
        pairs.append(pair)
    return pairs


def overlaps(kept: Mapping[str, NDArray[np.bool_]]) -> list[dict[str, Any]]:
    """For each two selections what they have in common, and what two random draws of their sizes would have."""
    drawn: dict[tuple[int, int], overlap.Chance] = {}
    pairs = []
    for (a, ours), (b, theirs) in combinations(kept.items(), 2):
        sizes = int(ours.sum()), int(theirs.sum())
        if sizes not in drawn:
            drawn[sizes] = overlap.chance(len(ours), *sizes)
        chance, common = drawn[sizes], int((ours & theirs).sum())
        pairs.append(
            {
                "a": a,
                "b": b,
                "rows": list(sizes),
                "common": common,
                "overlap": overlap.overlap(common, *sizes),
                "chance_overlap": chance.overlap,
                "jaccard": overlap.jaccard(common, *sizes),
                "chance_jaccard": chance.jaccard,
                "p_at_least": chance.at_least(common),
                "p_at_most": chance.at_most(common),
            }
        )
    return pairs


def beyond(pair: Mapping[str, Any]) -> str:
    """Whether two selections have more (+) or less (-) in common than chance would give them, else empty."""
    return "+" if pair["p_at_least"] < BEYOND else "-" if pair["p_at_most"] < BEYOND else ""


def quantiles(
    kept: Mapping[str, NDArray[np.bool_]], values: Mapping[str, NDArray[np.float64]]
) -> dict[str, dict[str, float]]:
    """Selection -> score -> mean rank quantile of its rows under that score; 0.5 is the mean of all rows."""
    ranked = {name: correlation.quantiles(score) for name, score in values.items()}
    return {name: {score: float(q[rows].mean()) for score, q in ranked.items()} for name, rows in kept.items()}


def shares(inputs: Inputs, what: str) -> dict[str, Any]:
    """Shares of labels or of groups: of all rows, and of each selection with those that it lost.

    Empty where no row has one. A selection without counts is None: an older version made it, or they were too many.
    """
    counted = {item.name: _counts(item, what) for item in inputs.selections}
    parts = next((parts for parts in counted.values() if parts), [])
    if not parts and None not in counted.values():
        return {}
    return {
        "all": {str(part["name"]): share(part, parts, "rows") for part in parts},
        "selections": {name: None if own is None else _shares(own) for name, own in counted.items()},
    }


def _counts(item: Item, what: str) -> list[dict[str, Any]] | None:
    """The counts of labels or groups that a selection has; empty where its rows have none."""
    counts: dict[str, list[dict[str, Any]] | None] | None = item.artifact.about.get("counts")
    return counts.get(what, []) if counts is not None else None


def _shares(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "shares": {str(part["name"]): share(part, parts, "kept") for part in parts},
        "gone": [str(part["name"]) for part in gone(parts)],
        "halved": [str(part["name"]) for part in halved(parts)],
    }
