"""Loss at the last checkpoint, in nats.

s_i = −log p_i, p the probability of the gold answer at the last checkpoint.

Source: the training loss itself; no paper's method.
Higher: the model is less sure of the gold answer, so the example is harder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def score(logprob: NDArray[Any]) -> NDArray[np.float64]:
    """Score rows by logprob [n, e]: float64 [n], 0 or more."""
    return -logprob[:, -1].astype(np.float64)
