"""Perplexity of the response at the last checkpoint.

s_i = exp(−log p̄_i), log p̄ the mean log-probability of the response's tokens (nats).

Source: Marion et al. 2023, arXiv 2309.04564 (perplexity as a pruning metric, whose middle is kept).
Higher: less expected by the model; 1 where it is sure of every token.

The paper measures whole documents of pretraining data with a model trained on other data; here it is the
response given its prompt, by whatever model the rows were represented with. Where the gold answer is one of
several (classification, choice) it is one over its probability.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def score(logprob: NDArray[Any]) -> NDArray[np.float64]:
    """Score rows by logprob [n, e]: float64 [n], 1 or more; infinite below a logprob of −709."""
    with np.errstate(over="ignore"):  # the stage refuses a score that is not finite
        return np.exp(-logprob[:, -1].astype(np.float64))
