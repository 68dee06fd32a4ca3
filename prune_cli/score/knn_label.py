"""Neighbours that disagree: the share of a row's k nearest rows whose label is another.

s_i = (1/k) |{ j ∈ N_k(i) : y_j ≠ y_i }|, N_k(i) the k other rows of the highest cosine to row i.

Source: SimiFeat, Zhu et al. 2022, arXiv 2110.06283, section 3 (local voting of the k nearest features; k = 10 there).
Higher: its label is less like those around it; mislabelled examples are among the highest. From 0 to 1.
Differs: the paper asks whether another label has most votes, or draws rows by how few votes theirs has, over rounds
with other features; here it is the share of votes against the label, once.

It runs on any representation, all checkpoints side by side or averaged. Every pair of rows is compared: time
grows with n².
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.neighbours import nearest
from prune_cli.numeric.vectors import Checkpoints, vectors


def score(
    features: NDArray[Any],
    label: NDArray[np.int64],
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    k: Annotated[int, "Number of neighbours."] = 10,
    checkpoints: Checkpoints = "side",
) -> NDArray[np.float64]:
    """Score rows by features [n, e × d] and label [n], k at most n − 1: float64 [n], from 0 to 1; 0 for a row alone."""
    k = min(k, len(label) - 1)
    if k == 0:
        return np.zeros(len(label))
    found = nearest(vectors(features, learning_rate, scale, checkpoints=checkpoints), k)
    return (label[found] != label[:, None]).mean(axis=1, dtype=np.float64)
