"""k-means over the rows of a representation of any size, by scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, row_blocks

WHOLE = 2**28  # numbers that are clustered at once: 1 GiB as float32
BATCH = 1024  # rows, beyond that
PASSES = 5


def fit(features: Array, k: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Centroids of features [n, d]: float64 [k, d], or [n, d] where k is above n.

    Up to 2²⁸ numbers (n × d) this is Lloyd's algorithm from a k-means++ start, run until it is stable, on a
    float32 copy of at most 1 GiB. Beyond, it is mini-batch k-means: five passes over the rows in random
    order, max(1024, 10 k) of them in memory at a time, from a k-means++ start among the first of these.
    Either way it runs on one thread: with three or more, the order of sums, and so the last digits of the
    centroids, would differ from run to run.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    n, d = len(features), features.shape[1]
    k = min(k, n)
    seed = int(rng.integers(2**31))
    with threadpool_limits(1), warnings.catch_warnings():
        # with fewer distinct rows than k some clusters stay empty, which the callers can live with
        warnings.simplefilter("ignore", ConvergenceWarning)
        if n * d <= WHOLE:
            model = KMeans(k, n_init=1, random_state=seed, copy_x=False).fit(_copied(features))
        else:
            model = MiniBatchKMeans(k, n_init=1, random_state=seed)
            size = max(BATCH, 10 * k)
            for _ in range(PASSES):
                order = rng.permutation(n)
                for start in range(0, n, size):
                    rows = np.sort(order[start : start + size])  # sorted: read from disk in one direction
                    model.partial_fit(np.asarray(features[rows], np.float32))
    centroids: NDArray[np.float64] = model.cluster_centers_.astype(np.float64)
    return centroids


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
    half_norms = (centroids**2).sum(axis=1) / 2
    for rows, block in row_blocks(features):
        nearest[rows] = (half_norms - block @ centroids.T).argmin(axis=1)
        distance[rows] = ((block - centroids[nearest[rows]]) ** 2).sum(axis=1)
    return nearest, distance
