"""UPD: how hard the gold answer is where the model is sure, by tokens, at the last checkpoint.

s_i = mean over the response's tokens t of σ(ℓ_t) max(0, 1 − H_t / log v), σ the sigmoid, ℓ_t the loss of a token, H_t
the entropy of the prediction there, v the size of the vocabulary.

Source: D3, Zhang et al. 2025, arXiv 2503.11441 (uncertainty-based prediction difficulty).
Higher: harder, and not because many answers would do; from 0 to 1.
Differs: D3 selects by it together with diversity and a judge's marks, in rounds; here it is a score by itself.

Of a label or a choice there is one token, with the labels or the row's choices for a vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def score(upd: NDArray[Any]) -> NDArray[np.float64]:
    """Score rows by upd [n, e]: float64 [n], from 0 to 1."""
    return upd[:, -1].astype(np.float64)
