"""Optimal transport of target rows to rows, by Sinkhorn's iteration in logarithms: a plan's masses, a distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prune_cli.errors import PruneError
from prune_cli.numeric.blocks import Array, row_blocks

PASSES = 1000  # over all rows, at most
SETTLED = 1e-6  # the most that a logarithm of the plan's factors may still change by
BLUR = 0.01  # its square is the last ε of a distance
FALL = 0.25  # of ε from one step to the next


def unbalanced_masses(cosine: Array, epsilon: float, penalty: float) -> NDArray[np.float64]:
    """The mass [n] of each row in the plan that the score `uot` is about, by cosines [n, m], read a block at a time.

    Source: Chizat et al. 2018, arXiv 1607.05816.
    """
    n, m = cosine.shape
    share = penalty / (penalty + epsilon)
    mass, sent = np.empty(n), np.zeros(m)  # sent: log of the plan's factor for a target row; for a row −share × arrived
    for _ in range(PASSES):
        kept = np.full(m, -np.inf)
        for rows, block in row_blocks(cosine):
            exponent = (block - 1) / (2 * epsilon)  # −C / ε [b, m]
            arrived = _log_sum(exponent + sent, 1) - np.log(m)
            mass[rows] = np.exp((1 - share) * arrived) / n
            kept = np.logaddexp(kept, _log_sum(exponent - share * arrived[:, None], 0) - np.log(n))
        if np.abs(kept + sent).max() <= SETTLED:
            return mass
        sent = -kept
    raise PruneError(
        f"uot: the plan has not settled after {PASSES} passes, with penalty {penalty:g} and epsilon {epsilon:g}",
        hint="a lower penalty, or a higher epsilon, settles sooner",
    )


def transport_distance(cost: NDArray[np.float64]) -> float:
    """The optimal transport distance of two sets by a cost [a, b], all of a set with the same mass.

    Both sides at once, ε falling from the square of the largest cost to that of BLUR: the value of the dual that the
    steps end with, some percent below the exact distance.

    Source: Feydy 2020, "Geometric data analysis, beyond convolutions", chapter 3 (the algorithm of geomloss).
    """
    epsilon, least = max(float(cost.max()), BLUR) ** 2, BLUR**2
    ours, theirs = _softmin(cost, np.zeros(1), epsilon, 1), _softmin(cost, np.zeros(1), epsilon, 0)
    while True:
        better = _softmin(cost, theirs, epsilon, 1), _softmin(cost, ours[:, None], epsilon, 0)
        if epsilon <= least:
            return float(better[0].mean() + better[1].mean())
        ours, theirs = (ours + better[0]) / 2, (theirs + better[1]) / 2
        epsilon = max(epsilon * FALL, least)


def _softmin(
    cost: NDArray[np.float64], potential: NDArray[np.float64], epsilon: float, axis: int
) -> NDArray[np.float64]:
    """−ε log of the mean over an axis of exp((potential − cost) / ε)."""
    return -epsilon * (_log_sum((potential - cost) / epsilon, axis) - np.log(cost.shape[axis]))


def _log_sum(exponents: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """log Σ exp of finite exponents over an axis of a table."""
    highest = exponents.max(axis=axis, keepdims=True)
    return np.asarray(np.log(np.exp(exponents - highest).sum(axis=axis)) + highest.squeeze(axis))
