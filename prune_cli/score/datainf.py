"""DataInf: the influence of an example on the target rows' loss, with a closed form for the inverse of the Hessian.

s_i = max_g (1/e) Σ_e ḡ_ge ᵀ (1/n) Σ_j (∇ℓ_je ∇ℓ_jeᵀ + λ_e I)⁻¹ ∇ℓ_ie, ḡ_g the mean gradient of the target rows of a
group g, λ_e = damping × Σ_j ‖∇ℓ_je‖² / (n k), k the length of a gradient. Without groups the target set is one. Each
inverse is (I − ∇ℓ∇ℓᵀ / (λ + ‖∇ℓ‖²)) / λ, so that no matrix is made.

Source: DataInf, Kwon et al. 2023, arXiv 2310.00902, equation 5, with the sign of its influence turned.
Higher: training on the example lowers the target's loss more; below 0 it raises it.
Differs: the paper takes a sum over layers, each with its own gradient and λ; here one projected gradient stands for all
layers, and k is its length. The paper has the trained model alone; here the mean over checkpoints is taken, and with
represent --checkpoints last it is that model.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.agreement import best_agreement, group_means
from prune_cli.numeric.steps import step_blocks


def score(
    trajectory: NDArray[Any],
    target_trajectory: NDArray[Any],
    target_group: NDArray[np.int64] | None = None,
    scale: NDArray[Any] | None = None,
    target_scale: NDArray[Any] | None = None,
    *,
    damping: Annotated[float, "λ as a share of the mean eigenvalue of the gradients' second moments."] = 0.1,
) -> NDArray[np.float64]:
    """Score rows by trajectory [n, e, d] against target_trajectory [m, e, d]: float64 [n].

    target_group [m] where the target rows have groups. scale [n, e] and target_scale [m, e]: what the vectors are to be
    multiplied by.
    """
    means = group_means(target_trajectory, target_group, target_scale, normalize=False)  # [g, e, d]
    for c in range(trajectory.shape[1]):
        means[:, c] = _preconditioned(trajectory, scale, c, means[:, c], damping) / trajectory.shape[1]
    return best_agreement(trajectory, means, scale, normalize=False)


def _preconditioned(
    trajectory: NDArray[Any], scale: NDArray[Any] | None, c: int, means: NDArray[np.float64], damping: float
) -> NDArray[np.float64]:
    """The means [g, d] times the inverse at a checkpoint; zeros where all gradients are."""
    n, _, d = trajectory.shape
    squares = np.empty(n)
    for rows, block in step_blocks(trajectory, scale, c):
        squares[rows] = (block**2).sum(axis=1)
    damped = damping * squares.sum() / (n * d)
    if damped == 0:
        return np.zeros_like(means)
    along = np.zeros_like(means)  # Σ_j ⟨ḡ, ∇ℓ_j⟩ ∇ℓ_j / (λ + ‖∇ℓ_j‖²)
    for rows, block in step_blocks(trajectory, scale, c):
        along += (means @ block.T / (damped + squares[rows])) @ block
    return (means - along / n) / damped
