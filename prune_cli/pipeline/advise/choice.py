"""From what was measured to advice: a method and how much to keep, a random draw, all rows, or no training.

At each budget the pick is the best of the methods that are better than random, or random where none is. The advice is
the smallest budget whose pick is within a margin of all rows: shown to be worse by less than that. Where there is none
it is all rows; and where training is not shown to be better than none, no training. What is shown holds at 5% after
Holm's correction: over all methods and budgets where they are held against random, and over all that could be a pick
where those are held against all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from prune_cli.numeric.inference import Difference, holm
from prune_cli.pipeline.evidence import BASELINE, LEVEL, LOWER

FULL, NONE = "full", "none"
SHARE = 0.02  # of what all rows reach: the margin where none is given

Key = tuple[str, str]  # method, keep


@dataclass(frozen=True)
class Measured:
    """What runs came to, by one metric on one test set: the mean of each line, and how many rows it keeps.

    against(line, by): the difference of every line to this one, its values first raised by so much; None where runs
    are too few. compared: how many methods and budgets are compared with random, those that were dropped too. level:
    at which something is shown.
    """

    test: str
    metric: str
    means: Mapping[Key, float]
    kept: Mapping[Key, int]
    against: Callable[[Key, float], Mapping[Key, Difference | None]]
    compared: int
    level: float = LEVEL

    @property
    def sign(self) -> int:
        """1 where more of the metric is better, else -1."""
        return -1 if self.metric in LOWER else 1


@dataclass(frozen=True)
class Line:
    """A method at a budget. Its differences to random, to all rows, to no training; None where there is no such.

    p: of no difference to random, corrected. better: than random. within: the margin of all rows. useful: better than
    no training, as far as that was measured.
    """

    method: str
    keep: str
    kept: int
    mean: float
    over_random: Difference | None
    p: float
    better: bool
    to_full: Difference | None
    within: bool
    over_none: Difference | None
    useful: bool


@dataclass(frozen=True)
class Advice:
    """What to do for one test set, by one metric, and why. lines: all that was measured; picks: one at each budget."""

    test: str
    metric: str
    margin: float | None
    lines: list[Line]
    picks: list[Line]
    recommended: Line
    why: str

    @property
    def lower(self) -> bool:
        """Whether less of the metric is better."""
        return self.metric in LOWER

    @property
    def detectable(self) -> float | None:
        """The difference to random that would have been seen."""
        seen = [line.over_random.detectable for line in self.lines if line.over_random]
        return float(np.median(seen)) if seen else None


def advise(measured: Measured, margin: float | None) -> Advice:
    """The advice that measurements come to. margin: in units of the metric; None: a share of what all rows reach."""
    full = next((key for key in measured.means if key[0] == FULL), None)
    if margin is None and full:
        margin = SHARE * abs(measured.means[full])
    lines = _lines(measured, full)
    budgets = [line for line in lines if line.method not in (FULL, NONE)]
    able: list[list[Line]] = []  # of each budget what can be its pick, the smallest budget first
    for keep in dict.fromkeys(line.keep for line in sorted(budgets, key=lambda line: line.kept)):
        here = [line for line in budgets if line.keep == keep]
        able.append([line for line in here if line.better] or [line for line in here if line.method == BASELINE])
    if full and margin is not None:
        able = _held_against_all_rows(measured, full, margin, able)
    judged = {(line.method, line.keep): line for here in able for line in here}
    lines = [judged.get((line.method, line.keep), line) for line in lines]
    picks = [max(here, key=lambda line: measured.sign * line.mean) for here in able]
    all_rows, untrained = (next((line for line in lines if line.method == name), None) for name in (FULL, NONE))
    least = [line for line in picks if line.within]
    best = sorted(picks, key=lambda line: -measured.sign * line.mean)
    order = [*least, *([all_rows] if all_rows else []), *best]
    recommended = next((line for line in order if line.useful), untrained or order[0])
    why = _why(recommended, has_full=full is not None, margin=margin)
    if not any(line.over_random or line.to_full or line.over_none for line in lines):
        why += "; with one run of each nothing can be shown; it takes more seeds"
    return Advice(measured.test, measured.metric, margin, lines, picks, recommended, why)


def _held_against_all_rows(
    measured: Measured, full: Key, margin: float, able: Sequence[Sequence[Line]]
) -> list[list[Line]]:
    """The lines, and whether each is within the margin of all rows."""
    raised = measured.against(full, -measured.sign * margin)
    every = [line for here in able for line in here]
    # p is two-sided and tested at the level, so one-sided at half of it, as an end of a two-sided interval is
    found = [raised[line.method, line.keep] for line in every]
    p = _corrected([d.p if d and _better(d, measured) else 1.0 for d in found], len(every))
    near = {(line.method, line.keep) for line, own in zip(every, p, strict=True) if own <= measured.level}
    return [[replace(line, within=(line.method, line.keep) in near) for line in here] for here in able]


def _lines(measured: Measured, full: Key | None) -> list[Line]:
    """Every line with its differences."""
    none = next((key for key in measured.means if key[0] == NONE), None)
    own = [key for key in measured.means if key[0] not in (FULL, NONE)]
    random = {keep: measured.against((BASELINE, keep), 0.0) for keep in dict.fromkeys(keep for _, keep in own)}
    over_random = {key: random[key[1]].get(key) for key in own if key[0] != BASELINE}
    p = _corrected([found.p if found else 1.0 for found in over_random.values()], measured.compared)
    shown = dict(zip(over_random, p, strict=True))
    to_full: Mapping[Key, Difference | None] = measured.against(full, 0.0) if full else {}
    over_none: Mapping[Key, Difference | None] = measured.against(none, 0.0) if none else {}
    return [
        Line(
            *key,
            kept=measured.kept[key],
            mean=mean,
            over_random=over_random.get(key),
            p=shown.get(key, 1.0),
            better=shown.get(key, 1.0) <= measured.level and _better(over_random[key], measured),
            to_full=to_full.get(key),
            within=False,
            over_none=over_none.get(key),
            useful=none is None
            or ((found := over_none.get(key)) is not None and found.p <= measured.level and _better(found, measured)),
        )
        for key, mean in measured.means.items()
    ]


def _better(found: Difference | None, measured: Measured) -> bool:
    return found is not None and measured.sign * found.estimate > 0


def _corrected(p: Sequence[float], compared: int) -> list[float]:
    """p-values after Holm's correction; of comparisons that are not among them nothing was found."""
    return holm([*p, *[1.0] * (compared - len(p))])[: len(p)]


def _why(recommended: Line, *, has_full: bool, margin: float | None) -> str:
    if recommended.method == NONE:
        return "no training is shown to be better than the model as it is"
    if not has_full:
        return "the best of the budgets tried; without `full` none can be held against all rows"
    if recommended.method == FULL:
        return f"no budget is shown to come within {margin:.2g} of them"
    if recommended.within:
        return f"the least that is shown to come within {margin:.2g} of all rows"
    return "better than the model as it is, which all rows are not shown to be"
