"""Weighted sum of several scores, each as ranks or as standard scores.

s_i = Σ_a w_a r_a(i), r_a(i) the rank of row i in score a from 0, lowest, to 1, highest, equals sharing the mean of
theirs; with scale=z (score − mean) / population standard deviation, and 0 where all are equal.

Source: Borda's count (1781) for ranks, and standard scores; no paper's method of selection.
Higher: higher in most of the scores; a negative weight turns a score around.

Give several score artifacts; weights stand in their order.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.correlation import ranks
from prune_cli.numeric.weights import parse_weights


def score(
    scores: NDArray[Any],
    *,
    weights: Annotated[str, "A weight for each score, with commas; empty: all weigh alike."] = "",
    scale: Annotated[Literal["rank", "z"], "Ranks (rank) or standard scores (z)."] = "rank",
) -> NDArray[np.float64]:
    """Score rows by scores [n, s]: float64 [n]."""
    n, s = scores.shape
    by_rank = scale == "rank"
    scaled = [(ranks(column) - 1) / max(n - 1, 1) if by_rank else _standard(column) for column in scores.T]
    return np.asarray(np.stack(scaled, axis=1) @ parse_weights(weights, s))


def _standard(values: NDArray[Any]) -> NDArray[np.float64]:
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 0 else np.zeros(len(values))
