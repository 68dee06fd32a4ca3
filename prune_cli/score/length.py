"""Number of characters of the text that a row trains on: of the assistant's turns, or of all the row's text.

Source: Zhao et al. 2024, arXiv 2402.04833 (the rows with the longest responses).
Higher: longer.
Differs: the paper counts the tokens of its model's tokenizer; characters need no model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def score(response: Sequence[str]) -> NDArray[np.float64]:
    """Score rows by the texts that they train on: float64 [n]."""
    return np.fromiter(map(len, response), np.float64, len(response))
