"""GraNd: the length of the loss's gradient, averaged over checkpoints.

s_i = (1/e) Σ_e ‖∇ℓ_ie‖₂, the gradient by all parameters that the representation has.

Source: Paul et al. 2021, arXiv 2107.07075, section 2 (the expected gradient norm).
Higher: harder; the example moves the model more.
Differs: the paper takes the expectation over independent initialisations, early in training; here the average is over
the checkpoints of one training.

The norms are exact, not those of projected gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def score(grad_norm: NDArray[Any]) -> NDArray[np.float64]:
    """Score rows by grad_norm [n, e]: float64 [n], 0 or more."""
    return grad_norm.mean(axis=1, dtype=np.float64)
