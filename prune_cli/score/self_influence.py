"""Self-influence by the representation itself: squared lengths, summed over checkpoints.

s_i = Σ_e η_e ‖x_ie‖², η the learning rate at a checkpoint.

Source: TracIn, Pruthi et al. 2020, arXiv 2002.08484, section 3, on projected gradients or Adam's steps as in Du et al.
2025, arXiv 2507.03648.
Higher: learnt more by heart; atypical and mislabelled examples are among the highest.

On gradients the lengths are those after projection, off by a few hundredths; `memorization` has the exact ones of plain
gradients. This one is for Adam's steps (represent --precondition adam), of which no exact norm is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import row_blocks


def score(
    trajectory: NDArray[Any], learning_rate: NDArray[np.float64], scale: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """Score rows by trajectory [n, e, d] and learning_rate [e]: float64 [n], 0 or more. scale [n, e] multiplies it."""
    scores = np.empty(len(trajectory), np.float64)
    for rows, block in row_blocks(trajectory):
        squares = (block**2).sum(axis=2)  # [b, e]
        if scale is not None:
            squares *= np.asarray(scale[rows], np.float64) ** 2
        scores[rows] = squares @ learning_rate
    return scores
