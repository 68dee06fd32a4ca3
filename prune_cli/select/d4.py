"""First no duplicates, then no prototypes: SemDeDup, and of what is left the rows farthest from new centroids.

A share of the rows is kept by the selection `semdedup`; what is left is clustered anew on rows of length one, and those
of the lowest cosine with their centroid are kept.

Source: D4, Tirumala et al. 2023, arXiv 2308.12284, section 3.4 (75% kept by the first step).
Differs: where the budget is above that share, the first step keeps as many as the budget. The number of clusters is by
default the square root of that of the rows; the paper has 11,000.

It runs on any representation, all checkpoints side by side or averaged. Rows come from the farthest on, and a smaller
budget is the beginning of a larger one with the same seed, as long as the first step keeps the same share.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from prune_cli.numeric.duplicates import clusters, repetition
from prune_cli.numeric.vectors import Checkpoints, vectors
from prune_cli.numeric.views import Drawn


def select(
    features: NDArray[Any],
    n_keep: int,
    rng: np.random.Generator,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    dedup: Annotated[float, Meta(gt=0, le=1), "Share of the rows that the first step keeps."] = 0.75,
    k: Annotated[int, "Number of clusters in each step; 0: the square root of the number of rows."] = 0,
    checkpoints: Checkpoints = "side",
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by features [n, e × d]: int64 [n_keep].

    Columns: `nearest`, the highest cosine to a row before it in its first cluster (none for the first there); `cluster`
    and `centroid`, the new cluster and the cosine with its centroid (none for rows that the first step left out).
    """
    n = len(features)
    rows = vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=True)
    nearest = repetition(rows, *clusters(rows, k, rng))
    left = np.sort(np.argsort(nearest, kind="stable")[: max(n_keep, round(dedup * n))])
    cluster, centroid = np.full(n, -1), np.full(n, np.nan)
    cluster[left], centroid[left] = clusters(Drawn(rows, left), k, rng)
    positions = left[np.argsort(centroid[left], kind="stable")[:n_keep]]
    return positions, {"nearest": np.where(nearest == -1, np.nan, nearest), "cluster": cluster, "centroid": centroid}
