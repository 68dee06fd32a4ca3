"""Area under the margin: the gold logit minus the largest other logit, averaged over checkpoints.

s_i = (1/e) Σ_e ( z_ie[y_i] − max_{c ≠ y_i} z_ie[c] )

Source: AUM, Pleiss et al. 2020, arXiv 2001.10528, section 3.1.
Higher: easier; mislabelled examples are the lowest, often below 0.
Differs: the paper removes what lies below a threshold that it learns from rows with a label made up for them; here a
budget says how many are kept. It averages over training epochs up to the first drop of the learning rate; here it is
over the checkpoints of the representation.

The margin of a response is the mean of its tokens'.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def score(margin: NDArray[Any]) -> NDArray[np.float64]:
    """Score rows by margin [n, e]: float64 [n]."""
    return margin.mean(axis=1, dtype=np.float64)
