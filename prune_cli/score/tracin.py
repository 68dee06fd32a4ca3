"""TracIn: how much training on an example lowers the loss of the target rows, checkpoint by checkpoint.

s_i = Σ_e η_e ⟨∇ℓ_ie, (1/m) Σ_v ∇ℓ_ve⟩, v the m target rows, η the learning rate at a checkpoint.

Source: TracIn, Pruthi et al. 2020, arXiv 2002.08484, section 3 (TracInCP), the mean over the rows that it is asked for.
Higher: training on the example lowers the target's loss more; below 0 it raises it.

LESS compares directions and takes the best group of target rows; this compares lengths too, over all target rows. On
gradients the inner products are those after projection; `represent --kind influence --similarity dot` has them exactly,
and the groups of its target set count alike here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.agreement import best_agreement, group_means
from prune_cli.numeric.blocks import row_blocks


def score(
    trajectory: NDArray[Any],
    target_trajectory: NDArray[Any],
    learning_rate: NDArray[np.float64],
    scale: NDArray[Any] | None = None,
    target_scale: NDArray[Any] | None = None,
) -> NDArray[np.float64]:
    """Score rows by trajectory [n, e, d] against target_trajectory [m, e, d]: float64 [n].

    learning_rate [e]. scale [n, e] and target_scale [m, e]: what the vectors are to be multiplied by.
    """
    mean = group_means(target_trajectory, None, target_scale, normalize=False)
    return best_agreement(trajectory, mean * learning_rate[:, None], scale, normalize=False)


def score_influence(influence: NDArray[Any], learning_rate: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score rows by influence [n, e, g] on the groups of a target set: float64 [n]. learning_rate [e]."""
    scores = np.empty(len(influence), np.float64)
    for rows, block in row_blocks(influence):
        scores[rows] = block.mean(axis=2) @ learning_rate
    return scores


FORMS = {"influence": score_influence}
