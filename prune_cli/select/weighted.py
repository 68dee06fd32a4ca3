"""Rows drawn at random without replacement, each draw with a chance in proportion to the row's weight.

The weight w_i of a row is its score, or e^(score / temperature). Rows are ranked by log w_i − log E_i, where E_i is
drawn from the exponential distribution: the highest is row i with the chance w_i / Σ w, and so on for the rest. With
weights 1 and 3 the second row is first in three draws of four.

Source: Efraimidis and Spirakis 2006, whose key u^(1/w) has this order; with e^score it is the Gumbel top-k of Kool et
al. 2019, arXiv 1903.06059.
Differs: rows of no weight, of a score of 0 or below with weight=score, are drawn, alike, once all others are.

Rows come in the order of drawing. With the same seed a smaller selection is the beginning of a larger one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray


def select(
    score: NDArray[np.float64],
    n_keep: int,
    rng: np.random.Generator,
    *,
    weight: Annotated[
        Literal["score", "exp"], "What a row's weight is: its score, or e^(score / temperature)."
    ] = "score",
    temperature: Annotated[float, "With weight=exp: the lower, the more the highest scores are drawn."] = 1.0,
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by score [n]: int64 [n_keep]. Column `chance`: that of being the first row drawn."""
    logs = score / temperature
    if weight == "score":
        logs = np.log(score, out=np.full(len(score), -np.inf), where=score > 0)
    noise = -np.log(rng.exponential(size=len(score)))
    order = np.lexsort((-noise, -(logs + noise)))
    weights = np.exp(logs - logs.max()) if np.isfinite(logs.max()) else np.ones(len(score))
    return order[:n_keep], {"chance": weights / weights.sum()}
