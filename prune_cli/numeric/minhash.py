"""Groups of near duplicates: rows whose sets of n-grams have a high Jaccard similarity |A ∩ B| / |A ∪ B|.

Of a set the least of its members under a random hash is that of another set with a chance of their similarity. r such
hashes make a band, and rows that are equal in one of b bands are candidates, with a chance of 1 − (1 − s^r)^b. Of
candidates the similarity itself is computed, so that no pair below the threshold is taken; above it a pair is missed
with a chance of at most MISSED.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.ngrams import GOLDEN, Hashes, hashed_words, mixed, ngrams, wholes

HASHES = 64  # most hashes of a set
MISSED = 0.01  # highest chance of missing a pair at the threshold
SETS = 2**13  # that are hashed together
PAIRS = 2**16  # that are compared together
SHIFT = np.uint64(20)  # leaves room for the number of a pair above a hash

Positions = NDArray[np.int64]


def groups(texts: Iterable[str], n: int, threshold: float) -> Positions:
    """The group of each text, as the position of its first one: texts joined by pairs that are alike."""
    values, ends = shingles(texts, n)
    _, first, same = np.unique(wholes(values, ends), return_index=True, return_inverse=True)
    order = np.argsort(first)  # different sets, as they come
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    sets = _Sets(values, ends, first[order])
    parent = np.arange(len(order))
    for keys in _bands(sets, threshold):
        _join(sets, keys, threshold, parent)
    return np.asarray(first[order][_roots(parent, np.arange(len(order)))][rank[same]])


def shingles(texts: Iterable[str], n: int) -> tuple[Hashes, Positions]:
    """The different n-grams of words of each text, in order, and where those of each begin and the last end.

    A text with fewer words has one, all of it.
    """
    hashes, ends = hashed_words(texts)
    grams, text = ngrams(hashes, ends, n)
    short = np.flatnonzero(np.diff(ends) < n)
    grams, text = np.append(grams, wholes(hashes, ends)[short]), np.append(text, short)
    order = np.lexsort((grams, text))
    grams, text = grams[order], text[order]
    new = np.append(True, (grams[1:] != grams[:-1]) | (text[1:] != text[:-1]))
    return grams[new], np.append(0, np.cumsum(np.bincount(text[new])))


def bands(threshold: float) -> tuple[int, int]:
    """How many bands, and how many hashes each: as many of these as miss few pairs at the threshold."""
    fit = [r for r in range(1, HASHES + 1) if (1 - threshold**r) ** (HASHES // r) <= MISSED]
    r = max(fit, default=1)
    return HASHES // r, r


class _Sets:
    """Some of many sets, one after another."""

    def __init__(self, values: Hashes, ends: Positions, chosen: Positions) -> None:
        self.values, self.starts, self.sizes = values, ends[chosen], np.diff(ends)[chosen]

    def members(self, some: Positions) -> tuple[Hashes, Positions]:
        """The members of some sets, and to which of these each belongs."""
        sizes = self.sizes[some]
        of = np.repeat(np.arange(len(some)), sizes)
        within = np.arange(len(of)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self.values[np.repeat(self.starts[some], sizes) + within], of

    def alike(self, a: Positions, b: Positions) -> NDArray[np.float64]:
        """The Jaccard similarity of pairs of sets."""
        found = np.empty(len(a))
        for start in range(0, len(a), PAIRS):
            some = slice(start, start + PAIRS)
            (mine, of), (theirs, other) = self.members(a[some]), self.members(b[some])
            keys = [p.astype(np.uint64) << np.uint64(44) | v >> SHIFT for v, p in ((mine, of), (theirs, other))]
            at = np.minimum(np.searchsorted(keys[1], keys[0]), len(keys[1]) - 1)
            shared = np.bincount(of[keys[1][at] == keys[0]], minlength=len(a[some]))
            found[some] = shared / (self.sizes[a[some]] + self.sizes[b[some]] - shared)
        return found


def _bands(sets: _Sets, threshold: float) -> Iterable[Hashes]:
    """For each band a key of each set."""
    count, each = bands(threshold)
    salts = mixed(np.arange(1, 2 * count * each + 1, dtype=np.uint64) * GOLDEN).reshape(count, each, 2)
    for band in salts:
        keys = np.zeros(len(sets.sizes), np.uint64)
        for start in range(0, len(keys), SETS):
            some = np.arange(start, min(start + SETS, len(keys)))
            values, of = sets.members(some)
            begins = np.flatnonzero(np.append(True, of[1:] != of[:-1]))
            for factor, shift in band:
                least = np.minimum.reduceat(values * (factor | np.uint64(1)) + shift, begins)
                keys[some] = mixed(keys[some] * GOLDEN + least)
        yield keys


def _join(sets: _Sets, keys: Hashes, threshold: float, parent: Positions) -> None:
    """Join the sets of one key that are alike, step by step: each with the next, the one after it, and so on.

    Pairs that are in one group already are passed over, and keys whose sets all are.
    """
    member = np.argsort(keys, kind="stable")
    bucket = np.cumsum(np.append(False, keys[member][1:] != keys[member][:-1]))
    step = 1
    while True:
        root = _roots(parent, member)
        begins = np.flatnonzero(np.append(True, bucket[1:] != bucket[:-1])[: len(bucket)])
        sizes = np.diff(np.append(begins, len(bucket)))
        mixed_up = np.add.reduceat(root != np.repeat(root[begins], sizes), begins) > 0 if len(begins) else begins > 0
        left = np.repeat(mixed_up & (sizes > step), sizes)
        member, bucket, root = member[left], bucket[left], root[left]
        if not len(member):
            return
        pairs = np.flatnonzero((bucket[step:] == bucket[:-step]) & (root[step:] != root[:-step]))
        a, b = member[pairs], member[pairs + step]
        sizes_a, sizes_b = sets.sizes[a], sets.sizes[b]
        possible = np.minimum(sizes_a, sizes_b) >= threshold * np.maximum(sizes_a, sizes_b)
        a, b = a[possible], b[possible]
        close = sets.alike(a, b) >= threshold
        _unite(parent, a[close], b[close])
        step += 1


def _roots(parent: Positions, some: Positions) -> Positions:
    """The first of the group of each."""
    root = parent[some]
    while not np.array_equal(further := parent[root], root):
        root = further
    parent[some] = root
    return root


def _unite(parent: Positions, a: Positions, b: Positions) -> None:
    """Join groups by pairs."""
    while len(a):
        x, y = _roots(parent, a), _roots(parent, b)
        apart = x != y
        a, b, x, y = a[apart], b[apart], x[apart], y[apart]
        parent[np.maximum(x, y)] = np.minimum(x, y)
