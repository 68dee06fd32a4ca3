"""High scores over all topics: each pick is the row whose score adds most information to a graph of topics.

Each row puts its score s_i on its topic c; a topic shares what is put on it with topics like it: A = W / (column sums
of W), W the cosines of topics from the threshold on, and 1 for a topic with itself. The next pick is argmax_i s_i Σ_c′
A_{c c′} φ′(z_c′), z what the topics hold of the rows kept so far, φ(z) = z^b.

Source: MIG, Chen et al. 2025, arXiv 2504.13835, algorithm 1 (threshold 0.9, b = 0.8); the small number added to z
before φ′, and A, as in the authors' code.
Differs: topics are the clusters of k-means on rows of length one, and the cosines are those of centroids, where the
paper has a language model tag each row with several topics and compares the tags' embeddings.

A score below 0 puts nothing on its topic. It runs on any representation, all checkpoints side by side or averaged. Rows
come in the order of picking, and a smaller budget is the beginning of a larger one with the same seed.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from prune_cli.numeric import kmeans
from prune_cli.numeric.blocks import column
from prune_cli.numeric.cosine import unit
from prune_cli.numeric.vectors import Checkpoints, vectors

SMALL = 1e-6  # added to what a topic holds


def select(
    score: NDArray[np.float64],
    features: NDArray[Any],
    n_keep: int,
    rng: np.random.Generator,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    k: Annotated[int, "Number of topics."] = 100,
    threshold: Annotated[float, Meta(ge=-1, le=1), "The lowest cosine of two topics that share."] = 0.9,
    power: Annotated[float, Meta(gt=0, lt=1), "b: the lower, the more evenly topics are served."] = 0.8,
    checkpoints: Checkpoints = "side",
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by score [n] and features [n, e × d]: int64 [n_keep].

    Columns: `cluster`, a row's topic; `gain`, what a kept row added, to first order.
    """
    rows = vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=True)
    centroids = kmeans.fit(rows, k, rng)
    topic, _ = kmeans.assign(rows, centroids)
    cosine = unit(centroids) @ unit(centroids).T
    shares = np.where(cosine >= threshold, np.maximum(cosine, 0), 0)
    np.fill_diagonal(shares, 1)
    shares /= shares.sum(axis=0)
    order = np.lexsort((-score, topic))  # within a topic the highest score is always the next
    at = np.searchsorted(topic[order], np.arange(len(shares)))
    ends = np.searchsorted(topic[order], np.arange(len(shares)), side="right")
    held, positions, gained = np.zeros(len(shares)), np.empty(n_keep, np.int64), np.empty(n_keep)
    for t in range(n_keep):
        best = np.where(at < ends, np.maximum(score[order[np.minimum(at, len(order) - 1)]], 0), 0)
        gain = best * (shares @ (power * (held + SMALL) ** (power - 1)))
        chosen = int(np.where(at < ends, gain, -np.inf).argmax())
        positions[t], gained[t] = order[at[chosen]], gain[chosen]
        held += best[chosen] * shares[chosen]
        at[chosen] += 1
    return positions, {"cluster": topic, "gain": column(len(score), positions, gained)}
