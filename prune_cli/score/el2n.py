"""EL2N: the length of the error vector, averaged over checkpoints.

s_i = (1/e) Σ_e ‖p_ie − onehot(y_i)‖₂, p the vector of class probabilities.

Source: Paul et al. 2021, arXiv 2107.07075, section 2.
Higher: harder; from 0, sure and right, to √2, sure and wrong.

The paper averages over independent trainings, early in each; here the average is over the checkpoints of one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def score(el2n: NDArray[Any]) -> NDArray[np.float64]:
    """Score rows by el2n [n, e]: float64 [n]."""
    return el2n.mean(axis=1, dtype=np.float64)
