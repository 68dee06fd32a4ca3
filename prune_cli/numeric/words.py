"""Words of texts, counted as sparse rows."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters, digits and underscores."""
    return WORD.findall(text.lower())


def vocabulary(texts: Sequence[str]) -> dict[str, int]:
    """The different words of texts, numbered by when each is first seen."""
    known: dict[str, int] = {}
    for text in texts:
        for word in words(text):
            known.setdefault(word, len(known))
    return known


def counts(texts: Sequence[str], known: Mapping[str, int]) -> tuple[Any, NDArray[np.float64]]:
    """How often each text has each known word, sparse [n, words]; how many words of any kind it has [n]."""
    from scipy.sparse import csr_array  # here, as most scores need none of it

    columns, ends, lengths = array("q"), array("q", [0]), array("d")
    for text in texts:
        said = words(text)
        columns.extend(known[word] for word in said if word in known)
        ends.append(len(columns))
        lengths.append(len(said))
    shape = (len(texts), len(known))
    found = csr_array((np.ones(len(columns)), np.asarray(columns), np.asarray(ends)), shape=shape)
    found.sum_duplicates()
    return found, np.asarray(lengths)
