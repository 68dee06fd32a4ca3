"""One row of each group of near duplicates: rows joined by pairs whose n-grams of words are mostly the same.

Two rows are near duplicates if the Jaccard similarity |A ∩ B| / |A ∪ B| of their sets of n-grams of words is at least
the threshold. Candidates are found by MinHash, in bands of hashes that miss a pair at the threshold with a chance below
1%, and compared by their sets. A group is what such pairs join, and its first row stands for it. The budget is drawn at
random from these and the rows without a near duplicate; where they are too few, the others follow, drawn at random.

Source: NearDup, Lee et al. 2022, arXiv 2107.06499, section 4.2 and appendix A; MinHash is Broder 1997.
Differs: n-grams are of 3 words, not of 5 tokens, as rows are short; a row of fewer words has one n-gram, all of it. A
pair is taken by its similarity itself, where the paper compares candidates by their edit distance.

A word is a run of letters, digits and underscores in lower case, and in scripts without spaces, such as Chinese, a
letter; an operator, as in 8 - 4 and C++, is one too. No representation is needed; `semdedup` leaves out what is near in
one. A smaller budget is the beginning of a larger one with the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from prune_cli.numeric import minhash
from prune_cli.numeric.repeats import tell_kept


def select(
    text: Sequence[str],
    n_keep: int,
    rng: np.random.Generator,
    *,
    threshold: Annotated[float, Meta(ge=0.1, le=1), "Lowest similarity of near duplicates."] = 0.8,
    ngrams: Annotated[int, Meta(ge=1, le=50), "Words of an n-gram."] = 3,
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Select n_keep of n rows by text [n]: int64 [n_keep].

    Column `cluster`: the group of a row, from 0; none for rows without a near duplicate.
    """
    first = minhash.groups(text, ngrams, threshold)
    drawn, repeats = rng.permutation(len(first)), first != np.arange(len(first))
    order = np.lexsort((drawn, repeats))
    tell_kept("near_duplicates", repeats, n_keep)
    several = np.bincount(first, minlength=len(first)) > 1
    cluster = np.where(several, np.cumsum(several) - 1, -1)[first]
    return order[:n_keep], {"cluster": cluster}
