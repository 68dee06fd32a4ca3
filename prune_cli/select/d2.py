"""The highest scores, where a row's score is raised by its neighbours' and lowered by each neighbour that is kept.

On the graph of each row's k nearest rows, with e_ij = exp(−γ ‖x_i − x_j‖²): first each score becomes u_i + Σ_{j ∈ N(i)}
e_ij u_j, γ that of the forward pass, from the scores as given. Then the row i of the highest score is kept, and its
neighbours' scores fall: u_j − e_ij u_i for j ∈ N(i), γ that of the reverse pass; and so on.

Source: D2 pruning, Maharana et al. 2024, arXiv 2310.07931, section 3.2.
Differs: the authors' code has exp(−distance), not its square, in the forward pass, and in one mode takes off the whole
score; a row's neighbours are its own k nearest, as there, where the paper speaks of an undirected graph. Rows have
length one by default here, as γ has another meaning at each scale; k and γ, which the paper searches for each data set,
have defaults of ours.

Scores are to be 0 or more. It runs on any representation, all checkpoints side by side or averaged. Rows come in the
order of keeping, and a smaller budget is the beginning of a larger one.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import column
from prune_cli.numeric.neighbours import with_distances
from prune_cli.numeric.vectors import Checkpoints, Normalize, vectors


def select(
    score: NDArray[np.float64],
    features: NDArray[Any],
    n_keep: int,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    k: Annotated[int, "Nearest rows that a row is joined to, at most all others."] = 10,
    forward: Annotated[float, "γ of the forward pass; the higher, the less a neighbour adds."] = 1.0,
    reverse: Annotated[float, "γ of the reverse pass; the higher, the less a kept row takes away."] = 1.0,
    checkpoints: Checkpoints = "side",
    normalize: Normalize = True,
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by score [n] and features [n, e × d]: int64 [n_keep].

    Column `gain`: the score of a kept row when it was kept.
    """
    n = len(score)
    if n == 1:
        return np.zeros(1, np.int64), {"gain": score.astype(np.float64)}
    rows = vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=normalize)
    near, distance = with_distances(rows, min(k, n - 1))
    gain = score + (np.exp(-forward * distance**2) * score[near]).sum(axis=1)
    falls = np.exp(-reverse * distance**2)
    positions, gained = np.empty(n_keep, np.int64), np.empty(n_keep)
    for t in range(n_keep):
        row = int(gain.argmax())
        positions[t], gained[t] = row, gain[row]
        gain[near[row]] -= falls[row] * gain[row]
        gain[row] = -np.inf
    return positions, {"gain": column(n, positions, gained)}
