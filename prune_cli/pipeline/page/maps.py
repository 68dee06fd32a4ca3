"""Where rows stand: on the data map, along each score, and in the plane of a representation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.artifacts import tensors
from prune_cli.errors import PruneError
from prune_cli.numeric.blocks import Array
from prune_cli.numeric.plane import plane
from prune_cli.numeric.views import Drawn
from prune_cli.pipeline.page.examples import smallest
from prune_cli.pipeline.page.training import Given
from prune_cli.report.compare import representations, scores
from prune_cli.report.compare.inputs import Inputs, Item

POINTS = 2000  # rows that are drawn in a figure
KEPT = 400  # kept rows of a method that are drawn
BINS = 30
LABELS = 6  # that are told apart, the largest
LONG = 100  # a score that is positive, and reaches so many times its median, is drawn on a logarithmic scale
PREFERRED = "hidden"  # kind of representation for the plane


def drawn(n: int, seed: int) -> NDArray[np.int64]:
    """The rows that figures show of n, in their order: all, or POINTS at random."""
    return np.sort(np.random.default_rng(seed).choice(n, min(n, POINTS), replace=False))


def groups(given: Given | None, n: int) -> tuple[list[str], NDArray[np.int64]]:
    """Names for the labels that are told apart, and which of these each of n rows has: the last is for the others."""
    if given is None or not given.labels:
        return ["all rows"], np.zeros(n, np.int64)
    sizes = np.bincount(given.label[given.label >= 0], minlength=len(given.labels))
    large = np.argsort(-sizes, kind="stable")[:LABELS]
    place = np.full(len(sizes) + 1, len(large))  # the last is for rows without a label
    place[large] = np.arange(len(large))
    names = [str(given.labels[j]) for j in large]
    index = place[given.label]
    return ([*names, "other or none"] if (index == len(large)).any() else names), index


def data_map(inputs: Inputs, given: Given | None, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Confidence, variability and correctness of rows, over the checkpoints of the dynamics; {} with fewer than two.

    correct: at how many of the checkpoints the gold answer was the most probable one.
    """
    for item in inputs.represented:
        if "dynamics" not in item.artifact.about["kinds"]:
            continue
        stored = item.artifact.read("dynamics.safetensors", tensors.load)
        if "improbability" not in stored:
            old = f"{item.artifact.path}: dynamics has no improbability; an older version made it"
            raise PruneError(old, hint="run the pipeline again")
        if stored["correct"].shape[1] < 2:
            continue
        at = rows if item.order is None else item.order[rows]
        p = 1 - np.asarray(stored["improbability"][at], np.float64)
        correct = np.asarray(stored["correct"][at], np.float64)
        return {
            "from": item.name,
            "of": inputs.n,
            "checkpoints": p.shape[1],
            "confidence": _short(p.mean(axis=1)),
            "variability": _short(p.std(axis=1)),
            "correct": correct.sum(axis=1).round().astype(int).tolist(),
        }
    return {}


def histograms(score: Mapping[str, NDArray[np.float64]], given: Given | None, n: int) -> list[dict[str, Any]]:
    """For each score how many rows of each label are in each of its bins."""
    names, index = groups(given, n)
    found = []
    for name, values in score.items():
        low, high = float(values.min()), float(values.max())
        logarithmic = low > 0 and high > LONG * float(np.median(values))
        edges = (np.geomspace if logarithmic else np.linspace)(low, high if high > low else low + 1, BINS + 1)
        edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)  # rounding must lose no row
        counts = {name: np.histogram(values[index == j], edges)[0].tolist() for j, name in enumerate(names)}
        found.append({"score": name, "logarithmic": logarithmic, "edges": edges.tolist(), "counts": counts})
    return found


def planes(inputs: Inputs, given: Given | None, rows: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """Where rows are in the plane of a representation, and those that each method keeps; {} without representations.

    The plane is that of the rows drawn; of each method's kept rows at most KEPT are placed in it.
    """
    found: dict[str, tuple[Item, Array]] = {}
    for item in inputs.represented:
        found |= {kind: (item, array) for kind, array in representations.features_of(item, inputs).items()}
    if not found or inputs.n < 3:
        return {}
    kind = min(found, key=lambda name: (name.rpartition(":")[2] != PREFERRED, name))
    array = found[kind][1]
    flat = plane(Drawn(array, rows))
    names, index = groups(given, inputs.n)
    rng = np.random.default_rng(seed)
    chosen, kept = smallest(inputs), scores.selections(inputs)
    placed = {}
    for method, item in chosen.items():
        own = np.flatnonzero(kept[item.name])
        some = np.sort(rng.choice(own, min(len(own), KEPT), replace=False))
        placed[method] = {"selection": item.name, "kept": len(own), "places": _places(flat.place(array[some]))}
    return {
        "kind": kind,
        "others": sorted(set(found) - {kind}),
        "of": inputs.n,
        "shares": list(flat.shares),
        "labels": names,
        "label": index[rows].tolist(),
        "places": _places(flat.place(array[rows])),
        "methods": placed,
    }


def _short(values: NDArray[np.float64]) -> list[float]:
    """Numbers to the five digits that a figure can show."""
    return [float(f"{value:.5g}") for value in values.tolist()]


def _places(places: NDArray[np.float64]) -> list[list[float]]:
    return [_short(place) for place in places]
