"""Forgetting events: how many times an example goes from right to wrong between two checkpoints.

s_i = Σ_e [right at e − 1 and wrong at e]; the number of checkpoints where it was never right

Source: Toneva et al. 2019, arXiv 1812.05159, section 3, whose never learned examples count as forgotten without end.
Higher: forgotten more often; 0 is unforgettable, and never learned is above all others.
Differs: the paper looks at an example whenever a batch holds it in training; here it is looked at each checkpoint.

A response is right where the model would have chosen more than half of its tokens; the paper has one answer a row.
Many rows are equal, and of equals a selection takes the first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def score(correct: NDArray[Any]) -> NDArray[np.float64]:
    """Score rows by correct [n, e]: float64 [n], from 0 to e."""
    right = correct > 0.5
    events = (right[:, :-1] & ~right[:, 1:]).sum(axis=1)
    return np.where(right.any(axis=1), events, correct.shape[1]).astype(np.float64)
