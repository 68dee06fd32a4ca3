"""LESS: how well an example's gradient agrees with those of a target set, checkpoint by checkpoint.

s_i = max_g Σ_e η_e ⟨x̂_ie, (1/|g|) Σ_{v∈g} x̂_ve⟩, x̂ = x / ‖x‖ at each checkpoint, v the target rows of a
group g, η the learning rate at a checkpoint. Without groups the target set is one. A row of zeros stays zero.

Source: LESS, Xia et al. 2024, arXiv 2402.04333, sections 3 and 4 (cosine influence; maximum over subtasks).
Higher: training on the example helps the target set more; below 0 it hurts.

It runs on any representation; LESS itself is the one on gradients, and without projection on the kind
influence, which holds mean cosines with each group's target gradients (or inner products, as of TracIn). The
paper divides by the length of a group's mean gradient; here, as in its authors' code, each target row has length
one before the mean. Their code scales η to sum to one, which changes no ranking; here it is used as it is. The
paper preconditions the gradients of training examples by Adam's moments, as `represent --precondition adam` does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import row_blocks
from prune_cli.numeric.cosine import unit


def score(
    trajectory: NDArray[Any],
    target_trajectory: NDArray[Any],
    learning_rate: NDArray[np.float64],
    target_group: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Score rows by trajectory [n, e, d] against target_trajectory [m, e, d]: float64 [n].

    learning_rate [e]; target_group [m] where the target rows have groups.
    """
    means = _group_means(target_trajectory, target_group) * learning_rate[:, None]
    flat = means.reshape(len(means), -1)  # [g, e × d]
    scores = np.empty(len(trajectory), np.float64)
    for rows, block in row_blocks(trajectory):
        scores[rows] = (unit(block).reshape(len(block), -1) @ flat.T).max(axis=1)
    return scores


def score_influence(influence: NDArray[Any], learning_rate: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score rows by influence [n, e, g] on the groups of a target set: float64 [n]. learning_rate [e]."""
    scores = np.empty(len(influence), np.float64)
    for rows, block in row_blocks(influence):
        scores[rows] = np.tensordot(block, learning_rate, axes=(1, 0)).max(axis=1)
    return scores


FORMS = {"influence": score_influence}


def _group_means(target: NDArray[Any], group: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """Mean of each group's unit rows [g, e, d]."""
    if group is None:
        group = np.zeros(len(target), np.int64)
    names, sizes = np.unique(group, return_counts=True)
    sums = np.zeros((len(names), *target.shape[1:]), np.float64)
    for rows, block in row_blocks(target):
        member = (names[:, None] == group[rows]).astype(np.float64)  # [g, b]
        sums += np.tensordot(member, unit(block), axes=1)
    return sums / sizes[:, None, None]
