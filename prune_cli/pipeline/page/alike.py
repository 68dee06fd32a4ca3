"""How alike the scores and the selections of a run are, in the order of clusters, and what each does to the labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.report.compare import scores
from prune_cli.report.compare.inputs import Inputs

Pairs = Sequence[Mapping[str, Any]]


def alike(inputs: Inputs, score: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Correlations of scores; for each number of kept rows the overlaps of selections; shares of labels and groups."""
    kept = scores.selections(inputs)
    correlated = scores.correlated(score)
    sizes = {name: int(rows.sum()) for name, rows in kept.items()}
    same = [
        _same_size(size, {name: rows for name, rows in kept.items() if sizes[name] == size})
        for size in sorted(set(sizes.values()))
    ]
    return {
        "correlations": {"order": clustered(list(score), correlated, "spearman"), "pairs": correlated},
        "overlaps": [found for found in same if found["pairs"]],
        "shares": {what: found for what in ("label", "group") if (found := scores.shares(inputs, what))},
    }


def _same_size(size: int, kept: Mapping[str, NDArray[np.bool_]]) -> dict[str, Any]:
    pairs = scores.overlaps(kept)
    marked = [{**pair, "beyond": scores.beyond(pair)} for pair in pairs]
    return {"rows": size, "order": clustered(list(kept), pairs, "overlap"), "pairs": marked}


def short(names: Iterable[str]) -> dict[str, str]:
    """Selections by name -> what they are called beside each other: the method alone where that tells them apart.

    Else with its budget, else the whole name.
    """
    parts = {name: name.split("/") for name in names}
    for ways in (1, 2):
        called = {name: ", ".join(own[:ways]).replace("keep-", "keep ") for name, own in parts.items()}
        if len(set(called.values())) == len(called):
            return called
    return {name: name for name in parts}


def clustered(names: Sequence[str], pairs: Pairs, which: str) -> list[str]:
    """The names in the order of average linkage, so that those that are alike stand together.

    The distance of two is one less what `which` says of the pair; a pair that has no number is as far as unrelated.
    """
    if len(names) < 3:
        return list(names)
    from scipy.cluster.hierarchy import average, leaves_list

    distances = np.array([1.0 - (pair[which] or 0.0) for pair in pairs])  # pairs come as scipy has them: by rows
    return [names[i] for i in leaves_list(average(distances))]
