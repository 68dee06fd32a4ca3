"""Entropy of the model's prediction at the last checkpoint, in nats.

s_i = −Σ_c p_i(c) log p_i(c), c the labels or choices, or the vocabulary at each token of a response, whose mean counts.

Source: Coleman et al. 2020, arXiv 1906.11829, section 3.2 (the most uncertain by entropy); per token as in Zhang et al.
2025, arXiv 2503.11441.
Higher: the model is less sure of any answer; the gold answer has no say in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def score(entropy: NDArray[Any]) -> NDArray[np.float64]:
    """Score rows by entropy [n, e]: float64 [n], 0 or more."""
    return entropy[:, -1].astype(np.float64)
