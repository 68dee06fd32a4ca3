"""How far the loss has fallen below its start: the loss at the first checkpoint minus that at the last.

s_i = ℓ_i,first − ℓ_i,last, ℓ the loss in nats, of a response the mean of its tokens'.

Source: TailSFT, Malladi et al. 2026, arXiv 2608.25756, algorithm 1, with the sign of its margin turned.
Higher: learnt most since the start; below 0 the loss has grown. The paper trains on what is lowest.
Differs: the paper compares with the model before fine-tuning, and leaves the highest of each batch out while it trains;
here the first checkpoint of the representation stands for the start, and rows are selected once.

With one checkpoint all rows are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def score(logprob: NDArray[Any]) -> NDArray[np.float64]:
    """Score rows by logprob [n, e]: float64 [n]."""
    return logprob[:, -1].astype(np.float64) - logprob[:, 0]
