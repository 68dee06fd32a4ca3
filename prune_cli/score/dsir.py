"""DSIR: how much likelier a row's n-grams are in the target set than in all rows, with noise for a draw.

s_i = Σ_j c_ij ( log(p_j + ε) − log(q_j + ε) ) + γ_i, c_ij how many n-grams of row i fall into bucket j of a hash, p_j
the bucket's share of the target rows' n-grams, q_j of all rows', ε = 10⁻⁸, γ_i Gumbel noise. The highest k scores are a
draw of k rows without replacement, with chances in proportion to the importance weights. noise=false leaves γ_i out.

Source: DSIR, Xie et al. 2023, arXiv 2302.03169, sections 3 and 4; ε from its authors' package (data-selection 1.0.3).
Higher: more like the target set.
Differs: the hash is MurmurHash3, not SHA-256. Their package drops rows of fewer than 100 words; here none is dropped.

n-grams are of words and runs of signs, in lower case, of all lengths up to `ngrams`; of scripts without spaces each
letter is a word. Weights are sums over a row's n-grams, so that long rows have larger ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from prune_cli.numeric.words import WORD_OR_SIGNS

AT_ONCE = 4096  # texts whose n-grams are counted together
EPSILON = 1e-8


def score(
    text: Sequence[str],
    target_text: Sequence[str],
    rng: np.random.Generator,
    *,
    ngrams: Annotated[int, "Words of the longest n-grams."] = 2,
    buckets: Annotated[int, Meta(ge=2, le=2**24), "Buckets that n-grams are hashed into."] = 10_000,
    noise: Annotated[bool, "Add Gumbel noise, so that the best are a weighted draw."] = True,
) -> NDArray[np.float64]:
    """Score rows by text [n] against target_text [m]: float64 [n]."""
    from sklearn.feature_extraction.text import HashingVectorizer  # here, as most scores need none of it

    hashed = HashingVectorizer(
        ngram_range=(1, ngrams),
        n_features=buckets,
        token_pattern=WORD_OR_SIGNS,
        alternate_sign=False,
        norm=None,
        dtype=np.float64,
    )
    difference = np.log(_shares(hashed, target_text) + EPSILON) - np.log(_shares(hashed, text) + EPSILON)
    weights = np.concatenate([counts @ difference for counts in _counts(hashed, text)])
    return weights + rng.gumbel(size=len(weights)) if noise else weights


def _counts(hashed: Any, texts: Sequence[str]) -> Iterator[Any]:
    """The counts of some texts at a time, sparse [b, buckets]."""
    for start in range(0, len(texts), AT_ONCE):
        yield hashed.transform(texts[start : start + AT_ONCE])


def _shares(hashed: Any, texts: Sequence[str]) -> NDArray[np.float64]:
    """Each bucket's share of the n-grams of texts; zeros where there is none."""
    total = np.zeros(hashed.n_features)
    for counts in _counts(hashed, texts):
        total += np.asarray(counts.sum(axis=0)).ravel()
    return total / max(total.sum(), 1)
