"""A random draw from each of k strata, so that the scores kept are spread as the scores of all rows are.

Rows are ranked by score, equal scores in the order of rows, and the ranks are cut into k strata of the same size, or
nearly. Each gives its share of the budget (largest remainder; of equal remainders at random), drawn uniformly without
replacement. Of 10 rows in 5 strata a budget of 5 takes one of the two lowest, one of the next two, and so on.

Source: proportional stratified sampling: Neyman 1934; Cochran 1977, chapter 5.

Rows come in random order. A smaller budget is not the beginning of a larger one. The selection `ccs` shares the budget
among strata of scores alike instead.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.shares import proportional_shares


def select(
    score: NDArray[np.float64],
    n_keep: int,
    rng: np.random.Generator,
    *,
    k: Annotated[int, "Number of strata, at most that of rows to keep."] = 10,
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by score [n]: int64 [n_keep]. Column `stratum`: from 0, that of the lowest scores."""
    n, k = len(score), min(k, n_keep)
    stratum = np.empty(n, np.int64)
    stratum[np.argsort(score, kind="stable")] = np.arange(n) * k // n
    shares = proportional_shares(np.bincount(stratum, minlength=k), n_keep, rng)
    drawn = [rng.permutation(np.flatnonzero(stratum == j))[: shares[j]] for j in range(k)]
    return rng.permutation(np.concatenate(drawn)), {"stratum": stratum}
