"""Lexical: how often each n-gram of words stands in a row, hashed to a vector of length one; no model is needed.

An n-gram falls into one of `buckets` by MurmurHash3, which gives it a sign too, so that inner products are those of the
counts in expectation. Source: feature hashing, Weinberger et al. 2009, arXiv 0902.2206. Words and runs of signs count,
in lower case, of all that a row says; of scripts without spaces each letter is a word.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from prune_cli.options import Help
from prune_cli.represent.kinds._shared import DType
from prune_cli.represent.observe import Given, Tensor

TENSORS = {"lexical": Tensor(("k",), None, "hashed counts of n-grams of words, scaled to length one")}
FEATURES = "lexical"
NEEDS: frozenset[str] = frozenset()
AT_ONCE = 1024  # rows that are counted together


@dataclass(frozen=True)
class Options:
    """Options of the kind."""

    ngrams: Annotated[int, Meta(ge=1, le=9), Help("Words of the longest n-grams.")] = 2
    buckets: Annotated[int, Meta(ge=2, le=2**24), Help("Numbers that n-grams are hashed to.")] = 2048
    dtype: DType = "float16"


def write(path: Path, given: Given, opts: Options) -> None:
    """Count the n-grams of each row's words."""
    import numpy as np  # here, as help for the options of this kind needs none of it
    from sklearn.feature_extraction.text import HashingVectorizer

    from prune_cli import tasks
    from prune_cli.artifacts import tensors
    from prune_cli.numeric.words import WORD_OR_SIGNS

    hashed = HashingVectorizer(
        ngram_range=(1, opts.ngrams), n_features=opts.buckets, token_pattern=WORD_OR_SIGNS, norm="l2"
    )
    texts = tasks.texts(given.task, given.rows)
    with tempfile.TemporaryFile() as file:  # the vectors may be larger than memory
        vectors = np.memmap(file, opts.dtype, "w+", shape=(len(given.rows), 1, opts.buckets))
        for start in range(0, len(vectors), AT_ONCE):
            vectors[start : start + AT_ONCE, 0] = hashed.transform(islice(texts, AT_ONCE)).toarray()
        names = [checkpoint.name for checkpoint in given.named.checkpoints][-1:]
        tensors.save(path, {"lexical": vectors}, {"checkpoints": names, "learning_rate": [1.0]})
