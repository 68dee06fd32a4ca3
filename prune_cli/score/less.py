"""LESS: how well an example's gradient agrees with those of a target set, checkpoint by checkpoint.

s_i = max_g Σ_e η_e ⟨x̂_ie, (1/|g|) Σ_{v∈g} x̂_ve⟩, x̂ = x / ‖x‖ at each checkpoint, v the target rows of a
group g, η the learning rate at a checkpoint. Without groups the target set is one. A row of zeros stays zero.
With normalize=false, x itself in place of x̂.

Source: LESS, Xia et al. 2024, arXiv 2402.04333, sections 3 and 4 (cosine influence; maximum over subtasks).
Higher: training on the example helps the target set more; below 0 it hurts.
Differs: the paper divides by the length of a group's mean gradient; here, as in its authors' code, each target row has
length one before the mean. Their code scales η to sum to one, which changes no ranking; here it is used as it is.

It runs on any representation; LESS itself is the one on gradients, and without projection on the kind
influence, which holds mean cosines with each group's target gradients (or inner products, as of TracIn); represented
by row, each target row is a group of its own. The paper preconditions the gradients of training examples by Adam's
moments, as `represent --precondition adam` does.
On training dynamics, one number a checkpoint, Du et al. 2025 (arXiv 2507.03648) take the inner product of an example's
losses with the target's, as they are: normalize=false. A cosine of losses is near one for all.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.agreement import best_agreement, group_means
from prune_cli.numeric.blocks import row_blocks


def score(
    trajectory: NDArray[Any],
    target_trajectory: NDArray[Any],
    learning_rate: NDArray[np.float64],
    target_group: NDArray[np.int64] | None = None,
    scale: NDArray[Any] | None = None,
    target_scale: NDArray[Any] | None = None,
    *,
    normalize: Annotated[bool, "Scale each row to length one at each checkpoint: cosines, not inner products."] = True,
) -> NDArray[np.float64]:
    """Score rows by trajectory [n, e, d] against target_trajectory [m, e, d]: float64 [n].

    learning_rate [e]; target_group [m] where the target rows have groups. scale [n, e] and target_scale [m, e]: what
    the vectors are to be multiplied by.
    """
    means = group_means(target_trajectory, target_group, target_scale, normalize=normalize)
    return best_agreement(trajectory, means * learning_rate[:, None], scale, normalize=normalize)


def score_influence(influence: NDArray[Any], learning_rate: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score rows by influence [n, e, g] on the groups of a target set: float64 [n]. learning_rate [e]."""
    scores = np.empty(len(influence), np.float64)
    for rows, block in row_blocks(influence):
        scores[rows] = np.tensordot(block, learning_rate, axes=(1, 0)).max(axis=1)
    return scores


FORMS = {"influence": score_influence}
