"""Words of texts, counted as sparse rows."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"\w+")
# Thai and Lao, Burmese, Khmer with their vowel signs; kana; Han
UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u1000-\u103f\u1780-\u17d3"
    "\u3041-\u3096\u30a1-\u30fa\u30fc-\u30ff\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
SIGNS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0dff"  # accents, points, vowel signs of India
ANY = re.compile(rf"[{UNSPACED}]|(?:[^\W{UNSPACED}]|[{SIGNS}])+")
# for a library that counts: words, each letter of a script without spaces, and runs of signs
WORD_OR_SIGNS = rf"{ANY.pattern}|[^\w\s{SIGNS}{UNSPACED}]+"
# before a number; between words of a line, but for a dash; of C++ and C#
OPERATORS = r"[-−+*/=<>^×÷](?=\s?\d)|(?<=\w )[+*/=<>^×÷](?= \S)|(?<=\w)(?:\+\+|#)"
WORD_OR_OPERATOR, ANY_OR_OPERATOR = (re.compile(f"{pattern.pattern}|{OPERATORS}") for pattern in (WORD, ANY))


def words(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters, digits and underscores.

    Of scripts without spaces (Chinese, Japanese, Thai, Lao, Burmese, Khmer) each letter is a word. An accent is the
    same as a part of its letter and as a sign of its own.
    """
    if text.isascii():
        return WORD.findall(text.lower())
    return ANY.findall(unicodedata.normalize("NFC", text.lower()))


def words_and_operators(text: str) -> list[str]:
    """The words of a text and its operators: 8 - 4 is not 8 + 4, and C++ is not C#."""
    if text.isascii():
        return WORD_OR_OPERATOR.findall(text.lower())
    return ANY_OR_OPERATOR.findall(unicodedata.normalize("NFC", text.lower()))


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
