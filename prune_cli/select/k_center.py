"""The row farthest from all that are kept, again and again: every row ends up near some kept row.

The first is the row nearest to the mean of all. Then each pick is argmax_i min_{j ∈ S} ‖x_i − x_j‖. The largest
distance of a row to the kept ones is at most twice the smallest that as many rows can have. Of the points 0, 1, 5, 6
and 10 on a line, whose mean is 4.4: first 5, then 0 or 10, which are equally far, then the other.

Source: Gonzalez 1985; as core-set selection, Sener and Savarese 2018, arXiv 1708.00489, algorithm 1.
Differs: the paper starts from rows that are already labelled, and its robust version, a mixed integer program that may
leave outliers out, is not here. Any first row keeps the bound.

It runs on any representation, all checkpoints side by side or averaged; normalize=true ranks by the cosine. Rows come
in the order of picking, and a smaller budget is the beginning of a larger one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, column, single_blocks
from prune_cli.numeric.products import held
from prune_cli.numeric.vectors import Checkpoints, Normalize, vectors
from prune_cli.numeric.views import Centred

POOL = 1024  # rows that are followed from pick to pick: so few that their products take one thread


def select(
    features: NDArray[Any],
    n_keep: int,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    checkpoints: Checkpoints = "side",
    normalize: Normalize = False,
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by features [n, e × d]: int64 [n_keep].

    Columns: `gain`, a kept row's distance to those picked before (none for the first); `cluster`, which pick, counted
    from 0, a row is nearest to, and `distance` to it. With a balance they are within the row's label or group.
    """
    rows = vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=normalize)
    near = _Nearest(held(Centred(rows)))  # far from the origin ‖x‖² − 2x·c + ‖c‖² would lose its digits
    picked, gained = [near.central()], [np.nan]
    while len(picked) < n_keep:
        # Distances only fall. One pass brings all up to date, and the rows of the largest make a pool. As long as
        # the pool's largest is not below that of the best row outside, which can only fall, it is the largest of all.
        distances = near.after(picked).copy()
        distances[picked] = -np.inf
        order = np.argsort(-distances, kind="stable")[: min(POOL, len(distances) - len(picked)) + 1]
        pool, outside = np.sort(order[:POOL]), distances[order[-1]] if len(order) > POOL else -np.inf
        block, own = near.read(pool), distances[pool]
        norms = (block**2).sum(axis=1)
        certain = True
        while len(picked) < n_keep:
            i = int(own.argmax())
            if own[i] == -np.inf or (own[i] < outside and not certain):
                break
            picked.append(int(pool[i]))
            gained.append(float(own[i]))
            np.minimum(own, np.maximum(norms - 2 * (block @ block[i]) + norms[i], 0), out=own)
            own[i], certain = -np.inf, False
    distances = near.after(picked)
    positions = np.array(picked, np.int64)
    return positions, {
        "gain": column(len(features), positions, np.sqrt(gained)),
        "cluster": near.pick,
        "distance": np.sqrt(distances.astype(np.float64)),
    }


class _Nearest:
    """The nearest pick of each row [n], and the squared distance to it, after some picks. The rows' mean is 0."""

    def __init__(self, rows: Array) -> None:
        self._rows = rows
        self._squared = np.full(len(rows), np.inf, np.float32)
        self.pick = np.zeros(len(rows), np.int64)
        self._seen = 0

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Some of the rows [b, d]."""
        return np.asarray(self._rows[rows], np.float32)

    def central(self) -> int:
        """The row nearest to the mean, the first of equals."""
        return int(np.concatenate([(block**2).sum(axis=1) for _, block in single_blocks(self._rows)]).argmin())

    def after(self, picked: list[int]) -> NDArray[np.float32]:
        """The squared distances [n] to the nearest of the picks, which begin with those of the last call."""
        new = np.array(picked[self._seen :], np.int64)
        centres = self.read(new)
        norms = (centres**2).sum(axis=1)
        for where, block in single_blocks(self._rows, beside=len(new)):
            distance = norms - 2 * (block @ centres.T)
            closest = distance.argmin(axis=1)
            least = np.maximum(distance[np.arange(len(block)), closest] + (block**2).sum(axis=1), 0)
            nearer = least < self._squared[where]
            self.pick[where][nearer] = self._seen + closest[nearer]
            self._squared[where][nearer] = least[nearer]
        self._squared[new], self.pick[new] = 0, np.arange(self._seen, len(picked))
        self._seen = len(picked)
        return self._squared
