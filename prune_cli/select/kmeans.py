"""Every kind of example alike: k-means clusters, each giving the same number of rows, drawn at random.

Clusters are visited smallest first, of equal sizes in random order. The k-th of K gives R_k = (B − |S|) / (K − k + 1)
rows, rounded down, B the budget and S what is selected so far, or all its rows where it has fewer; so the budget is
always filled.

Source: S2L, Yang et al. 2024, arXiv 2403.07384, algorithm 1.
Differs: k is at most the budget, so that every cluster gives a row. With more clusters than rows to keep, the rule
leaves out whole clusters. The authors' code draws from clusters of one or two rows last, and at random.

The paper clusters loss trajectories, which is this method on dynamics; here it is any representation, with all
checkpoints side by side, as the paper's losses are, or averaged. The published method on gradients averages them and
scales each row to length one, as Du et al. 2025 (arXiv 2507.03648) do, who also take Adam's steps for gradients. Rows
come in the order of drawing, the smallest cluster's first, and a smaller budget is not the beginning of a larger one.
Where rows come from several sources the authors' code shares the budget among these by the same rule, and clusters each
by itself: that is `--balance equal --balance-by group`.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric import kmeans as _kmeans
from prune_cli.numeric.shares import equal_shares, smallest_first
from prune_cli.numeric.vectors import Checkpoints, Normalize, vectors


def select(
    features: NDArray[Any],
    n_keep: int,
    rng: np.random.Generator,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    k: Annotated[int, "Number of clusters, at most that of rows to keep."] = 100,
    checkpoints: Checkpoints = "side",
    normalize: Normalize = False,
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by features [n, e × d] with k clusters (n_keep where k is above): int64 [n_keep].

    Column `cluster`: the number of the row's cluster.
    """
    rows = vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=normalize)
    cluster, _ = _kmeans.assign(rows, _kmeans.fit(rows, min(k, n_keep), rng))
    sizes = np.bincount(cluster)
    order = smallest_first(sizes, rng)
    shares = equal_shares(sizes, n_keep, order)
    positions = np.concatenate([rng.permutation(np.flatnonzero(cluster == j))[: shares[j]] for j in order])
    return positions, {"cluster": cluster}
