"""The answer: advice with what each pick costs and how its rows are chosen, in words and as JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prune_cli.data.open import Reading
from prune_cli.pipeline.advise import cost, text
from prune_cli.pipeline.advise.choice import Advice
from prune_cli.pipeline.advise.text import Price


@dataclass(frozen=True)
class Answer:
    """An answer as JSON values and in words."""

    facts: dict[str, Any]
    lines: list[str]


@dataclass(frozen=True)
class Whole:
    """Of a run on a sub-pool, what its advice is for: so many times its rows, which are named in place of its own.

    training: whether a training on more rows takes longer. reading: how the rows that are named are read.
    """

    times: float = 1.0
    training: bool = True
    data: Mapping[Path, str] = field(default_factory=dict)
    reading: Reading | None = None


def put(given: str, found: list[Advice], run: Path, out: str, whole: Whole) -> Answer:
    """The advice with what each pick costs and how its rows are chosen."""
    prices = {}
    for pick in (pick for advice in found for pick in advice.picks):
        own = cost.cost(run, pick)
        prices[pick.method, pick.keep] = Price(
            cost=own.grown(whole.times, training=whole.training) if own else None,
            commands=cost.how_to_select(run, pick, out, whole.data, whole.reading),
            rows=str(cost.selection(run, pick)) if whole.times == 1 else None,
        )
    return Answer(text.facts(given, found, prices), text.lines(found, prices))
