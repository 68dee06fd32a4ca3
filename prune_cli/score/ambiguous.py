"""Variability: the standard deviation of the gold answer's probability over checkpoints.

s_i = √( (1/e) Σ_e (p_ie − p̄_i)² ), the population form.

Source: Swayamdipta et al. 2020, arXiv 2009.10795, section 2, where variability is σ̂_i.
Higher: more ambiguous, the model changes its mind about the example; 0 for all rows with one checkpoint.

The probability of a response is the mean of its tokens' (the rule `prob` of Du et al. 2025, arXiv 2507.03648, after
CHIA). The paper takes probabilities from training epochs; here they are those of the representation's checkpoints.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def score(improbability: NDArray[Any]) -> NDArray[np.float64]:
    """Score rows by improbability [n, e], 1 − p: float64 [n], from 0 to 0.5."""
    return improbability.std(axis=1, dtype=np.float64)
