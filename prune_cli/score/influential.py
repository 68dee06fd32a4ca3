"""Influence on the training set: how well an example's gradient agrees with the mean of all, checkpoint by checkpoint.

s_i = Σ_e η_e ⟨x_ie, (1/n) Σ_j x_je⟩, η the learning rate at a checkpoint. With normalize=true each row has length one
at each checkpoint.

Source: Du et al. 2025, arXiv 2507.03648, whose code has it as `influential`; TracIn, arXiv 2002.08484, summed over
pairs.
Higher: a training step on the example lowers the loss of the training set more; below 0 it raises it.

It runs on any representation; on gradients it is what its name says.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.agreement import best_agreement, group_means


def score(
    trajectory: NDArray[Any],
    learning_rate: NDArray[np.float64],
    scale: NDArray[Any] | None = None,
    *,
    normalize: Annotated[bool, "Scale each row to length one at each checkpoint."] = False,
) -> NDArray[np.float64]:
    """Score rows by trajectory [n, e, d] and learning_rate [e]: float64 [n]. scale [n, e] multiplies the vectors."""
    mean = group_means(trajectory, None, scale, normalize=normalize) * learning_rate[:, None]
    return best_agreement(trajectory, mean, scale, normalize=normalize)
