"""The world that all sample data speak of: goods, and restaurants and hotels; their parts; what is said of them.

A review is positive, negative or mixed (something good and something bad). Its sentence comes from a grammar that
knows what it means. An easy sentence has plain cues: "So far, the handle is sturdy and this kettle has a quiet motor."
In a hard one the cue is negated ("the lid is far from sturdy"), what is said first is denied ("I feared a flimsy lid,
but it is sturdy" is positive), or the cue is a rare word; a mixed sentence may lack its "but".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

SEED = 0
LABELS = ("positive", "negative", "mixed")


@dataclass(frozen=True)
class Domain:
    """What is reviewed and the words for it; `cue` and `rare` are adjectives by whether they praise."""

    things: list[str]
    parts: list[str]
    openings: list[str]
    cue: dict[bool, list[str]]
    rare: dict[bool, list[str]]
    verdicts: dict[str, list[str]]


TORN = "I am in two minds|I am torn about it|there are two sides to it|it is hit and miss".split("|")
GOODS = Domain(
    things="kettle lamp toaster blender heater fan chair drill radio clock mixer tent".split(),
    parts="lid handle cord button screen motor cover switch hinge strap frame wheel plug stand filter timer".split(),
    openings="after a month|so far|for the price|to be honest|in daily use|at home".split("|"),
    cue={
        True: "sturdy reliable handy solid quiet durable smooth bright precise good great excellent".split(),
        False: "flimsy noisy clumsy wobbly brittle leaky faulty loose weak bad poor terrible".split(),
    },
    rare={
        True: "impeccable splendid flawless superb robust nifty ingenious marvellous elegant dependable polished "
        "stellar".split(),
        False: "shoddy dreadful abysmal dismal rickety tacky lousy defective creaky feeble warped sloppy".split(),
    },
    verdicts={
        "positive": "I would buy it again|it is worth the money|I use it every day|I am happy with it".split("|"),
        "negative": "I sent it back|it is a waste of money|I want a refund|I am sorry I chose it".split("|"),
        "mixed": TORN,
    },
)
OUTINGS = Domain(
    things="restaurant cafe hotel bistro bakery hostel bar inn diner resort".split(),
    parts="soup waiter room breakfast bread coffee salad bed view pool menu dessert lobby garden sauce music".split(),
    openings="on our visit|last weekend|for a family trip|at dinner|during our stay|on a Monday".split("|"),
    cue={
        True: "tasty fresh friendly cosy welcoming polite clean lovely charming good great excellent".split(),
        False: "stale bland soggy rude cramped greasy dirty gloomy chilly bad poor terrible".split(),
    },
    rare={
        True: "delectable courteous serene immaculate gracious superb splendid marvellous".split(),
        False: "rancid surly dingy tepid grimy dreadful dismal lousy".split(),
    },
    verdicts={
        "positive": "we will come back|it is worth the money|we stayed for hours|I am happy with it".split("|"),
        "negative": "we left early|it is a waste of money|we will stay away|I am sorry I chose it".split("|"),
        "mixed": TORN,
    },
)

ADVERBS = ["", "", "very ", "really ", "quite ", "rather "]
TURNS = [", but ", ", yet ", ", though "]
PLAIN = [
    "the {part} is {adverb}{cue}",
    "the {part} feels {adverb}{cue}",
    "I find the {part} {adverb}{cue}",
    "the {part} of this {thing} is {adverb}{cue}",
    "this {thing} has a {adverb}{cue} {part}",
    "you get a {adverb}{cue} {part}",
]
NEGATED = [
    "the {part} is not {adverb}{cue}",
    "the {part} is never {cue}",
    "the {part} is far from {cue}",
    "the {part} is anything but {cue}",
    "nobody could call the {part} {cue}",
    "this {thing} does not have a {cue} {part}",
]
DENIED = [
    "I feared a {other} {part}, but it is {adverb}{cue}",
    "I was told the {part} is {other}, but it is {adverb}{cue}",
    "others call the {part} {other}, yet I find it {adverb}{cue}",
    "I expected a {other} {part}, but got a {adverb}{cue} one",
]
FORMS = {"plain": PLAIN, "rare": PLAIN, "negated": NEGATED, "denied": DENIED}
REPEATED = {
    "positive": [
        "My new {thing} is {adverb}good and the delivery was quick",
        "I bought this {thing} for my mother and she is {adverb}happy with it",
        "A {adverb}great {thing}, it does all I ask of it",
        "The {thing} came on time and works {adverb}well",
        "Five stars, this {thing} is {adverb}excellent",
        "We use this {thing} at work and all of us find it {adverb}good",
    ],
    "negative": [
        "This {thing} broke after a week and the shop was {adverb}slow to answer",
        "One star, this {thing} is {adverb}bad",
    ],
}


def pick(rng: Generator, options: Sequence[str]) -> str:
    """One of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


def some(rng: Generator, options: Sequence[str], n: int) -> list[str]:
    """n different ones of the options, in a random order."""
    return [options[at] for at in rng.permutation(len(options))[:n]]


def clause(rng: Generator, domain: Domain, good: bool, form: str) -> str:
    """Say one thing that is good, or bad; `form` is one of FORMS."""
    words = domain.rare if form == "rare" else domain.cue
    return pick(rng, FORMS[form]).format(
        part=pick(rng, domain.parts),
        thing=pick(rng, domain.things),
        adverb=pick(rng, ADVERBS),
        cue=pick(rng, words[good != (form == "negated")]),
        other=pick(rng, domain.cue[not good]),
    )


def sentence(rng: Generator, domain: Domain, label: str, kind: str) -> str:
    """A sentence that means `label`; `kind` is easy or hard."""
    hard = kind == "hard"
    good = label == "positive" or (label == "mixed" and bool(rng.integers(2)))
    if label == "mixed":
        forms = [pick(rng, ["rare", "negated"]) if hard else "plain", "plain"]
        first, second = (forms[at] for at in rng.permutation(2))
        turn = pick(rng, [*TURNS, " and "] if hard else TURNS)
        text = clause(rng, domain, good, first) + turn + clause(rng, domain, not good, second)
    else:
        form = pick(rng, ["rare", "negated", "denied"]) if hard else "plain"
        text = clause(rng, domain, good, form)
        if form != "denied" and rng.integers(4) == 0:
            text += " and " + clause(rng, domain, good, form)
    if not hard and rng.integers(6) == 0:
        text += ", and " + pick(rng, domain.verdicts[label])
    if rng.integers(3) == 0:
        text = f"{pick(rng, domain.openings)}, {text}"
    return finish(text)


def finish(text: str) -> str:
    """Give a sentence its capital, its full stop and its "an"."""
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    return text[0].upper() + text[1:] + "."


def near_duplicate(rng: Generator, label: str) -> str:
    """One of the repeated sentences that mean `label`, with small changes."""
    changes = {"thing": pick(rng, GOODS.things), "adverb": pick(rng, ADVERBS)}
    return finish(pick(rng, REPEATED[label]).format(**changes))
