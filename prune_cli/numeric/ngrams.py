"""Words and n-grams of texts as 64-bit hashes, the same in every run."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.words import words_and_operators

Hashes = NDArray[np.uint64]
LONGEST = 60  # bytes of a word that is a number itself
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hashed_words(texts: Iterable[str]) -> tuple[Hashes, NDArray[np.int64]]:
    """A hash of each word of n texts, one text after another, and where each text begins and the last ends [n + 1].

    Operators are words, and a text without a word counts as one.
    """
    hashes, ends = array("q"), array("q", [0])
    for text in texts:
        # Python's hash of a whole number is the number modulo 2⁶¹ − 1, the same in every run
        hashes.extend(map(hash, map(_number, words_and_operators(text) or [text])))
        ends.append(len(hashes))
    return mixed(np.asarray(hashes, np.uint64)), np.asarray(ends, np.int64)


def ngrams(hashes: Hashes, ends: NDArray[np.int64], n: int) -> tuple[Hashes, NDArray[np.int64]]:
    """The n-grams of words within each text, and the text that each stands in; a shorter text has none."""
    text = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    grams = hashes
    for k in range(1, n):
        grams = grams[:-1] * GOLDEN + hashes[k:]
    size = max(0, len(text) - n + 1)
    inside = text[:size] == text[len(text) - size :]
    return mixed(grams[:size][inside]), text[:size][inside]


def wholes(hashes: Hashes, ends: NDArray[np.int64]) -> Hashes:
    """A hash of all words of each text in their order [n]."""
    place = np.arange(len(hashes)) - np.repeat(ends[:-1], np.diff(ends))
    return np.asarray(np.add.reduceat(mixed(hashes + place.astype(np.uint64) * GOLDEN), ends[:-1]))


def mixed(x: Hashes) -> Hashes:
    """Each number as another that looks random: the last steps of SplitMix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _number(word: str) -> int:
    """A word's bytes as a whole number; of a long one, where bytes 61 places apart could change places, a digest's."""
    text = word.encode("utf-8", "surrogatepass")
    return int.from_bytes(b"\1" + text if len(text) <= LONGEST else blake2b(text, digest_size=16).digest())
