"""Rows drawn uniformly without replacement: the baseline that any method has to beat.

They come in the order of drawing. With the same seed a smaller selection is the beginning of a larger one.

Source: simple random sampling.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def select(n: int, n_keep: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Select n_keep of n rows: int64 [n_keep]."""
    return rng.permutation(n)[:n_keep]
