"""Published methods: each a representation and a selection over it, a line of published.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from prune_cli.methods import method
from prune_cli.methods.method import Method
from prune_cli.represent import kinds

TEXT = "text"  # what a method runs on that has no representation, where it has a form for that
NONE = "none"  # stands for no representation, or no score


@dataclass(frozen=True)
class PublishedMethod:
    """A method as published: a representation, and a selection over it."""

    name: str
    representation: str  # a kind, several with commas (the first is the one that features are of), or none
    score: str  # name of the score method, or none where the selection reads no score
    select: str  # name of the select method, or none where nothing is trained
    objective: str  # difficulty, diversity, relevance or baseline
    source: str
    keep: str | None = None  # what it keeps where that is part of the method, whatever the budget
    model: str | None = None  # reference: represented with that model, not with one after a warm-up
    represent_options: dict[str, Any] = field(default_factory=dict)
    score_options: dict[str, Any] = field(default_factory=dict)
    select_options: dict[str, Any] = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its representation."""
        return tuple(self.representation.split(",")) if self.representation != NONE else ()

    @property
    def main(self) -> str | None:
        """The kind that features are of."""
        return self.kinds[0] if self.kinds else None

    @property
    def on(self) -> str:
        """What the score and the selection run on: that kind, or texts."""
        return self.main or TEXT

    @property
    def halves(self) -> list[Method]:
        """The score, where it has one, and the selection, loaded."""
        names = {"score": self.score, "select": self.select}
        return [method.load(stage, name, self.on) for stage, name in names.items() if name != NONE]

    @property
    def reads_target(self) -> bool:
        """Whether one of them compares the rows with a target set's representation."""
        return any(half.wants_target for half in self.halves)

    @property
    def represents_target(self) -> bool:
        """Whether one of its kinds is about a target set."""
        return any("target" in kinds.load(kind).needs for kind in self.kinds)

    @property
    def wants_target(self) -> bool:
        """Whether a target set is needed, to represent the rows or to compare with."""
        return self.represents_target or self.reads_target


@cache
def published() -> dict[str, PublishedMethod]:
    """All published methods by name, in the order of published.toml."""
    text = resources.files(__package__).joinpath("published.toml").read_text("utf-8")
    return {name: PublishedMethod(name, **table) for name, table in tomllib.loads(text).items()}


def find_published(name: str) -> PublishedMethod:
    """The published method of that name, with dashes or underscores. Raises PruneError if there is none."""
    dashed = name.replace("_", "-")
    if dashed not in published():
        unknown = method.unknown("method", name, list(published()))
        half = name.replace("-", "_")
        for stage in method.STAGES:
            if half in method.names(stage):
                unknown.hint = f"{half} is a {stage} method: {{name, representation, score, select}}"
        raise unknown
    return published()[dashed]
