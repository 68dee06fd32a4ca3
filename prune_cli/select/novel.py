"""The row that is most novel beside those kept so far: far from them, where the data are dense.

v(x) = Σ_{j ∈ S} (1 / r_j)^α σ_j^β (1 − cos(x, x_j)), r_j the place of j among the kept rows by their distance from x,
the nearest first, and σ_j = 1 / Σ (distances of x_j to its k nearest rows) how dense the data are around it. The next
pick is argmax v(x); the first is drawn at random.

Source: NovelSelect, Yang et al. 2025, arXiv 2502.17184, section 6 and equations 5 to 7 (α = 1, β = ½, k = 10).
Differs: of the kept rows only the `counted` nearest to x count, which are all as long as no more are kept; the others
have small weights and are about as far from every x. The authors' code adds the density of x to that of x_j, and ranks
by distances times densities; here, as in the paper, the density is that of the kept row and ranks are by distance.

It holds n × `counted` distances. It runs on any representation, all checkpoints side by side or averaged. Rows come in
the order of picking, and with the same seed a smaller budget is the beginning of a larger one.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import column
from prune_cli.numeric.neighbours import with_distances
from prune_cli.numeric.products import held, products
from prune_cli.numeric.vectors import Checkpoints, vectors

SMALL = 1e-9  # added to the sum of distances: copies of a row are at none
BLOCK = 4096  # rows brought up to date together


def select(
    features: NDArray[Any],
    n_keep: int,
    rng: np.random.Generator,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    proximity: Annotated[float, "α: how much more the nearest kept rows count than the others."] = 1.0,
    density: Annotated[float, "β: how much more kept rows count where the data are dense."] = 0.5,
    k: Annotated[int, "Nearest rows by which density is told, at most all others."] = 10,
    counted: Annotated[int, "Nearest kept rows that count."] = 100,
    checkpoints: Checkpoints = "side",
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by features [n, e × d]: int64 [n_keep]. Column `gain`: v of a kept row."""
    rows = held(vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=True))
    n = len(rows)
    dense = np.ones(n)
    if n > 1:
        squared = with_distances(rows, min(k, n - 1))[1] ** 2 / 2  # 1 − cos
        dense = (1 / (squared.sum(axis=1) + SMALL)) ** density
    size = min(counted, n_keep)
    distance = np.full((n, size), np.inf, np.float32)  # to the kept rows, nearest first
    kept_density = np.zeros((n, size), np.float32)  # of the same
    weights = (np.arange(1, size + 1) ** -proximity).astype(np.float32)
    gain = rng.permutation(n).astype(np.float64)
    positions, gained = np.empty(n_keep, np.int64), np.full(n_keep, np.nan)
    for t in range(n_keep):
        row = int(gain.argmax())
        positions[t], gained[t] = row, gain[row] if t else np.nan
        new = np.maximum(1 - products(rows, np.asarray(rows[row], np.float64)), 0).astype(np.float32)
        wide = min(t + 1, size)
        for start in range(0, n, BLOCK):
            some = slice(start, start + BLOCK)
            near, dens = distance[some, :wide], kept_density[some, :wide]
            _insert(near, dens, new[some], np.float32(dense[row]))
            gain[some] = (near * dens) @ weights[:wide]
        gain[positions[: t + 1]] = -np.inf
    return positions, {"gain": column(n, positions, gained)}


def _insert(
    near: NDArray[np.float32], dense: NDArray[np.float32], new: NDArray[np.float32], density: np.float32
) -> None:
    """Put one more distance [b] in its place among each row's [b, s], ascending; the largest falls out."""
    after = near > new[:, None]
    place = after.argmax(axis=1)
    rows = np.flatnonzero(after.any(axis=1))
    for values, value in ((near, new), (dense, np.broadcast_to(density, len(new)))):
        shifted = values[:, :-1][after[:, :-1]]
        values[:, 1:][after[:, :-1]] = shifted
        values[rows, place[rows]] = value[rows]
