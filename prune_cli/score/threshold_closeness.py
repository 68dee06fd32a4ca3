"""Threshold closeness: how near the mean probability of the gold answer over checkpoints is to one half.

s_i = p̄_i (1 − p̄_i), p̄_i = (1/e) Σ_e p_ie

Source: Chang et al. 2017, arXiv 1704.07433, section 3.3 (SGD-STC, without its smoothing constant).
Higher: nearer to the decision threshold; ¼ where the mean is one half.

The probability of a response is the mean of its tokens'. The paper takes the mean over the batches of training so far;
here it is over the checkpoints of the representation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def score(improbability: NDArray[Any]) -> NDArray[np.float64]:
    """Score rows by improbability [n, e], 1 − p: float64 [n], from 0 to ¼."""
    mean = improbability.mean(axis=1, dtype=np.float64)
    return mean * (1 - mean)
