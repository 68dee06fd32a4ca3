"""Instruction-following difficulty: the response's loss with its prompt over its loss without, at the last checkpoint.

r_i = log p̄(response | prompt) / log p̄(response), log p̄ the mean log-probability of the response's tokens;
s_i = r_i up to 1, and −r_i above.

Source: Li et al. 2023, arXiv 2308.12032 (the IFD score: conditioned over direct answer score).
Higher: harder to follow; from 0, where the prompt says it all, to 1, where it says nothing; below −1 it misleads.

Differs: where a prompt makes its response less likely the two hardly belong together, and the paper drops the row. Here
no row is dropped: these come after all others, those misled least first; with unhelped_last=false the score is
r_i everywhere. The paper measures the response alone behind the words that its prompt template ends in; here it
is behind the token that begins a text. In their script a response has no end-of-sequence token; the published method
leaves it out (represent --no-count-eos). Theirs are single turns; of a conversation all turns that are trained on
count, in both losses. A later paper by the same group (arXiv 2402.00530) divides perplexities, not losses. A loss
without prompt below float32's resolution counts as that much.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray


def score(
    logprob: NDArray[Any],
    logprob_unprompted: NDArray[Any],
    *,
    unhelped_last: Annotated[bool, "Put rows whose prompt makes the response less likely behind all others."] = True,
) -> NDArray[np.float64]:
    """Score rows by logprob [n, e] with the prompt and logprob_unprompted [n, e] without: float64 [n]."""
    prompted, alone = (-values[:, -1].astype(np.float64) for values in (logprob, logprob_unprompted))
    ratio = prompted / np.maximum(alone, np.finfo(np.float32).eps)
    return np.where(ratio > 1, -ratio, ratio) if unhelped_last else ratio
