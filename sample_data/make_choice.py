"""Rows of multiple choice: a question, two to four choices, and the number of the right one.

The question's form is the row's `group`:

cloze     a gap to be filled: "I sent this kettle back because the lid is _." with "flimsy" and "solid"
verdict   a review, and what its writer may say next: "I would buy it again." with "I sent it back."
best      "Which of these would you buy?", or send back, with short reviews

`kind` says what a row is there for:

easy         plain cues
hard         a review is hard (negated, denied, or a rare word); a gap wants the contrary ("I would buy this kettle
             again, though the lid is _."), or is filled by rare words
redundant    a standing sentence with small changes (train alone)
mislabelled  an easy row with a wrong label (train alone)

No gap, no review and no row stands twice, in one file or in two: only the words that fill a gap, the verdicts and the
questions of `best` do. A choice can be judged without the others, as a model for multiple choice judges it.

The model is that of classification, model/. It has read some of the reviews in these files, those of test too, in its
own training, but no question and no answer but the verdicts.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from jsonl import Row, draw
from world import ADVERBS, GOODS, LABELS, SEED, clause, finish, near_duplicate, pick, sentence, some

ROWS = {  # file -> kind -> rows of each group
    "train": {"easy": 90, "hard": 60, "redundant": 40, "mislabelled": 20},
    "validation": {"easy": 17, "hard": 17},
    "test": {"easy": 50, "hard": 50},
}
GAPS = {
    True: [
        "I would buy this {thing} again because the {part} is {adverb}_",
        "I use this {thing} every day, as the {part} is {adverb}_",
        "I am happy with this {thing} because the {part} feels {adverb}_",
        "this {thing} is worth the money, as I find the {part} {adverb}_",
    ],
    False: [
        "I sent this {thing} back because the {part} is {adverb}_",
        "I want a refund for this {thing}, as the {part} is {adverb}_",
        "I am sorry I chose this {thing} because the {part} feels {adverb}_",
        "this {thing} is a waste of money, as I find the {part} {adverb}_",
    ],
}
BECAUSE = re.compile(" because|, as")  # that "though" in its place turns around
STANDING_GAPS = {
    True: ["my new {thing} is {adverb}good and the {part} is _"],
    False: ["this {thing} broke after a week and the {part} is _"],
}
WHICH = {
    True: ["Which of these would you buy?", "Which of these is worth the money?"],
    False: ["Which of these would you send back?", "Which of these is a waste of money?"],
}


class Asked(NamedTuple):
    """A question with its right answer and one to three wrong ones."""

    question: str
    right: str
    wrong: list[str]


def cloze(rng: Generator, kind: str, n_wrong: int) -> Asked:
    """A gap, for words that praise or do not."""
    good = bool(rng.integers(2))
    turned = kind == "hard" and bool(rng.integers(2))
    gap = pick(rng, (STANDING_GAPS if kind == "redundant" else GAPS)[good])
    if turned:
        gap = BECAUSE.sub(", though", gap)
    gap = gap.format(thing=pick(rng, GOODS.things), part=pick(rng, GOODS.parts), adverb=pick(rng, ADVERBS))
    words = GOODS.rare if kind == "hard" and not turned else GOODS.cue
    return Asked(finish(gap), pick(rng, words[good != turned]), some(rng, words[good == turned], n_wrong))


def verdict(rng: Generator, kind: str, n_wrong: int) -> Asked:
    """A review, for what its writer says next."""
    label = pick(rng, LABELS if kind == "hard" else LABELS[:2])
    review = near_duplicate(rng, label) if kind == "redundant" else sentence(rng, GOODS, label, kind)
    others = [finish(each) for other in LABELS if other != label for each in GOODS.verdicts[other]]
    return Asked(review, finish(pick(rng, GOODS.verdicts[label])), some(rng, others, n_wrong))


def best(rng: Generator, kind: str, n_wrong: int) -> Asked:
    """A wish, for reviews one of which meets it."""
    turned = kind == "hard" and bool(rng.integers(2))
    form = "rare" if kind == "hard" and not turned else "plain"
    reviews = []
    for good in (not turned, *[turned] * n_wrong):
        if kind == "redundant":
            reviews.append(near_duplicate(rng, LABELS[0 if good else 1]))
        else:
            reviews.append(finish(clause(rng, GOODS, good, form)))
    return Asked(pick(rng, WHICH[not turned]), reviews[0], reviews[1:])


GROUPS = {"cloze": cloze, "verdict": verdict, "best": best}


def make_row(rng: Generator, kind: str, group: str) -> Row:
    """A row, its choices in a random order."""
    mislabelled = kind == "mislabelled"
    asked = GROUPS[group](rng, "easy" if mislabelled else kind, int(rng.integers(1, 4)))
    choices = some(rng, [asked.right, *asked.wrong], 1 + len(asked.wrong))
    label = choices.index(pick(rng, asked.wrong) if mislabelled else asked.right)
    return {"question": asked.question, "choices": choices, "label": label, "kind": kind, "group": group}


def said(row: Row) -> list[str]:
    """What of a row must not stand twice."""
    return row["choices"] if row["group"] == "best" else [row["question"]]


def make_rows() -> dict[str, list[Row]]:
    """The rows of each file, by its stem, in a random order."""
    return draw(np.random.default_rng(SEED + 2), ROWS, GROUPS, make_row, said)
