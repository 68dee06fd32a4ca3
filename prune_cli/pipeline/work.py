"""The steps of a pipeline, each a stage with what it is called with, and what earlier runs left of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prune_cli.artifacts.drafts import REMOVED
from prune_cli.artifacts.manifest import is_artifact, open_artifact
from prune_cli.data.open import Reading
from prune_cli.errors import PruneError, near
from prune_cli.pipeline.evidence import Trial
from prune_cli.pipeline.results import Made
from prune_cli.report.corruption import CORRUPT
from prune_cli.stages.common import How, Outcome
from prune_cli.stages.represent import represent

SHARED = ("split", "decontaminated", CORRUPT, "warmup-rows", "warmup", "represent")  # folders of what all methods share
WOULD_RUN = "would run"
HOW = How(replace=True, warn=False)  # the folder is the pipeline's own, and it tells the warnings of all together
LOOK = replace(HOW, dry_run=True)


@dataclass(frozen=True)
class Step:
    """A stage with all that it is called with: `stage(*given, out, opts, reading, how)`.

    needs: what other steps make and it rests on. replaces: artifacts to remove once it is made. rows: how many it
    trains on.
    """

    label: str
    stage: Callable[..., Outcome]
    given: tuple[Any, ...]
    out: Path
    opts: Any
    reading: Reading
    needs: tuple[Path, ...] = ()
    replaces: tuple[Path, ...] = ()
    rows: int = 1

    @property
    def kind(self) -> str:
        """What steps that take about as long have in common: the stage, and of represent the side."""
        return " ".join(self.label.split()[: 2 if self.stage is represent else 1])

    @property
    def weight(self) -> int:
        """What its time goes with, among steps of its kind: the rows it trains on, but for a fixed number of steps."""
        return 1 if getattr(self.opts, "steps", 0) else self.rows

    def make(self, how: How = HOW) -> Outcome:
        """Run the stage."""
        return self.stage(*self.given, self.out, self.opts, self.reading, how)


@dataclass(frozen=True)
class Work:
    """All that a pipeline makes in a folder: steps in an order in which they can be made; trials as in the table.

    halves: random halves of the training rows, with models trained on them. scores: those that are held against them.
    """

    out: Path
    steps: tuple[Step, ...]
    trials: Mapping[Trial, Made]
    halves: tuple[Made, ...] = ()
    scores: Mapping[str, Path] = field(default_factory=dict)

    def name(self, step: Step) -> str:
        """Where in the folder a step's artifact is."""
        return step.out.relative_to(self.out).as_posix()

    def only(self, wanted: Iterable[str]) -> list[Step]:
        """The steps that are wanted: `shared`, the label of one, or a path that they make or that what they make is in.

        Raises PruneError where there is none.
        """
        found = {step.out for name in wanted for step in self._named(name)}
        return [step for step in self.steps if step.out in found]

    def _named(self, wanted: str) -> list[Step]:
        if wanted == "shared":
            return [step for step in self.steps if self.name(step).partition("/")[0] in SHARED]
        path = Path(wanted)
        found = [
            step
            for step in self.steps
            if wanted == step.label or {path, self.out / path} & {step.out, *step.out.parents} - {*self.out.parents}
        ]
        if not found or not wanted:
            raise PruneError(
                f"only: {wanted}; allowed: shared, what a step is called, or a path in {self.out} that one makes",
                hint=near(wanted, [step.label for step in self.steps])
                or "--dry-run lists the steps; with --json their paths too",
            )
        return found

    def with_needs(self, wanted: Iterable[Step]) -> list[Step]:
        """Steps and all that they rest on, in order."""
        known = {step.out for step in wanted}
        for step in reversed(self.steps):
            if step.out in known:
                known.update(step.needs)
        return [step for step in self.steps if step.out in known]


def strings(given: Any) -> Iterator[str]:
    """All strings in what a stage is given, among them the places of its rows."""
    if isinstance(given, str):
        yield given
    elif isinstance(given, Mapping | list | tuple):
        for part in given.values() if isinstance(given, Mapping) else given:
            yield from strings(part)


def look(steps: Sequence[Step], folder: Path, known: Mapping[Path, Outcome] = {}) -> dict[Path, Outcome]:
    """What a dry run says of steps, in order: which are up to date, and which would run and why.

    known: of steps before these. A step whose files were removed after their use runs where a later one needs them.
    """
    found = dict(known)
    for step in steps:
        waiting = [path for path in step.needs if found[path].state == WOULD_RUN and found[path].reason != REMOVED]
        after = f"after {waiting[0].relative_to(folder)}" if waiting else ""
        found[step.out] = Outcome(step.out, step.label, WOULD_RUN, after) if waiting else step.make(LOOK)
    for step in reversed(steps):
        if found[step.out].reason == REMOVED:
            users = [s.label for s in steps if step.out in s.needs and found[s.out].state == WOULD_RUN]
            state, reason = (WOULD_RUN, f"{users[0]} needs it again") if users else ("current", "")
            found[step.out] = replace(found[step.out], state=state, reason=reason)
    return found


def spared(step: Step, steps: Iterable[Step], folder: Path) -> Outcome | None:
    """That a step is up to date, where its files were removed after their use and none of the steps needs them again.

    None where they are there, or needed.
    """
    with suppress(PruneError):
        if is_artifact(step.out) and open_artifact(step.out).removed:
            users = [other for other in steps if step.out in other.needs]
            others = {path: Outcome(path, "", "current") for known in (step, *users) for path in known.needs}
            found = look([step, *users], folder, others)[step.out]
            return None if found.state == WOULD_RUN else found
    return None
