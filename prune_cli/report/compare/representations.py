"""Representations beside each other: CKA, common neighbours, and whether neighbours have a row's label."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli import tasks
from prune_cli.artifacts import tensors
from prune_cli.data.open import Reading, open_rows
from prune_cli.errors import PruneError
from prune_cli.numeric import neighbours
from prune_cli.numeric.blocks import Array
from prune_cli.numeric.cka import WIDE, linear_cka
from prune_cli.numeric.vectors import vectors
from prune_cli.numeric.views import Centred, Drawn
from prune_cli.report.compare.inputs import Inputs, Item
from prune_cli.represent import kinds
from prune_cli.represent.observe import scale_of

WORK = 2**36  # multiplications of features that CKA of two representations may take before rows are drawn for it


@dataclass(frozen=True)
class Drawing:
    """How neighbours are looked for: how many, among how many rows, drawn with which seed."""

    k: int = 10
    sample: int = 2000
    seed: int = 0


def compared(inputs: Inputs, drawing: Drawing) -> dict[str, Any]:
    """CKA and neighbours in common for each two representations; purity of labels of each one.

    Neighbours are by cosine about the mean, so of the very products that CKA compares.
    """
    features = {name: array for item in inputs.represented for name, array in features_of(item, inputs).items()}
    n = inputs.n
    if not features:
        return {}
    m = min(n, drawing.sample)
    if not 1 <= drawing.k < m or m < 4:
        raise PruneError(f"k: {drawing.k}; allowed: from 1 to {m - 1:,}, of {m:,} rows, which must be 4 or more")
    drawn = np.sort(np.random.default_rng(drawing.seed).choice(n, m, replace=False))
    some = {name: Drawn(array, drawn) for name, array in features.items()}
    near = {name: neighbours.nearest(Centred(array), drawing.k) for name, array in some.items()}
    label = _label(inputs.represented[0])[drawn]
    return {
        "k": drawing.k,
        "rows": m,
        "seed": drawing.seed,
        "chance_in_common": drawing.k / (m - 1),
        "each": [{"name": name, **_purity(found, label)} for name, found in near.items()],
        **_pairs(features, some, near),
    }


def _pairs(
    whole: Mapping[str, Array], some: Mapping[str, Array], near: Mapping[str, NDArray[np.int64]]
) -> dict[str, Any]:
    """CKA of all rows, or of those drawn where features are too many; neighbours in common, of those drawn."""
    arrays = whole if all(map(_affordable, whole.values())) else some
    cka = linear_cka(list(arrays.values())) if len(arrays) > 1 else np.ones((1, 1))
    return {
        "cka_rows": len(next(iter(arrays.values()))),
        "pairs": [
            {
                "a": a,
                "b": b,
                "cka": None if math.isnan(cka[i, j]) else float(cka[i, j]),
                "in_common": neighbours.in_common(near[a], near[b]),
            }
            for (i, a), (j, b) in combinations(enumerate(arrays), 2)
        ],
    }


def _affordable(array: Array) -> bool:
    """Whether CKA with another of its width is computed over all rows."""
    return array.shape[1] <= WIDE and len(array) * array.shape[1] ** 2 <= WORK


def _purity(near: NDArray[np.int64], label: NDArray[np.int64]) -> dict[str, Any]:
    found = neighbours.purity(near, label)
    return {"purity": found[0], "chance_purity": found[1]} if found else {}


def features_of(item: Item, inputs: Inputs) -> dict[str, Array]:
    """Name -> features [n, d] of each kind of a represent artifact, checkpoints side by side, read block by block."""
    found: dict[str, Array] = {}
    held = [kind for other in inputs.represented for kind in other.artifact.about["kinds"]]
    for kind in item.artifact.about["kinds"]:
        file = f"{kind}.safetensors"
        stored = item.artifact.read(file, tensors.load)
        name = kinds.load(kind).features
        if name not in stored:
            raise PruneError(
                f"{item.artifact.path}: {kind} has no {name}; an older version made it",
                hint="represent the rows again",
            )
        rates = np.ones(len(item.artifact.read(file, tensors.metadata)["checkpoints"]))
        array = vectors(stored[name].reshape(inputs.n, -1), rates, stored.get(scale_of(name)))
        called = kind if held.count(kind) == 1 else f"{item.name}:{kind}"
        found[called] = array if item.order is None else Drawn(array, item.order)
    return found


def _label(item: Item) -> NDArray[Any]:
    """Index of each row's label [n], -1 where it has none."""
    rows = open_rows(str(Path(item.artifact.path)), Reading(), None)
    task = tasks.load(item.artifact.options["task"])
    labels = task.label_list(rows)
    return item.arranged(task.label_indices(rows, labels) if labels else np.full(len(rows), -1))
