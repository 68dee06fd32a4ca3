"""The highest scores first, skipping every row that is too much like one already kept.

Rows are visited from the highest score, of equal scores the first; a row is kept if its cosine to each kept row is at
most the threshold. Where all rows are visited and the budget is not filled, the skipped ones follow, highest first.
With scores 3, 2, 1 and the first two rows alike, two rows are the first and the third.

Source: DEITA, Liu et al. 2024, arXiv 2312.15685, section 2.4 (score first, diversity aware; threshold 0.9).
Differs: the paper's selection may end with fewer rows than asked for; here the budget is filled.

The paper's score is the product of a complexity and a quality that models give; here it is any score. Of rows of
zeros each is a copy of the other, and their cosine to the rest counts as 0.5. Rows come in the order of keeping, and a
smaller budget is the beginning of a larger one.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from prune_cli.numeric.apart import apart, filled
from prune_cli.numeric.vectors import Checkpoints, vectors


def select(
    score: NDArray[np.float64],
    features: NDArray[Any],
    n_keep: int,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    threshold: Annotated[float, Meta(ge=-1, le=1), "The highest cosine of a row to the kept ones."] = 0.9,
    checkpoints: Checkpoints = "side",
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by score [n] and features [n, e × d]: int64 [n_keep].

    Column `nearest`: the row's highest cosine to those kept before it was visited; none for the first, and for a row
    that was not visited.
    """
    rows = vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=True)
    order = np.argsort(-score, kind="stable")
    taken, distance = apart(rows, order, np.sqrt(2 - 2 * threshold), n_keep)
    return filled(taken, order, n_keep), {"nearest": np.where(np.isinf(distance), np.nan, 1 - distance**2 / 2)}
