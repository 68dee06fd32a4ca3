"""Rows near the target rows, drawn with the chances of an optimal transport that gives near-duplicates one share.

Each of m target rows sends mass 1/m to rows. The plan γ [m, n] minimises (α/C) Σ γ_vi d_vi
+ (1 − α) m max ρ_i |γ_vi − (1/ρ_i) / (m Σ_j 1/ρ_j)|, d the distance, ρ_i = Σ_j max(0, 1 − d_ij² / h²) the density of
row i among all rows, itself one of them. Its solution is closed: from the nearest row on, each gets 1 / (m s ρ_i) until
the mass is spent, with s the smallest for which (α/C) Σ_v Σ_i (d_v − d_vi) / ρ_i ≥ (1 − α) m, the sum over the rows
that v fills and d_v the distance of the next. The chance of a row is Σ_v γ_vi.

Source: TSDS, Liu et al. 2024, arXiv 2410.11303, KNN-KDE (code at 3dfe139: α = 0.5, C = 5, h = 0.75, 5,000 neighbours).
Differs: distances are those of directions: with one checkpoint of vectors of length one. The paper draws with
replacement; here a row is drawn once, and rows of no chance follow, the nearest to a target row first. In the authors'
code nearest rows are approximate, and densities count the 1,000 nearest of the rows that are near a target row. Where α
is so low that mass spreads over more than half of all 1/ρ, the closed form is not the minimum, in their code either.

It runs on any representation; checkpoints are weighted by learning rates. How far mass spreads is for α to say: Nayak
et al. 2026, arXiv 2602.14696, have α = 0.01, and keep the rows of the highest chance (how=top). Rows come in the order
of drawing. With the same seed a smaller budget is the beginning of a larger one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array, row_blocks, single_blocks
from prune_cli.numeric.highest import positions
from prune_cli.numeric.ranked import likeness, ranked
from prune_cli.numeric.vectors import vectors
from prune_cli.numeric.views import Drawn

C = 5.0  # what distances are divided by
FIRST = 64  # neighbours of each target row that are tried first; then twice as many, and so on


def select(
    trajectory: NDArray[Any],
    target_trajectory: NDArray[Any],
    n_keep: int,
    rng: np.random.Generator,
    learning_rate: NDArray[np.float64],
    scale: NDArray[Any] | None = None,
    target_scale: NDArray[Any] | None = None,
    *,
    alpha: Annotated[float, Meta(gt=0, lt=1), "α: the lower, the farther mass spreads from target rows."] = 0.5,
    bandwidth: Annotated[
        float, Meta(ge=0.01, le=100), "h: rows nearer than this count as near-duplicates, the nearer the more."
    ] = 0.75,
    neighbours: Annotated[int, "Most rows that a target row sends mass to."] = 5000,
    how: Annotated[Literal["draw", "top"], "Draw by chance, or take the highest chances."] = "draw",
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by trajectory [n, e, d] and target_trajectory [m, e, d]: int64 [n_keep].

    learning_rate [e]. scale [n, e] and target_scale [m, e], what the vectors are stored divided by, change nothing.
    Columns: `chance`, and `density` where it was needed.
    """
    rows = vectors(trajectory, learning_rate, checkpoints="each")
    targets = vectors(target_trajectory, learning_rate, checkpoints="each")[:]
    n, m = len(rows), len(targets)
    numbers = ranked(rows, targets, min(neighbours, n))
    near, distance = positions(numbers), _distance(likeness(numbers))
    density, k = np.full(n, np.nan), 0
    spent = False
    while not spent and k < near.shape[1]:
        k = min(2 * k or FIRST, near.shape[1])
        new = np.unique(near[:, :k])
        new = new[np.isnan(density[new])]
        density[new] = _density(rows, new, bandwidth)
        shares, spent = _shares(distance[:, :k], 1 / density[near[:, :k]], alpha)
    chance = np.bincount(near[:, :k].ravel(), shares.ravel() / m, n)
    rank = chance
    if how == "draw":
        with np.errstate(divide="ignore"):
            rank = np.log(chance) - np.log(rng.exponential(size=n))
    order = np.lexsort((-_closest(rows, targets), -rank))
    return order[:n_keep], {"chance": chance, "density": density}


def _shares(distance: NDArray[np.float64], room: NDArray[np.float64], alpha: float) -> tuple[NDArray[np.float64], bool]:
    """What share of a target row's mass each of its k nearest rows gets [m, k]; and whether k of them are enough.

    distance [m, k] ascending; room [m, k]: 1/ρ. As s grows, one target row after the other fills a row and goes on to
    its next, in the order of the summed room, which makes its part of the sum that s is found by larger.
    """
    m = len(distance)
    filled = np.cumsum(room, axis=1)
    most = filled[:, -1].min()  # beyond this s some target row has more mass than its k rows have room for
    sums = distance[:, 1:] * filled[:, :-1] - np.cumsum(distance * room, axis=1)[:, :-1]
    order = np.argsort(filled[:, :-1], axis=None, kind="stable")
    grown = np.cumsum(np.diff(sums, axis=1, prepend=0).ravel()[order])
    at = int(np.searchsorted(alpha / C * grown, (1 - alpha) * m))
    s = filled[:, :-1].ravel()[order[at]] if at < len(order) else np.inf
    spread = np.minimum(filled / min(s, most), 1)
    return np.diff(spread, axis=1, prepend=0), bool(s <= most)


def _density(rows: Array, some: NDArray[np.int64], bandwidth: float) -> NDArray[np.float64]:
    """ρ of some rows: what all rows count for them, and each for itself no less than 1."""
    found = [np.empty(0)]
    for _, ours in single_blocks(Drawn(rows, some)):
        total = np.zeros(len(ours))
        for _, block in single_blocks(rows, beside=len(ours)):
            kernel = block @ ours.T  # 1 − d² / h², where d² = 2 − 2 × this
            kernel *= 2 / bandwidth**2
            kernel += 1 - 2 / bandwidth**2
            total += np.maximum(kernel, 0, out=kernel).sum(axis=0)
        found.append(total)
    return np.maximum(np.concatenate(found), 1)


def _distance(inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance of two directions."""
    return np.sqrt(np.maximum(2 - 2 * inner, 0))


def _closest(rows: Array, targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """How like each row is to the target row that it is most like [n]."""
    return np.concatenate([(block @ targets.T).max(axis=1) for _, block in row_blocks(rows, beside=len(targets))])
