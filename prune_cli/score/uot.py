"""Optimal transport: how much of the target rows' mass a row gets, in a plan that need not spread it over all rows.

The plan T [m, n] minimises Σ T_vi C_vi + ε KL(T ‖ abᵀ) + λ KL(Σ_v T_vi ‖ b_i), where each target row v sends out
a_v = 1/m and b_i = 1/n. C = (1 − cos) / 2, the cosine averaged over checkpoints, weighted by their learning rates.
s_i = Σ_v T_vi.

Source: Nayak et al. 2026, arXiv 2602.14696 (its selection UOT, code at c1dc028), which keeps the rows of most mass.
Higher: it gets more of the target's mass, as it is nearer to target rows than other rows are; all together get 1.
Differs: they relax the mass of target rows too, with a factor that they set to infinity, so that it is kept.

It runs on any representation, or on influence (`represent --by row`), which stands in place of the cosine: of cosines
it is the same without projection, of inner products ε and λ have to fit their size. The plan is found by Sinkhorn's
iteration in logarithms (Chizat et al. 2018, arXiv 1607.05816), a block of rows at a time; the cosines are held as
float32, on disk where they take more than 256 MiB. Each pass leaves λ / (λ + ε) of what is missing, or less: with the
options of the source five passes are enough.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from prune_cli.numeric.blocks import row_blocks, table
from prune_cli.numeric.likeness import by_influence
from prune_cli.numeric.transport import unbalanced_masses
from prune_cli.numeric.vectors import checkpoint_weights, vectors

Epsilon = Annotated[float, Meta(ge=1e-6), "ε: the higher, the more evenly a target row's mass is spread over rows."]
Penalty = Annotated[float, "λ: the higher, the more evenly rows share all mass."]


def score(
    trajectory: NDArray[Any],
    target_trajectory: NDArray[Any],
    learning_rate: NDArray[np.float64],
    scale: NDArray[Any] | None = None,
    target_scale: NDArray[Any] | None = None,
    *,
    epsilon: Epsilon = 0.01,
    penalty: Penalty = 0.0001,
) -> NDArray[np.float64]:
    """Score rows by trajectory [n, e, d] against target_trajectory [m, e, d]: float64 [n].

    learning_rate [e]. scale [n, e] and target_scale [m, e], what the vectors are stored divided by, change no cosine.
    """
    targets = vectors(target_trajectory, learning_rate, checkpoints="each")[:]
    cosine = table((len(trajectory), len(targets)))
    for rows, block in row_blocks(vectors(trajectory, learning_rate, checkpoints="each"), beside=len(targets)):
        cosine[rows] = block @ targets.T
    return unbalanced_masses(cosine, epsilon, penalty)


def score_influence(
    influence: NDArray[Any],
    learning_rate: NDArray[np.float64],
    *,
    epsilon: Epsilon = 0.01,
    penalty: Penalty = 0.0001,
) -> NDArray[np.float64]:
    """Score rows by influence [n, e, m] on m target rows, or groups: float64 [n]. learning_rate [e]."""
    n, _, m = influence.shape
    cosine = table((n, m))
    for targets, rows, block in by_influence(influence, checkpoint_weights(learning_rate), np.arange(m)):
        cosine[rows, targets] = block.T
    return unbalanced_masses(cosine, epsilon, penalty)


FORMS = {"influence": score_influence}
