"""GIST: how well an example's gradient agrees with the target's in the subspace that the target's gradients span.

s_i = max_g Σ_e w_e cos( V_eᵀ ∇ℓ_ie, V_eᵀ (1/|g|) Σ_{v∈g} ∇ℓ_ve ), V_e the first right singular vectors of the target
rows' gradients [m, k] at a checkpoint, w_e its share of the learning rates, g a group (task) of target rows. Without
groups the target set is one.

Source: GIST, Min et al. 2026, arXiv 2602.18584 (gradient isometric subspace transformation; its code at e0aa793).
Higher: training on the example helps some task of the target set more; from −1 to 1.
Differs: the paper takes the gradients of LoRA's weights as they are; here they are projected at random before. Its rank
differs by task (9 to 150 in the code); here it is an option, and at most the number of target rows.

The selection `gist` is another method of that name.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.agreement import group_means
from prune_cli.numeric.cosine import unit
from prune_cli.numeric.steps import main_directions, step_blocks
from prune_cli.numeric.vectors import checkpoint_weights


def score(
    trajectory: NDArray[Any],
    target_trajectory: NDArray[Any],
    learning_rate: NDArray[np.float64],
    target_group: NDArray[np.int64] | None = None,
    scale: NDArray[Any] | None = None,
    target_scale: NDArray[Any] | None = None,
    *,
    rank: Annotated[int, "Most dimensions of the subspace."] = 50,
) -> NDArray[np.float64]:
    """Score rows by trajectory [n, e, d] against target_trajectory [m, e, d]: float64 [n].

    learning_rate [e]; target_group [m] where the target rows have groups. scale [n, e] and target_scale [m, e]: what
    the vectors are to be multiplied by.
    """
    means = group_means(target_trajectory, target_group, target_scale, normalize=False)  # [g, e, d]
    cosines = np.zeros((len(trajectory), len(means)))
    for c, weight in enumerate(checkpoint_weights(learning_rate)):
        basis = main_directions(target_trajectory, target_scale, c, rank).T  # [d, r]
        tasks = unit(means[:, c] @ basis)
        for rows, block in step_blocks(trajectory, scale, c):
            cosines[rows] += weight * (unit(block @ basis) @ tasks.T)
    return np.asarray(cosines.max(axis=1))
