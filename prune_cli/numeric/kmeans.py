"""k-means over the rows of a representation of any size, by scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, row_blocks
from prune_cli.numeric.views import Drawn
from prune_cli.runtime.progress import note

WHOLE = 2**27  # numbers that are clustered: 512 MiB as float32, and scikit-learn takes as much again
START = 64  # rows for each cluster that the start is chosen among
ROUNDS = 50  # at most


def fit(features: Array, k: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Centroids of features [n, d]: float64 [k, d], or [n, d] where k is above n.

    Lloyd's algorithm until it is stable, 50 rounds at most, from a k-means++ start among 64 k rows drawn at random:
    among all rows it takes longer than the rounds, and ends less than 1% lower. Where the rows hold more than 2²⁷
    numbers (n × d), only a random draw of them that holds as many is clustered: a float32 copy of 512 MiB. It runs on
    one thread: with three or more, the order of sums, and so the last digits of the centroids, would differ from run to
    run.
    """
    from sklearn.cluster import KMeans, kmeans_plusplus
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    n, d = len(features), features.shape[1]
    k = min(k, n)
    seed = int(rng.integers(2**31))
    with threadpool_limits(1), warnings.catch_warnings():
        # with fewer distinct rows than k some clusters stay empty, which the callers can live with
        warnings.simplefilter("ignore", ConvergenceWarning)
        some = _some(n, n if n * d <= WHOLE else max(k, WHOLE // d), rng)
        if len(some) < n:
            note(f"k-means: centroids of {len(some):,} of {n:,} rows, drawn at random; all take too much memory")
        rows = _copied(features if len(some) == n else Drawn(features, some))
        start, _ = kmeans_plusplus(rows[_some(len(rows), START * k, rng)], k, random_state=seed)
        model = KMeans(k, init=start, n_init=1, max_iter=ROUNDS, copy_x=False).fit(rows)
    centroids: NDArray[np.float64] = model.cluster_centers_.astype(np.float64)
    return centroids


def _some(n: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """At most that many of n positions, drawn at random, in order: read from disk in one direction."""
    return np.sort(rng.choice(n, size, replace=False)) if size < n else np.arange(n)


def _copied(features: Array) -> NDArray[np.float32]:
    """A copy of features [n, d] as float32."""
    copy = np.empty(features.shape, np.float32)
    for rows, block in row_blocks(features):
        copy[rows] = block
    return copy


def assign(features: Array, centroids: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The nearest centroid of each row [n] (the first of equals), and the squared distance to it [n].

    The distance is summed from differences: ‖x‖² − 2x·c + ‖c‖² would lose its digits near a centroid.
    """
    nearest = np.empty(len(features), np.int64)
    distance = np.empty(len(features), np.float64)
    middle = centroids.mean(axis=0)  # about which products in single precision lose the least
    towards = (centroids - middle).astype(np.float32)
    half_norms = (towards**2).sum(axis=1) / 2
    for rows, block in row_blocks(features, beside=len(centroids)):
        nearest[rows] = (half_norms - (block - middle).astype(np.float32) @ towards.T).argmin(axis=1)
        distance[rows] = ((block - centroids[nearest[rows]]) ** 2).sum(axis=1)
    return nearest, distance
