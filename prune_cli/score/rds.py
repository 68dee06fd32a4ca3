"""Representation similarity: the cosine of a row to the target row it is most like.

s_i = max_v cos(x_i, x_v), v the target rows. A row of zeros is like none: 0.

Source: RDS, as in Ivison et al. 2025, arXiv 2503.01807 (cosine to the query set, its maximum over queries).
Higher: more like some row of the target set; from −1 to 1.

It runs on any representation, all checkpoints side by side or averaged. RDS+ itself is the one on a pretrained model's
hidden states, pooled with weights that grow with position, and takes rows for each target row in turn: the selection
round_robin, which needs no score.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.cosine import similarities
from prune_cli.numeric.vectors import Checkpoints, vectors


def score(
    features: NDArray[Any],
    target_features: NDArray[Any],
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    target_scale: NDArray[Any] | None = None,
    *,
    checkpoints: Checkpoints = "side",
) -> NDArray[np.float64]:
    """Score rows by features [n, e × d] against target_features [m, e × d]: float64 [n]."""
    ours = vectors(features, learning_rate, scale, checkpoints=checkpoints)
    theirs = vectors(target_features, learning_rate, target_scale, checkpoints=checkpoints)
    best = np.full(len(features), -np.inf)
    for _, rows, cosines in similarities(ours, theirs):
        best[rows] = np.maximum(best[rows], cosines.max(axis=0))
    return best
