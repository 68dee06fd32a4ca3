"""Rows of which every row has one like itself: the greedy maximum of facility location, with how many each stands for.

f(S) = Σ_i max_{j ∈ S} s_ij. The next pick is the row that adds most. s is D − ‖x_i − x_j‖ with D large enough that none
is negative, or (1 + cos) / 2; what is added to all similarities changes no pick but the first one's gain. Of the points
0, 1, 5, 6 and 10 on a line: first 5, whose distances have the smallest sum, then 0 or 1, which both take off 8.

Source: facility location as in Lin and Bilmes 2011, ACL; with weights, on gradients, within each label, it is CRAIG,
Mirzasoleiman et al. 2020, arXiv 1906.01827, algorithm 1.
Differs: with how=sparse, and with how=auto above 8,192 rows if 1 in 64 is kept or more, a row knows only its nearest
rows, and counts as served by its farthest one of them until a nearer one is kept. f is then within 1% of that of all
pairs on the sizes where both were run.

how=exact works out all pairs once and keeps those of up to 8,192 rows; of more rows it works many out again.
how=stochastic takes the best of a random draw at each pick. It runs on any representation, all checkpoints side by side
or averaged. Rows come in the order of picking. A smaller budget is the beginning of a larger one with how=exact, not
with the others.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.alike import Alike
from prune_cli.numeric.blocks import column
from prune_cli.numeric.lazy import lazy, stochastic
from prune_cli.numeric.neighbours import with_distances
from prune_cli.numeric.vectors import Checkpoints, vectors
from prune_cli.numeric.views import Centred

EXACT = 8192  # rows, whose similarities are all kept in memory
KNOWN = 8  # times n / n_keep: so many nearest rows of each are known, so that about eight kept rows are among them
LEAST, MOST = 64, 512
TOGETHER = 256  # picks that all rows are compared with at a time


def select(
    features: NDArray[Any],
    n_keep: int,
    rng: np.random.Generator,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    metric: Annotated[Literal["euclidean", "cosine"], "What similarity is made of."] = "euclidean",
    how: Annotated[
        Literal["auto", "exact", "sparse", "stochastic"],
        "All pairs (exact), each row's nearest (sparse), a draw at each pick (stochastic), or by size (auto).",
    ] = "auto",
    checkpoints: Checkpoints = "side",
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by features [n, e × d]: int64 [n_keep].

    Columns: `gain`, what a kept row added to f; `cluster`, which pick, counted from 0, a row is most like; `weight`,
    how many rows are most like a kept row. With a balance they are within the row's label or group.
    """
    n = len(features)
    rows = vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=metric == "cosine")
    alike = Alike(rows if metric == "cosine" else Centred(rows), metric)
    if (how == "sparse" and n > 1) or (how == "auto" and n > EXACT and n_keep * MOST >= n * KNOWN):
        positions, gained = _sparse(alike, n_keep)
    else:
        alike.hold()
        best = np.zeros(n, np.float32)

        def gains(some: NDArray[np.int64]) -> NDArray[np.float64]:
            added = np.zeros(len(some))
            for where, similarity in alike.to(some):
                similarity -= best[where, None]
                added += np.maximum(similarity, 0, out=similarity).sum(axis=0)
            return added

        def take(row: int) -> None:
            np.maximum(best, alike.column(row), out=best)

        if how == "stochastic":
            positions, gained = stochastic(n, n_keep, gains, take, rng)
        else:
            positions, gained = lazy(n, n_keep, gains, take)
    cluster = _served(alike, positions)
    weight = column(n, positions, np.bincount(cluster, minlength=n_keep))
    return positions, {"gain": column(n, positions, gained), "cluster": cluster, "weight": weight}


def _served(alike: Alike, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which pick each row is most like, the first of equals; a kept row is most like itself."""
    best, served = np.full(len(alike), -np.inf, np.float32), np.zeros(len(alike), np.int64)
    for start in range(0, len(positions), TOGETHER):
        for where, similarity in alike.to(positions[start : start + TOGETHER]):
            most = similarity.max(axis=1)
            nearer = most > best[where]
            served[where][nearer] = start + similarity[nearer].argmax(axis=1)
            best[where] = np.maximum(best[where], most)
    served[positions] = np.arange(len(positions))
    return served


def _sparse(alike: Alike, n_keep: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The plain greedy rule where only the similarities of each row to itself and its nearest are known.

    Of these there are n × k, in some 55 bytes each while they are put in order.
    """
    n = len(alike)
    k = min(n - 1, max(LEAST, min(MOST, KNOWN * n // n_keep)))
    near, distance = with_distances(alike.rows, k)
    distance = distance**2 / 4 if alike.cosine else distance  # 1 − (1 + cos) / 2
    near = np.concatenate([np.arange(n, dtype=np.int32)[:, None], near], axis=1)  # i knows near[i]
    better = distance[:, -1:] - np.concatenate([np.zeros((n, 1)), distance], axis=1)  # than its farthest: [n, k + 1]
    by_column = np.argsort(near, axis=None, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(near.ravel(), minlength=n))])
    gain = np.bincount(near.ravel(), better.ravel(), minlength=n)
    best = np.zeros(n)
    positions, gained = np.empty(n_keep, np.int64), np.empty(n_keep)
    for t in range(n_keep):
        row = int(gain.argmax())
        positions[t], gained[t] = row, gain[row]
        knows, at = np.divmod(by_column[starts[row] : starts[row + 1]], k + 1)
        now = better[knows, at]
        nearer = now > best[knows]
        knows, now = knows[nearer], now[nearer]
        before, after = (np.maximum(better[knows] - x[:, None], 0) for x in (best[knows], now))
        gain -= np.bincount(near[knows].ravel(), (before - after).ravel(), minlength=n)
        best[knows] = now
        gain[row] = -np.inf
    return positions, gained
