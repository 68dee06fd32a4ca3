"""TRAK: how much an example changes the model's output on the target rows, by a linear model of its gradients.

s_i = max_g ( (1/e) Σ_e (1 − p_ie) ) ( (1/e) Σ_e φ̄_ge ᵀ (Φ_eᵀΦ_e + λ_e I)⁻¹ φ_ie ), φ the projected gradient of
log(p / (1 − p)), which is −∇ℓ / (1 − p), Φ that of all rows, φ̄_g its mean over the target rows of a group g. Without
groups the target set is one.

Source: TRAK, Park et al. 2023, arXiv 2303.14186, section 3 (steps 2 to 5).
Higher: training on the example raises the probability of the target's gold answers more; below 0 it lowers it.
Differs: the paper averages over models that were trained apart; here it is over the checkpoints of one. Its soft
threshold, which sets small scores to zero, is left out. It has λ = 0, and fewer projected numbers than rows; here λ is
damping × the mean eigenvalue of ΦᵀΦ, over those that can be above zero. The gradient is that of the paper for labels
and choices; of a response p is the mean probability of its tokens, where the paper takes a sum over tokens.

Rows and target rows need the kinds gradient and dynamics at the same checkpoints. The matrix that is solved at each
checkpoint is n × n or k × k, whichever is smaller.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.agreement import group_means
from prune_cli.numeric.steps import damped_products

TINY = float(np.finfo(np.float32).tiny)


def score(
    trajectory: NDArray[Any],
    target_trajectory: NDArray[Any],
    improbability: NDArray[Any],
    target_improbability: NDArray[Any],
    target_group: NDArray[np.int64] | None = None,
    scale: NDArray[Any] | None = None,
    target_scale: NDArray[Any] | None = None,
    *,
    damping: Annotated[float, "What is added to each eigenvalue, as a share of their mean."] = 0.01,
) -> NDArray[np.float64]:
    """Score rows by trajectory [n, e, d] against target_trajectory [m, e, d]: float64 [n].

    improbability [n, e] and target_improbability [m, e], 1 − p; target_group [m] where the target rows have groups.
    scale [n, e] and target_scale [m, e]: what the vectors are to be multiplied by.
    """
    ours, theirs = _of_output(improbability, scale), _of_output(target_improbability, target_scale)
    means = group_means(target_trajectory, target_group, theirs, normalize=False)  # [g, e, d]
    e = trajectory.shape[1]
    total = sum(damped_products(trajectory, ours, c, means[:, c], damping) for c in range(e))
    return np.asarray((total / e).max(axis=1) * improbability.mean(axis=1, dtype=np.float64))


def _of_output(improbability: NDArray[Any], scale: NDArray[Any] | None) -> NDArray[np.float64]:
    """What gradients of the loss [n, e] are multiplied by to be those of log(p / (1 − p)), but for their sign."""
    factor = 1 / np.maximum(np.asarray(improbability, np.float64), TINY)
    return factor if scale is None else factor * scale
