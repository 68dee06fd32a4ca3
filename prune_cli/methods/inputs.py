"""The artifacts and rows that the arguments of a method come from.

Rows come from the first input that has them: a data file or select artifact, else a represent artifact; a score
artifact leads back to the rows that it was made of. Every other input is brought into the order of those rows by ids
and fingerprints. Nothing is read before it is needed: digests come from manifests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli import tasks
from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.artifacts.manifest import Artifact, is_artifact, open_artifact
from prune_cli.data import groups
from prune_cli.data.open import HOLDING, WHY, Reading, open_rows, rows_behind
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError, near
from prune_cli.represent import kinds
from prune_cli.tasks import Task

BY_GROUP = "--balance-by group"


class Absent(PruneError):
    """An input that is not among those given."""


@dataclass
class Inputs:
    """Rows, and the artifacts about them, of the training set or of a target set."""

    n: int
    digest: str  # of the rows
    open: Callable[[], Rows]
    place: str  # where the rows are, for those who look for them later
    represented: list[Artifact]
    scored: list[Artifact]
    selected: list[Artifact]  # and those of `corrupt`
    task_name: str
    role: str = ""  # put before the roles of its digests

    @property
    def task(self) -> Task:
        """The task of the rows."""
        return tasks.load(self.task_name)

    @cached_property
    def rows(self) -> Rows:
        """The rows themselves, read when first asked for. Raises PruneError if they are no longer those of `digest`."""
        rows = self.open()
        if rows.digest != self.digest:
            raise PruneError(f"{self.place}: its rows changed while the command ran; run it again")
        return rows

    @cached_property
    def labels(self) -> list[Any]:
        """The label list: that of an artifact where there is one, else the labels that the rows have."""
        for artifact in [*self.selected, *self.represented, *self.scored]:
            return list(artifact.about["labels"])
        return self.task.label_list(self.rows)

    @property
    def kinds(self) -> list[str]:
        """The kinds of representation that its artifacts hold, in order of name."""
        return sorted({kind for artifact in self.represented for kind in artifact.about["kinds"]})

    def kind(self, on: str | None) -> str:
        """The representation that `--on` names, or the only one there is."""
        held = self.kinds
        if on is None and len(held) == 1:
            return held[0]
        if on is None:
            if not held:
                raise Absent("a represent artifact is needed; this method runs on one", hint=_hint("hidden"))
            raise PruneError(f"--on: missing; allowed: {', '.join(held)}")
        if on not in held:
            raise PruneError(f"--on {on}: not among the inputs; there are: {', '.join(held) or 'none'}", hint=_hint(on))
        return on

    def holder(self, kind: str) -> Artifact:
        """The one represent artifact that holds a kind."""
        holders = [artifact for artifact in self.represented if kind in artifact.about["kinds"]]
        if not holders:
            who = "the target set lacks" if self.role else "the inputs lack"
            raise Absent(f"{who} {kind}; a represent artifact with --kind {kind} is needed", hint=_hint(kind))
        if len(holders) > 1:
            paths = " and ".join(str(artifact.path) for artifact in holders)
            raise PruneError(f"{paths}: each holds {kind}; allowed: one that does")
        return holders[0]

    def score_artifact(self) -> Artifact:
        """The one score artifact."""
        if not self.scored:
            raise Absent(
                "no score artifact is given; this method needs one", hint="prune score ARTIFACT -o OUT --method NAME"
            )
        if len(self.scored) > 1:
            raise PruneError(f"{' and '.join(str(a.path) for a in self.scored)}: both are scores; allowed: one")
        return self.scored[0]

    def score_artifacts(self) -> list[Artifact]:
        """The score artifacts, in the order they were given, one or more."""
        return self.scored if len(self.scored) > 1 else [self.score_artifact()]

    def label(self) -> NDArray[np.int64] | None:
        """Index of each row's label in the label list [n]; None where the task's rows have no labels of one list."""
        label = self._label("this method")
        return label if self.labels else None

    def _label(self, who: str) -> NDArray[np.int64]:
        indices = self.task.label_indices(self.rows, self.labels)
        tasks.check_gold(self.rows, indices, who)
        return indices

    def group(self) -> NDArray[np.int64] | None:
        """Index of each row's group among the groups in order of name [n]; None where no row has one."""
        named = groups.groups(self.rows)
        return named[1] if named else None

    def parts(self, by: str) -> NDArray[np.int64]:
        """Index of each row's label or group [n], by which a selection is balanced."""
        if by == "label":
            label = self._label("--balance")
            if not self.labels:
                raise PruneError(f"rows of the task {self.task_name} have no labels to balance by", hint=BY_GROUP)
            return label
        group = self.group()
        if group is None:
            raise PruneError(f"{self.rows.where(0)}: key group is missing; {BY_GROUP} needs it in every row")
        return group

    def text(self) -> list[str]:
        """Text of each row."""
        return list(tasks.texts(self.task, self.rows))

    def response(self) -> list[str]:
        """The part of each row's text that is trained on."""
        return list(tasks.responses(self.task, self.rows))


