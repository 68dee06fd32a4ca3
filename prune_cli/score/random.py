"""A number drawn uniformly from [0, 1) for each row: the baseline that any other score has to beat.

Source: simple random sampling.
Higher: nothing; a high score is chance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def score(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Score n rows: float64 [n]."""
    return rng.random(n)
