"""High scores far apart: the sum of the kept scores plus λ times the smallest distance between two kept rows.

f(S) = Σ_{i ∈ S} u_i + λ min_{i ≠ j ∈ S} ‖x_i − x_j‖. For each distance d of a sweep, rows are visited from the highest
score on and taken if they are at least d from all taken. The best f of all these sets wins. d is 0, and the numbers
(ε / 2) D (1 + ε)^i up to the largest distance.

Source: GIST, Fahrbach et al. 2025, arXiv 2405.18754, algorithm 1, with a utility that is a sum of scores.
Differs: the paper's set may have fewer rows than asked for; here each is filled with the highest scores left before f
is taken, so the paper's pair of the two rows farthest apart is not tried. D, their distance, is known within a factor
of 2 from the largest distance to the mean: the sweep begins and ends where both bounds ask. The paper takes any
monotone submodular utility.

It runs on any representation, all checkpoints side by side or averaged; normalize=true has chords of the unit sphere
for distances. Rows come in the order of taking. A smaller budget is not the beginning of a larger one.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from prune_cli.numeric.apart import apart, filled
from prune_cli.numeric.blocks import column, row_blocks
from prune_cli.numeric.products import held
from prune_cli.numeric.vectors import Checkpoints, Normalize, vectors
from prune_cli.numeric.views import Centred


def select(
    score: NDArray[np.float64],
    features: NDArray[Any],
    n_keep: int,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    weight: Annotated[float, "λ: what a unit of the smallest distance is worth, in units of the summed score."] = 1.0,
    epsilon: Annotated[float, Meta(gt=0, le=1), "ε: how fine the sweep over distances is."] = 0.1,
    checkpoints: Checkpoints = "side",
    normalize: Normalize = False,
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by score [n] and features [n, e × d]: int64 [n_keep].

    Column `distance`: a kept row's distance to the nearest of those kept before it (none for the first).
    """
    rows = held(Centred(vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=normalize)))
    order = np.argsort(-score, kind="stable")
    reach = max(float(np.linalg.norm(block, axis=1).max()) for _, block in row_blocks(rows))  # D is 1 to 2 times this
    steps = np.arange(int(np.log(4 / epsilon) / np.log1p(epsilon)) + 1)
    best, value = order[:n_keep], -np.inf
    for least in [0.0, *(epsilon / 2 * reach * (1 + epsilon) ** steps)]:
        chosen = filled(apart(rows, order, least, n_keep)[0], order, n_keep)
        found = score[chosen].sum() + weight * (_before(rows, chosen)[1:].min() if n_keep > 1 else 0.0)
        if found > value:
            best, value = chosen, found
    distance = _before(rows, best)
    return best, {"distance": column(len(score), best, np.where(np.isinf(distance), np.nan, distance))}


def _before(rows: Any, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """The distance of each chosen row [m] to the nearest of those before it; infinite for the first."""
    return apart(rows, chosen, 0.0, len(chosen))[1][chosen]
