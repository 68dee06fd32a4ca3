"""Rows that do not repeat another: of each pair that is too much alike within a cluster, one is left out.

k-means on rows of length one; within a cluster, from the row least like its centroid to the one most like it, each row
has the highest cosine to a row before it. A row is a duplicate if that is above 1 − ε. Without ε the budget decides:
the rows with the lowest are kept, that is, ε is the one that leaves as many rows as asked for.

Source: SemDeDup, Abbas et al. 2023, arXiv 2303.09540, section 3 and appendix A.
Differs: with ε given, the budget is drawn at random from the rows that are no duplicates; where these are too few,
duplicates follow, those least alike first. The number of clusters is by default the square root of that of the rows;
the paper has 50,000 of 440 million.

It runs on any representation, all checkpoints side by side or averaged. Without ε rows come from the least alike on,
and a smaller budget is the beginning of a larger one with the same seed; with ε too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from prune_cli.numeric.duplicates import clusters, repetition
from prune_cli.numeric.repeats import tell_kept
from prune_cli.numeric.vectors import Checkpoints, vectors


def select(
    features: NDArray[Any],
    n_keep: int,
    rng: np.random.Generator,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    epsilon: Annotated[
        float, Meta(ge=0, lt=2), "ε: a cosine above 1 − ε is a duplicate's; 0: as the budget asks."
    ] = 0.0,
    k: Annotated[int, "Number of clusters; 0: the square root of the number of rows."] = 0,
    keep: Annotated[Literal["hard", "easy"], "Of duplicates, the one farthest from the centroid, or nearest."] = "hard",
    checkpoints: Checkpoints = "side",
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by features [n, e × d]: int64 [n_keep].

    Columns: `cluster`, and `nearest`, the highest cosine to a row before it in its cluster (none for the first there).
    """
    rows = vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=True)
    cluster, cosine = clusters(rows, k, rng)
    nearest = repetition(rows, cluster, cosine if keep == "hard" else -cosine)
    drawn = rng.permutation(len(nearest))
    repeats = np.where(nearest > 1 - epsilon, nearest, -1) if epsilon else nearest
    order = np.lexsort((drawn, repeats)) if epsilon else np.argsort(repeats, kind="stable")
    if epsilon:
        tell_kept("semdedup", repeats > -1, n_keep)
    return order[:n_keep], {"cluster": cluster, "nearest": np.where(nearest == -1, np.nan, nearest)}
