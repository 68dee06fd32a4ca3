"""Weights as an option holds them: numbers with commas."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from prune_cli.errors import PruneError


def parse_weights(text: str, count: int) -> NDArray[np.float64]:
    """The weights in a text [count]; 1 / count each where it is empty. PruneError for any other number of them."""
    if not text:
        return np.full(count, 1 / count)
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        weights = []
    if len(weights) != count or not all(map(math.isfinite, weights)) or not any(weights):
        raise PruneError(f"weights: {text}; allowed: {count} numbers with commas, one a score, not all 0")
    return np.array(weights)
