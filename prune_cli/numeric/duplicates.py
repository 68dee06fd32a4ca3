"""How much each row repeats another of its cluster, by which semantic duplicates are left out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric import kmeans
from prune_cli.numeric.blocks import Array, row_blocks
from prune_cli.numeric.cosine import unit

BLOCK = 2048  # rows compared with as many others at a time


def clusters(rows: Array, k: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The cluster of each row [n] of vectors of length one, and its cosine with the cluster's centroid [n].

    k: the number of clusters; 0 for the square root of the number of rows.
    """
    centroids = kmeans.fit(rows, k or max(1, round(len(rows) ** 0.5)), rng)
    cluster, _ = kmeans.assign(rows, centroids)
    towards = unit(centroids)
    cosine = np.concatenate([(block * towards[cluster[where]]).sum(axis=1) for where, block in row_blocks(rows)])
    return cluster, cosine


def repetition(rows: Array, cluster: NDArray[np.int64], rank: NDArray[np.float64]) -> NDArray[np.float64]:
    """The highest cosine of each row [n] with a row of its cluster that ranks before it; −1 for the first of each.

    rows: vectors of length one. rank [n]: lower is before; of equals the first row is.
    """
    highest = np.full(len(cluster), -1.0)
    order = np.lexsort((rank, cluster))
    for members in np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1):
        for start in range(0, len(members), BLOCK):
            some = members[start : start + BLOCK]
            block = np.asarray(rows[some], np.float32)
            for first in range(0, start + 1, BLOCK):
                others = members[first : first + BLOCK]
                cosine = block @ np.asarray(rows[others], np.float32).T
                if first == start:
                    cosine[np.triu_indices(len(some))] = -1
                highest[some] = np.maximum(highest[some], cosine.max(axis=1))
    return np.minimum(highest, 1)
