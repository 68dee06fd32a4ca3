"""Correctness: the share of checkpoints at which the model gives the gold answer.

s_i = (1/e) Σ_e [argmax p_ie = y_i]

Source: Swayamdipta et al. 2020, arXiv 2009.10795, section 2.
Higher: easier to learn; 0 where no checkpoint is right.

Of a response it is the mean share of its tokens that the model would have chosen. The paper counts training epochs;
here they are the checkpoints of the representation. Many rows are equal; `confidence` ranks finer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def score(correct: NDArray[Any]) -> NDArray[np.float64]:
    """Score rows by correct [n, e]: float64 [n], from 0 to 1."""
    return correct.mean(axis=1, dtype=np.float64)
