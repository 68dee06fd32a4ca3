"""How long the steps that are left will take, by those of their kind that were made in this run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prune_cli.pipeline.work import Step
from prune_cli.report.units import duration


class Pace:
    """Time measured so far. at_once: how many steps are made side by side."""

    def __init__(self, to_make: Iterable[Step], at_once: int) -> None:
        self.to_make = {step.out: step for step in to_make}
        self.at_once = at_once
        self.seconds: Counter[str] = Counter()
        self.weight: Counter[str] = Counter()
        self.made: Counter[str] = Counter()

    def ended(self, step: Step, seconds: float | None) -> None:
        """Take down a step that has ended, and how long it took where it was made.

        The first of a kind has the start in it, of the device and its kernels, and counts until there is another.
        """
        self.to_make.pop(step.out, None)
        if seconds is not None:
            self.made[step.kind] += 1
            if self.made[step.kind] == 2:
                self.seconds[step.kind] = self.weight[step.kind] = 0
            self.seconds[step.kind] += seconds  # type: ignore[assignment]  # a Counter adds up any numbers
            self.weight[step.kind] += step.weight

    @property
    def told(self) -> str:
        """The time left, in words: at least that of steps of a measured kind, if those are most; else nothing."""
        known = [step for step in self.to_make.values() if step.kind in self.weight]
        if 2 * len(known) <= len(self.to_make):
            return ""
        seconds = sum(step.weight * self.seconds[step.kind] / self.weight[step.kind] for step in known) / self.at_once
        return f", {'about' if len(known) == len(self.to_make) else 'at least'} {duration(round(seconds))} left"
