"""Confidence: the mean probability of the gold answer over checkpoints.

s_i = (1/e) Σ_e p_ie

Source: Swayamdipta et al. 2020, arXiv 2009.10795, section 2, where confidence is μ̂_i.
Higher: easier to learn; mislabelled examples are among the lowest.

It is one minus `hard_to_learn`, with the same notes on responses and checkpoints.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def score(improbability: NDArray[Any]) -> NDArray[np.float64]:
    """Score rows by improbability [n, e], 1 − p: float64 [n], from 0 to 1."""
    return 1 - improbability.mean(axis=1, dtype=np.float64)
