"""Rows that stand in a test set: word for word, or most of whose n-grams one of its rows has.

Words are runs of letters, digits and underscores in lower case; of scripts without spaces, such as Chinese, letters;
and the operators of numbers and names, as in 8 - 4 and C++. A row and a test row are the same if all words are, or
those of their prompts, or if of the 8-grams of words that the one with fewer has more than half are the other's too. So
a test row within a long row counts, and a row within a long test row. A text with fewer than 8 words has no 8-gram, and
only all of its words count. What stands in more than 10 test rows, an 8-gram or a prompt, is a form of words and counts
for nothing; but a whole text does.

Source: 8-grams of words as in PaLM, Chowdhery et al. 2022, arXiv 2204.02311, section 8, and more than half as in Tülu
3, Lambert et al. 2024, arXiv 2411.15124, section 3.2; that what is frequent counts for nothing as in GPT-3, Brown et
al. 2020, arXiv 2005.14165, appendix C.
Differs: each of these asks how much of a test row stands in the training rows, PaLM for 70%; here it is two rows that
are compared, and that of fewer n-grams has to be covered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prune_cli.data.rows import Rows
from prune_cli.numeric.ngrams import Hashes, hashed_words, ngrams, wholes
from prune_cli.tasks import Task, text_and_prompt

N = 8  # words of an n-gram
COMMON = 10  # test rows that may have an n-gram or a prompt
AT_ONCE = 4096  # rows that are compared together

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Match:
    """A row, the test row that it is most like, which of the test sets that is in, and why they are the same."""

    row: int
    test: int
    test_row: int
    why: str


@dataclass(frozen=True)
class _Texts:
    """Texts and prompts of rows: whose each is, which are prompts, hashes of the whole, of all n-grams, and their text.

    Each n-gram of a text stands here once, in order of text.
    """

    owner: Positions
    prompt: NDArray[np.bool_]
    whole: Hashes
    grams: Hashes
    text: Positions


def find(task: Task, rows: Rows, tests: Sequence[Rows | tuple[Rows, Positions]]) -> list[Match]:
    """The rows that stand in one of the test sets, in their order, each with the test row that it is most like.

    tests: rows, or rows of which only those at some positions are the test set.
    """
    index = _Index([_texts(task, *(test if isinstance(test, tuple) else (test,))) for test in tests])
    return [match for some in _blocks(rows) for match in index.matches(_texts(task, rows, some))]


def told(found: Sequence[Match], tests: Sequence[str], n: int) -> list[str]:
    """How many of n rows stand in which test set, in words; nothing where none does."""
    counts = Counter(match.test for match in found)
    by_test = ", ".join(f"{tests[j]} {counts[j]:,}" for j in sorted(counts))
    return [f"{len(found):,} of {n:,} rows stand in a test set and may not be kept: {by_test}"] if found else []


def _blocks(rows: Rows) -> Iterator[range]:
    return (range(i, min(i + AT_ONCE, len(rows))) for i in range(0, len(rows), AT_ONCE))


def _texts(task: Task, rows: Rows, some: range | Positions | None = None) -> _Texts:
    some = range(len(rows)) if some is None else some
    read = rows[some.start : some.stop] if isinstance(some, range) else (rows[i] for i in some.tolist())
    owner: list[int] = []
    prompts: list[bool] = []

    def each() -> Iterator[str]:
        for i, row in zip(some, read, strict=True):
            for prompt, text in enumerate(text_and_prompt(task, rows, row)):
                owner.append(i)
                prompts.append(prompt > 0)
                yield text

    hashes, ends = hashed_words(each())
    grams, text = ngrams(hashes, ends, N)
    order = np.lexsort((grams, text))
    grams, text = grams[order], text[order]
    first = np.ones(len(grams), np.bool_)
    first[1:] = (grams[1:] != grams[:-1]) | (text[1:] != text[:-1])
    return _Texts(np.array(owner), np.array(prompts), wholes(hashes, ends), grams[first], text[first])


class _Index:
    """The texts of all test rows, by what they hold."""

    def __init__(self, tests: Sequence[_Texts]) -> None:
        """Sort hashes, and leave out those that stand in many test rows."""
        starts = np.cumsum([0, *(len(test.owner) for test in tests)])
        rows = np.cumsum([0, *(int(test.owner.max()) + 1 for test in tests)])
        self.first = rows  # of each test set, among the rows of all
        self.owner = np.concatenate([test.owner + first for test, first in zip(tests, rows, strict=False)])
        text = np.concatenate([test.text + first for test, first in zip(tests, starts, strict=False)])
        prompt = np.concatenate([test.prompt for test in tests])
        self.wholes, self.whole_text, _ = _sorted(
            np.concatenate([test.whole for test in tests]), np.arange(len(self.owner)), self.owner, prompt
        )
        self.grams, self.text, self.common = _sorted(np.concatenate([test.grams for test in tests]), text, self.owner)
        self.size = np.bincount(self.text, minlength=len(self.owner))

    def matches(self, given: _Texts) -> Iterator[Match]:
        """The rows of some texts that match."""
        found: dict[int, tuple[float, int, str]] = {}  # row -> how alike, test row, why

        def add(texts: Positions, others: Positions, alike: NDArray[np.float64], why: Sequence[str]) -> None:
            pairs = zip(given.owner[texts].tolist(), self.owner[others].tolist(), alike.tolist(), why, strict=True)
            for row, test, much, reason in pairs:
                if row not in found or (-much, test) < (-found[row][0], found[row][1]):
                    found[row] = (much, test, reason)

        same, other = _joined(given.whole, self.wholes, self.whole_text)
        words = np.where(given.prompt[same], "the prompt's words are the same", "all words are the same").tolist()
        add(same, other, np.full(len(same), 2.0), words)
        plain = ~np.isin(given.grams, self.common)
        grams, text = given.grams[plain], given.text[plain]
        size = np.bincount(text, minlength=len(given.owner))
        at, other = _joined(grams, self.grams, self.text)
        pair, shared = np.unique(text[at] * len(self.owner) + other, return_counts=True)
        mine, theirs = np.divmod(pair, len(self.owner))
        fewer = np.minimum(size[mine], self.size[theirs])
        most = 2 * shared > fewer
        reasons = [f"{k} of {m} {N}-grams are shared" for k, m in zip(shared[most], fewer[most], strict=True)]
        add(mine[most], theirs[most], shared[most] / fewer[most], reasons)
        for row in sorted(found):
            _, test, why = found[row]
            j = int(np.searchsorted(self.first, test, "right")) - 1
            yield Match(row, j, test - int(self.first[j]), why)


def _sorted(
    hashes: Hashes, text: Positions, owner: Positions, judged: NDArray[np.bool_] | None = None
) -> tuple[Hashes, Positions, Hashes]:
    """Hashes in order with the text of each, but for the common ones; and these. judged: which may be common."""
    order = np.lexsort((owner[text], hashes))
    hashes, text = hashes[order], text[order]
    of = owner[text]
    other_hash = np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)]
    other_row = other_hash | np.append(True, of[1:] != of[:-1])[: len(hashes)]
    group = np.cumsum(other_hash) - 1
    common = np.bincount(group[other_row], minlength=1)[group] > COMMON
    if judged is not None:
        common &= judged[text]
    return hashes[~common], text[~common], np.unique(hashes[common])


def _joined(hashes: Hashes, keys: Hashes, text: Positions) -> tuple[Positions, Positions]:
    """Where each hash stands among sorted keys, as pairs: the position of the hash, and the text of the key."""
    first, last = np.searchsorted(keys, hashes), np.searchsorted(keys, hashes, "right")
    count = last - first
    at = np.repeat(np.arange(len(hashes)), count)
    offset = np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count)
    return at, text[np.repeat(first, count) + offset]
