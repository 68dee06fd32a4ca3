"""Rows that cover all others, none of which counts for more than a part of what all rows together give it.

f(S) = Σ_i min(C_i(S), α C_i(V)), C_i(S) = Σ_{j ∈ S} s_ij, s = (1 + cos) / 2. The next pick is the row that adds most.

Source: Lin and Bilmes 2011, ACL (A class of submodular functions for document summarization), section 3.1.

f never falls with a further row, and each adds less the later it comes; once all rows are covered to their part,
further rows add nothing and the first in order are taken: a small budget needs a small α, by default the budget's share
of the rows. Picks are those of the plain greedy rule, found lazily, with no matrix of pairs in memory; all pairs are
looked at once, and more where gains change much. It runs on any representation, all checkpoints side by side or
averaged. Rows come in the order of picking; with α given, a smaller budget is the beginning of a larger one.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from prune_cli.numeric.alike import Alike
from prune_cli.numeric.blocks import column
from prune_cli.numeric.lazy import lazy
from prune_cli.numeric.vectors import Checkpoints, vectors


def select(
    features: NDArray[Any],
    n_keep: int,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    alpha: Annotated[float, Meta(ge=0, le=1), "α: the part of its cover that a row counts for; 0: n_keep / n."] = 0.0,
    checkpoints: Checkpoints = "side",
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by features [n, e × d]: int64 [n_keep]. Column `gain`: what a kept row added to f."""
    n = len(features)
    alike = Alike(vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=True), "cosine")
    total = sum(np.asarray(alike.rows[i : i + 1024], np.float64).sum(axis=0) for i in range(0, n, 1024))
    cover = np.concatenate([np.asarray(alike.rows[i : i + 1024], np.float64) @ total for i in range(0, n, 1024)])
    room = (alpha or n_keep / n) * (n + cover) / 2

    def gains(some: NDArray[np.int64]) -> NDArray[np.float64]:
        added = np.zeros(len(some))
        for rows, similarity in alike.to(some):
            added += np.minimum(similarity, room[rows, None].astype(np.float32)).sum(axis=0)
        return added

    def take(row: int) -> None:
        np.maximum(room - alike.column(row), 0, out=room)

    positions, gained = lazy(n, n_keep, gains, take)
    return positions, {"gain": column(n, positions, gained)}
