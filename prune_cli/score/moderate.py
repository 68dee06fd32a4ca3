"""Moderateness: how near a row's distance from its class's centre is to the median of all rows' distances.

d_i = ‖x_i − μ_c‖, μ_c the mean of the rows of the row's label; s_i = −|d_i − median_j d_j|

Source: Moderate Coreset, Xia et al. 2023, ICLR (OpenReview 7D5EECbOaf9).
Higher: neither near the centre of its class nor far from it; at most 0.
Differs: the authors' code takes the middle ranks of distances within each class; that is `--method middle` with
`--balance keep` on such distances. Rows of tasks without labels are one class.

It runs on any representation, all checkpoints side by side or averaged; the paper's is the last hidden layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import row_blocks
from prune_cli.numeric.vectors import Checkpoints, Normalize, vectors


def score(
    features: NDArray[Any],
    label: NDArray[np.int64],
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    checkpoints: Checkpoints = "side",
    normalize: Normalize = False,
) -> NDArray[np.float64]:
    """Score rows by features [n, e × d] and label [n]: float64 [n], 0 or less."""
    rows = vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=normalize)
    names, member = np.unique(label, return_inverse=True)
    centres = np.zeros((len(names), rows.shape[1]))
    for some, block in row_blocks(rows):
        centres += (np.arange(len(names))[:, None] == member[some]).astype(np.float64) @ block
    centres /= np.bincount(member)[:, None]
    distance = np.empty(len(rows))
    for some, block in row_blocks(rows):
        apart = block - centres[member[some]]
        distance[some] = np.sqrt(np.einsum("bd,bd->b", apart, apart))
    return -np.abs(distance - np.median(distance))
