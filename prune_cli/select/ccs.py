"""Every range of scores alike, the hardest rows left out: strata of scores, each giving the same number of rows.

The share β of the rows that are hardest is cut. The scores of the rest, from the lowest to the highest, are divided
into k ranges of the same width. The budget is shared as k-means clusters share it in S2L: the range with the fewest
rows first, the j-th of k gives what is left divided by k − j + 1, rounded down, or all it has; drawn at random.

Source: CCS, Zheng et al. 2023, arXiv 2210.15809, algorithm 1.
Differs: where the budget is above 1 − β of the rows, β is as small as the budget asks. The paper searches β for each
budget and data set; the default is ours.

A high score is hard, as those of `el2n`, `loss` or `hard_to_learn` are; hard=low for a score such as AUM. Rows come
range by range, that with the fewest first. A smaller budget is not the beginning of a larger one.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from prune_cli.numeric.shares import equal_shares, smallest_first


def select(
    score: NDArray[np.float64],
    n_keep: int,
    rng: np.random.Generator,
    *,
    beta: Annotated[float, Meta(ge=0, lt=1), "Share of the rows, the hardest, that is left out."] = 0.1,
    k: Annotated[int, Meta(ge=1, le=10_000), "Number of ranges of scores."] = 50,
    hard: Annotated[Literal["high", "low"], "Which scores are those of hard rows."] = "high",
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by score [n]: int64 [n_keep].

    Column `stratum`: the row's range of scores, from 0 for the lowest; none for a row that was cut as too hard.
    """
    n = len(score)
    cut = min(math.floor(Decimal(repr(beta)) * n), n - n_keep)
    order = np.argsort(-score if hard == "high" else score, kind="stable")[cut:]
    low, width = score[order].min(), np.ptp(score[order]) / k
    stratum = np.full(n, -1)
    stratum[order] = np.minimum((score[order] - low) / width, k - 1).astype(np.int64) if width > 0 else 0
    sizes = np.bincount(stratum[order], minlength=k)
    visits = smallest_first(sizes, rng)
    shares = equal_shares(sizes, n_keep, visits)
    drawn = [rng.permutation(np.flatnonzero(stratum == j))[: shares[j]] for j in visits]
    return np.concatenate(drawn), {"stratum": stratum}