def collect(names: Sequence[str], reading: Reading, *, task: str = "auto", role: str = "") -> Inputs:
    """Look at the inputs of score and select: represent, score and select artifacts, a data file.

    A data file is read and checked here, rows of a represent artifact when they are asked for. The task is that of the
    artifacts; where there are none it is `task`, and classification if that is auto.
    """
    given = [name for name in names if is_artifact(Path(name))]
    artifacts = {name: open_artifact(Path(name), "score", *HOLDING) for name in given}
    stages = {"represent": ["represent"], "score": ["score"], "select": ["select", "corrupt"]}
    of = {name: [a for a in artifacts.values() if a.stage in some] for name, some in stages.items()}
    data = [name for name in names if name not in artifacts or artifacts[name].stage in stages["select"]]
    if len(data) > 1:
        raise PruneError(f"more than one data file: {', '.join(data)}; allowed: one")
    task = _task([*of["select"], *of["represent"], *of["score"]], task)
    check = tasks.load(task).check
    opened: Callable[[], Rows]
    if data:
        rows = open_rows(data[0], tasks.reading_of(task, reading), check)
        n, digest, opened, place = len(rows), rows.digest, lambda: rows, data[0]
    elif of["represent"]:
        first = of["represent"][0]
        n, digest, place = first.about["rows"], first.about["digest"], str(first.path)
        opened = partial(open_rows, place, Reading(), None)
    else:
        first = of["score"][0]
        n, digest, place = first.about["rows"], first.inputs["rows"], str(first.origin("rows"))
        opened = partial(rows_behind, first, check)
    return Inputs(n, digest, opened, place, of["represent"], of["score"], of["select"], task, role)


def selection_of(name: str, digest: str, place: str) -> Artifact:
    """A selection among the rows of that digest, which are at `place`."""
    chosen = open_artifact(Path(name), "select")
    if chosen.inputs["rows"] != digest:
        raise PruneError(f"{name}: chosen from other rows than {place}; allowed: a selection of these, in their order")
    return chosen


def kept_in(selection: Artifact) -> NDArray[np.bool_]:
    """Whether a selection keeps each of the rows that it chose from [n]."""
    return np.array(selection.read(WHY, lambda file: [line["kept"] for line in read_jsonl(file)]), np.bool_)


def _hint(on: str) -> str | None:
    """How a representation that is not there is made, or what may have been meant by its name."""
    if on in kinds.names():
        return f"prune represent DATA -o OUT --model MODEL --kind {on}"
    return near(on, kinds.names())


def _task(artifacts: Sequence[Artifact], wanted: str) -> str:
    """The task of artifacts, or the one that is wanted for a data file."""
    named = {artifact.options["task"]: artifact for artifact in artifacts}
    if len(named) > 1:
        told = ", ".join(f"{artifact.path} ({task})" for task, artifact in named.items())
        raise PruneError(f"inputs of different tasks: {told}; allowed: one task")
    if wanted != "auto" and named and wanted not in named:
        raise PruneError(f"task: {wanted}; {artifacts[0].path} is of the task {next(iter(named))}; leave --task out")
    return next(iter(named), "classification" if wanted == "auto" else wanted)
