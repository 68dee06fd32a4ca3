"""The nearest rows of each target row after whitening, layer by layer; or those nearest to the target as a set.

Vectors are the mean over checkpoints, less the mean of rows and target rows, whitened by their covariance (Cholesky),
at length one; d is their distance. The k-th layer holds the k-th nearest row of each target row, the nearest first.

budget=given keeps layer after layer. budget=own puts first the rows that minimise the optimal transport distance to the
target: its rows are split at random into folds, and for each fold layers of its own rows are taken as long as that
brings what is taken nearer to the target rows outside the fold; rows with a cosine of 0 or less are never taken. What
any fold takes is the method's own budget.

Source: TAROT, Feng et al. 2025, arXiv 2412.00420: fixed-size selection, and minimisation of the distance (code at
bbb6ce2).
Differs: a selection has as many rows as asked for: with budget=own the other layers follow, and column `own` says how
many rows the method itself would keep. Where a budget ends within a layer, the code takes the rows of the highest
transport potential, the farthest, here the nearest are taken; where a distance does not fall, the code keeps that layer
as well. The mean over checkpoints is weighted by learning rates; the code has the gradients of the last alone. λ, which
keeps the covariance from being singular, is a share of its mean eigenvalue, in the code 10⁻⁵. Weights of rows in
training are left out.

It runs on any representation. Rows come in the order of layers. A smaller budget is the beginning of a larger one, with
the same seed. The covariance is d × d, or, where rows are fewer than d, as large as their number.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array
from prune_cli.numeric.highest import positions
from prune_cli.numeric.ranked import likeness, ranked
from prune_cli.numeric.transport import transport_distance
from prune_cli.numeric.vectors import Checkpoints, vectors
from prune_cli.numeric.whitened import Whitened, whitening

CANDIDATES = 2**22  # rows noted at a time for all target rows together: 32 MiB
LAYERS = 2000  # at most, in the method's own budget, as in the authors' code


def select(
    features: NDArray[Any],
    target_features: NDArray[Any],
    n_keep: int,
    rng: np.random.Generator,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    target_scale: NDArray[Any] | None = None,
    *,
    budget: Annotated[Literal["given", "own"], "Layers alone, or the rows of the method's own budget first."] = "given",
    folds: Annotated[int, Meta(ge=2), "With budget=own: folds of the target rows, at most their number."] = 10,
    damping: Annotated[float, "λ: what is added to each eigenvalue of Σ, as a share of their mean."] = 0.00001,
    checkpoints: Checkpoints = "mean",
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by features [n, e × d] and target_features [m, e × d]: int64 [n_keep].

    Columns: `layer`, from 1, of each kept row; with budget=own `own`, 1 for the rows of the method's own budget.
    """
    ours = vectors(features, learning_rate, scale, checkpoints=checkpoints)
    theirs = vectors(target_features, learning_rate, target_scale, checkpoints=checkpoints)
    whiten = whitening(ours, theirs, damping)
    rows, targets = Whitened(ours, *whiten), Whitened(theirs, *whiten)[:]
    n, m = len(rows), len(targets)
    layer, order = np.full(n, -1), np.empty(0, np.int64)
    numbers = ranked(rows, targets, min(n, max(n_keep, LAYERS), max(1, CANDIDATES // m)))
    columns = {"layer": layer}
    if budget == "own":
        columns["own"] = _own(rows, targets, numbers, np.array_split(rng.permutation(m), min(folds, m)))
    depth = 0
    while True:
        order = np.concatenate([order, _new(numbers, layer, depth)])
        depth += numbers.shape[1]
        if budget == "own" and depth == numbers.shape[1]:  # the first page has all rows of the own budget
            order = order[np.argsort(-columns["own"][order], kind="stable")]
        if len(order) >= n_keep:
            layer[order[n_keep:]] = -1
            return order[:n_keep], columns
        numbers = ranked(rows, targets, min(n - depth, numbers.shape[1]), numbers[:, -1])


def _new(numbers: NDArray[np.int64], layer: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
    """The rows of some layers [m, k] that are in none before, in order; their layers are noted, from depth + 1 on."""
    near = positions(np.sort(numbers, axis=0)[::-1].T)  # [k, m], the nearest of a layer first
    found, first = np.unique(near, return_index=True)
    fresh = layer[found] == -1
    found, first = found[fresh], first[fresh]
    layer[found] = depth + 1 + first // near.shape[1]
    return found[np.argsort(first, kind="stable")]


def _own(
    rows: Array, targets: NDArray[np.float64], numbers: NDArray[np.int64], folds: list[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """1 for the rows [n] of the method's own budget, else 0; numbers [m, k] of each target row's nearest."""
    own = np.zeros(len(rows), np.int64)
    near, like = positions(numbers), likeness(numbers) > 0
    for fold in folds:
        rest = np.delete(targets, fold, axis=0) if len(folds) > 1 else targets
        taken, cost, best = np.zeros(len(rows), bool), np.empty((0, len(rest))), np.inf
        for k in range(min(LAYERS, numbers.shape[1])):
            new = np.unique(near[fold, k][like[fold, k]])
            new = new[~taken[new]]
            if not len(new):
                break
            inner = rows[new] @ rest.T
            cost = np.concatenate([cost, np.sqrt(np.maximum(2 - 2 * inner, 0))])
            distance = transport_distance(cost)
            if distance >= best:
                break
            best, taken[new] = distance, True
        own[taken] = 1
    return own
