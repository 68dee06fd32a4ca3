"""How near a generated text is to its reference: ROUGE, exact match, the last number. This file is not a task."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import numpy as np

_ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]+)?|(?<!\w)\.[0-9]+)"
_LATEX = rf"\\[dt]?frac\s*\{{\s*(-?{_DECIMAL})\s*\}}\s*\{{\s*({_DECIMAL})\s*\}}"
# one way to write a number after the other, what holds others first
_NUMBER = re.compile(
    rf"(?P<minus>(?<![\w)])-)?(?:\\?\$\s?(?P<after>-)?)?(?:"
    rf"(?P<latex>{_LATEX})"
    rf"|(?P<colons>[0-9]+(?::[0-9]+)+)"
    rf"|(?P<whole>[0-9]+)[ \u00a0](?P<part>[0-9]+/[0-9]+)(?![\w/])"
    rf"|(?P<over>{_DECIMAL})\s?/\s?(?P<under>{_DECIMAL})(?![\w/])"
    rf"|(?P<base>{_DECIMAL})\s?\^\s?\{{?(?P<to>-?[0-9]{{1,3}})(?![0-9])\}}?"
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<exponent>[+-]?[0-9]{{1,3}})(?!\w)"
    rf"|\s?(?:\*|\\times|×|\\cdot)\s?10\s?\^\s?\{{?(?P<power>-?[0-9]{{1,3}})(?![0-9])\}}?)?)"
)
_SIGNS = {
    **dict.fromkeys(map(ord, "\u2212\u2013\ufe63\uff0d"), "-"),
    **{ord(sign): f" {unicodedata.normalize('NFKC', sign)}".replace("\u2044", "/") for sign in "¼½¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"},
}
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def text_scores(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Scores of pairs of reference and prediction, means over the pairs; higher is better.

    `rouge1`, `rouge2`, `rougeL` and `rougeLsum` are F1 (Lin 2004, ACL W04-1013; words are stemmed, and only those of
    the Latin alphabet count, as in the library rouge-score). rougeLsum takes each line for a sentence. `exact_match` is
    the share of predictions that equal the reference, white space around it aside; `exact_match_normalized` the same
    after `normalized`. `last_number` is the share of predictions that end with the same number as their reference,
    among those whose reference has a number; it is left out where none has.
    """
    by_pair = rouge(pairs)
    scores = {name: float(np.mean([pair[name] for pair in by_pair])) for name in _ROUGE}
    scores["exact_match"] = float(np.mean([reference.strip() == said.strip() for reference, said in pairs]))
    scores["exact_match_normalized"] = float(
        np.mean([normalized(reference) == normalized(said) for reference, said in pairs])
    )
    numbers = [
        (number, last_number(said)) for reference, said in pairs if (number := last_number(reference)) is not None
    ]
    if numbers:
        scores["last_number"] = float(np.mean([wanted == given for wanted, given in numbers]))
    return scores


def rouge(pairs: Sequence[tuple[str, str]]) -> list[dict[str, float]]:
    """F1 of ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum of each pair of reference and prediction."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(_ROUGE, use_stemmer=True)
    scores = [scorer.score(reference, said) for reference, said in pairs]
    return [{name: score[name].fmeasure for name in _ROUGE} for score in scores]


def normalized(text: str) -> str:
    """A text without case, ASCII punctuation, English articles and superfluous white space.

    As SQuAD's evaluation script has it (Rajpurkar et al. 2016, arXiv 1606.05250).
    """
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def last_number(text: str) -> Fraction | str | None:
    """The last number of a text, which in a worked problem is the answer. None where there is none.

    Numbers are compared by value, however they are written: 1,234 and 1234; 0.5, 1/2, ½ and \\frac{1}{2}; 1 1/2 and
    1.5; 1e3, 10^3 and 1000; −5 and -5; $5 and 5. 50% is 50, as the references of GSM8K have it. What has colons (3:30,
    1:2) and a fraction of zero are compared as they are written.
    """
    text = text.translate(_SIGNS)
    # what goes on behind a number with a point, as in 1.2.3, is no number
    found = [m for m in _NUMBER.finditer(text) if not re.search(r"[0-9]\.?$", text[max(0, m.start() - 2) : m.start()])]
    if not found:
        return None
    last = found[-1]
    value = None if last["colons"] else _value(last)
    if value is None:
        return "".join(last[0].split())
    return -value if last["minus"] or last["after"] else value


def _value(match: re.Match[str]) -> Fraction | None:
    """The value of a matched number without its sign; None where it divides by zero."""
    if match["latex"]:
        over, under = re.findall(rf"-?{_DECIMAL}", match["latex"])
        return _quotient(over, under)
    if match["whole"]:
        part = _quotient(*match["part"].split("/"))
        return None if part is None else int(match["whole"]) + part
    if match["over"]:
        return _quotient(match["over"], match["under"])
    if match["base"]:
        base, to = _plain(match["base"]), int(match["to"])
        return None if base == 0 and to < 0 else base**to
    return _plain(match["decimal"]) * Fraction(10) ** int(match["exponent"] or match["power"] or "0")


def _quotient(over: str, under: str) -> Fraction | None:
    return _plain(over) / _plain(under) if _plain(under) else None


def _plain(text: str) -> Fraction:
    return Fraction(Decimal(text.replace(",", "")))
