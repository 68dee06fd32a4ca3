"""Self-influence: how much training on an example lowers its own loss.

s_i = Σ_e η_e ‖∇ℓ_ie‖², η the learning rate at a checkpoint, the norm that of the whole gradient.

Source: TracIn, Pruthi et al. 2020, arXiv 2002.08484, section 3 (TracInCP of an example on itself).
Higher: learnt more by heart; atypical and mislabelled examples are among the highest.

The norms are exact, not those of projected gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def score(grad_norm: NDArray[Any], learning_rate: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score rows by grad_norm [n, e] and learning_rate [e]: float64 [n], 0 or more."""
    return (grad_norm.astype(np.float64) ** 2 * learning_rate).sum(axis=1)
