"""What a score or select method asks for, gathered by name from artifacts and joined by id.

Rows come from the first input that has them (a data file or select artifact, else a represent artifact); a score
artifact leads back to the rows it was computed from. Every other input is brought into the order of those rows
through its ids. What is read is known by the digests in the manifests: artifacts are opened when a value is asked
for, so that a stage that has nothing to do reads none of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli import tasks
from prune_cli.artifacts import tensors
from prune_cli.artifacts.manifest import Artifact, is_artifact, open_artifact
from prune_cli.data import fingerprints
from prune_cli.data.groups import groups
from prune_cli.data.open import open_rows
from prune_cli.data.rows import Check, Rows
from prune_cli.errors import PruneError
from prune_cli.numeric.blocks import take
from prune_cli.tasks import Task

KINDS = ("hidden", "dynamics", "gradient", "influence", "unprompted")
MAIN = {
    "hidden": "hidden",
    "dynamics": "logprob",
    "gradient": "gradient",
    "influence": "influence",
    "unprompted": "logprob_unprompted",
}  # kind -> the tensor that is `features`
KIND_OF = {
    "hidden": "hidden",
    "logprob": "dynamics",
    "correct": "dynamics",
    "margin": "dynamics",
    "el2n": "dynamics",
    "gradient": "gradient",
    "grad_norm": "gradient",
    "influence": "influence",
    "logprob_unprompted": "unprompted",
}
FLAT = ("dynamics", "unprompted")  # kinds of one number a checkpoint [n, e]: the checkpoints are their features
BY_GROUP = "--balance-by group"
OF_CHOICE = ("features", "trajectory", "learning_rate")  # of the representation that --on names


def kinds_named(names: Sequence[str]) -> list[str]:
    """The kinds whose tensors are among the names of a method's arguments, those of the target set too."""
    bare = [name.removeprefix("target_") for name in names]
    return sorted({KIND_OF[name] for name in bare if name in KIND_OF})


@dataclass
class Inputs:
    """Artifacts and rows that a method's arguments are taken from."""

    n: int
    digest: str  # of the rows
    open: Callable[[], Rows]
    represented: list[Artifact]
    scored: list[Artifact]
    selected: list[Artifact]
    task_name: str
    role: str = ""  # prefix of the digests' names

    @property
    def task(self) -> Task:
        """The task of the rows."""
        return tasks.load(self.task_name)

    @cached_property
    def rows(self) -> Rows:
        """The rows themselves, read when first asked for."""
        return self.open()

    @cached_property
    def labels(self) -> list[Any]:
        """The label list: that of an artifact where there is one, else the labels that the rows have."""
        for found in [*self.selected, *self.represented, *self.scored]:
            return list(found.about["labels"])
        return self.task.label_list(self.rows)

    def kind(self, wanted: str | None) -> str:
        """The representation `--on` names, or the only one there is."""
        held = sorted({kind for found in self.represented for kind in found.about["kinds"]})
        if wanted is None and len(held) == 1:
            return held[0]
        if wanted is None:
            raise PruneError(f"which representation? --on is needed; there are: {', '.join(held) or 'none'}")
        if wanted not in held:
            raise PruneError(
                f"--on {wanted}: not among the inputs; there are: {', '.join(held) or 'none'}",
                hint=f"prune represent DATA -o OUT --model MODEL --kind {wanted if wanted in KINDS else 'hidden'}",
            )
        return wanted

    def form(self, wanted: str | None) -> str | None:
        """The representation that `--on` names, else the only one there is: methods may have a form for it."""
        held = {kind for found in self.represented for kind in found.about["kinds"]}
        return wanted or (held.pop() if len(held) == 1 else None)

    def holder(self, kind: str) -> Artifact:
        """The one represent artifact that holds a kind."""
        holders = [found for found in self.represented if kind in found.about["kinds"]]
        if not holders:
            raise PruneError(
                f"{self.role or 'the inputs '}lack {kind}; a represent artifact with --kind {kind} is needed",
            )
        if len(holders) > 1:
            raise PruneError(
                f"{' and '.join(str(found.path) for found in holders)}: each holds {kind}; one that does is allowed"
            )
        return holders[0]

    def score_artifact(self) -> Artifact:
        """The one score artifact."""
        if len(self.scored) != 1:
            raise PruneError(f"{len(self.scored)} score artifacts given; this method needs exactly one")
        return self.scored[0]

    def digests(self, name: str, kind: str | None) -> dict[str, str]:
        """Role -> digest of the files that an argument is read from, beside the rows. None is opened."""
        if name == "score":
            return {f"{self.role}score": self.score_artifact().files["score.jsonl"]}
        if name in KIND_OF or name in OF_CHOICE:
            kind = KIND_OF.get(name, kind)
            assert kind is not None
            files = self.holder(kind).files
            return {
                f"{self.role}{kind}": files[f"{kind}.safetensors"],
                f"{self.role}{kind} rows": self.holder(kind).manifest["recipe"]["inputs"]["rows"],
            }
        if name not in ("n", "label", "group", "text"):
            known = [*KIND_OF, *OF_CHOICE, "n", "score", "label", "group", "text"]
            raise PruneError(f"a method asks for {name}; known: {', '.join(known)}")
        return {}

    def tensor(self, name: str) -> NDArray[Any]:
        """A stored tensor [n, e, …] in the rows' order, memory-mapped where it is large."""
        found = self.holder(KIND_OF[name])
        array = tensors.load(found.file(f"{KIND_OF[name]}.safetensors"))[name]
        if found.manifest["recipe"]["inputs"]["rows"] == self.digest:
            return array
        return take(
            array,
            fingerprints.positions(
                self.rows,
                found.file(fingerprints.IDS),
                f"is not in {found.path}; all inputs must be about the same rows",
            ),
        )

    def learning_rate(self, kind: str) -> NDArray[np.float64]:
        """Learning rate of each checkpoint [e] of a kind."""
        path = self.holder(kind).file(f"{kind}.safetensors")
        return np.asarray(tensors.metadata(path)["learning_rate"], np.float64)

    def score(self) -> NDArray[np.float64]:
        """The score of each row [n]."""
        found = self.score_artifact()
        with found.file("score.jsonl").open(encoding="utf-8") as stream:
            values = np.fromiter((json.loads(line)["score"] for line in stream), np.float64)
        if found.manifest["recipe"]["inputs"]["rows"] == self.digest:
            return values
        order = fingerprints.positions(
            self.rows, found.file(fingerprints.IDS), f"is not in {found.path}; all inputs must be about the same rows"
        )
        ordered: NDArray[np.float64] = values[order]
        return ordered

    def label(self) -> NDArray[np.int64]:
        """Index of each row's label in the label list [n]."""
        return self.task.label_indices(self.rows, self.labels)

    def group(self) -> NDArray[np.int64] | None:
        """Index of each row's group among the groups in order of name [n]; None where no row has one."""
        found = groups(self.rows)
        return found[1] if found else None

    def parts(self, by: str) -> NDArray[np.int64]:
        """Index of each row's label or group [n], by which a selection is balanced."""
        if by == "label":
            if not self.labels:
                raise PruneError(f"rows of the task {self.task_name} have no labels to balance by", hint=BY_GROUP)
            return self.label()
        group = self.group()
        if group is None:
            raise PruneError(f"{self.rows.where(0)}: key group is missing; {BY_GROUP} needs it in every row")
        return group

    def text(self) -> list[str]:
        """Text of each row."""
        return [self.task.text(row) for row in self.rows]

    def get(self, name: str, kind: str | None) -> Any:
        """One argument by name; `kind` is the representation behind features, trajectory and learning_rate."""
        if name in KIND_OF:
            return self.tensor(name)
        if name in OF_CHOICE:
            assert kind is not None
            if name == "learning_rate":
                return self.learning_rate(kind)
            array = self.tensor(MAIN[kind])
            if kind in FLAT:
                return array if name == "features" else array[:, None, :]
            return array.reshape(len(array), -1) if name == "features" else array
        getters: dict[str, Callable[[], Any]] = {
            "n": lambda: self.n,
            "score": self.score,
            "label": self.label,
            "group": self.group,
            "text": self.text,
        }
        return getters[name]()


def collect(sources: Sequence[str], fields: dict[str, str], role: str = "", task: str | None = None) -> Inputs:
    """Look at the inputs of score and select: represent, score and select artifacts, a data file.

    A data file is read and checked here, an artifact's rows when they are asked for. The task is that of the
    artifacts; where there are none it is `task`, or else classification.
    """
    represented: list[Artifact] = []
    scored: list[Artifact] = []
    selected: list[Artifact] = []
    data: list[str] = []  # what the rows are named by: a data file, a select artifact
    for source in sources:
        if not is_artifact(Path(source)):
            data.append(source)
            continue
        found = open_artifact(Path(source), "represent", "score", "select")
        match found.stage:
            case "represent":
                represented.append(found)
            case "score":
                scored.append(found)
            case "select":
                selected.append(found)
                data.append(source)
    if len(data) > 1:
        raise PruneError(f"more than one data file: {', '.join(data)}; one is allowed")
    artifacts = [*selected, *represented, *scored]
    named = {found.options["task"]: found for found in artifacts}
    if len(named) > 1:
        told = ", ".join(f"{found.path} ({task})" for task, found in named.items())
        raise PruneError(f"inputs of different tasks: {told}; one task is allowed")
    if task and named and task not in named:
        raise PruneError(f"task: {task}; {artifacts[0].path} is of the task {next(iter(named))}; leave it out")
    task = next(iter(named), task or "classification")
    check = tasks.load(task).check
    opened: Callable[[], Rows]
    if selected:
        n, digest = selected[0].about["kept"], selected[0].about["digest"]
        opened = partial(open_rows, data[0], {}, check)
    elif data:
        rows = open_rows(data[0], fields, check)
        n, digest, opened = len(rows), rows.digest, lambda: rows
    elif represented:
        n, digest = represented[0].about["rows"], represented[0].manifest["recipe"]["inputs"]["rows"]
        opened = partial(open_rows, str(represented[0].path), {}, None)
    else:
        n, digest = scored[0].about["rows"], scored[0].manifest["recipe"]["inputs"]["rows"]
        opened = partial(_rows_behind, scored[0], fields, check)
    return Inputs(n, digest, opened, represented, scored, selected, task, role)


def _rows_behind(scored: Artifact, fields: dict[str, str], check: Check | None) -> Rows:
    """The rows that a score was computed from."""
    origin = scored.origin("rows")
    if not origin.exists():
        raise PruneError(
            f"{scored.path}: the rows it scored are no longer at {origin}",
            hint="name the represent artifact or the data file as well",
        )
    rows = open_rows(str(origin), fields, check)
    if rows.digest != scored.manifest["recipe"]["inputs"]["rows"]:
        raise PruneError(
            f"{origin}: its rows are no longer those that {scored.path} scored",
            hint="score them again; with --field as then, if it was given",
        )
    return rows


@dataclass(frozen=True)
class Wanted:
    """What a method reads: names of arguments, where they come from, and the representation they rest on."""

    names: list[str]
    optional: tuple[str, ...]
    given: Inputs
    target: Inputs | None
    kind: str | None

    def _source(self, name: str) -> tuple[Inputs, str]:
        """The inputs that an argument is taken from, and what it is called there."""
        if not name.startswith("target_"):
            return self.given, name
        if self.target is None:
            raise PruneError("this method compares with a target set; --target ARTIFACT is needed")
        return self.target, name.removeprefix("target_")

    def digests(self) -> dict[str, str]:
        """Role -> digest of all that is read. What is not there or not comparable is an error; nothing is opened."""
        used = {"rows": self.given.digest}
        if self.target:
            used["target rows"] = self.target.digest
        for name in self.names:
            source, bare = self._source(name)
            used |= source.digests(bare, self.kind)
        if self.target and self.kind:
            _check_space(self.given, self.target, self.kind)
        return used

    def values(self) -> dict[str, Any]:
        """The arguments themselves. An optional group is left out where no row has one."""
        found: dict[str, Any] = {}
        for name in self.names:
            source, bare = self._source(name)
            value = source.get(bare, self.kind)
            if value is not None:
                found[name] = value
            elif name not in self.optional:
                raise PruneError(f"{source.rows.where(0)}: key {bare} is missing; this method needs it in every row")
        if self.kind in FLAT and "trajectory" in found and "learning_rate" in found:
            found["learning_rate"] = found["learning_rate"].mean(keepdims=True)  # its trajectory has one step [n, 1, e]
        return found


def want(
    names: Sequence[str], optional: tuple[str, ...], given: Inputs, target: Inputs | None, on: str | None
) -> Wanted:
    """Settle which representation the arguments rest on, if any."""
    bare = [name.removeprefix("target_") for name in names]
    kind = None
    if on in bare:  # a form of the method that reads the tensor of just this kind
        on = None
    if {"features", "trajectory"} & set(bare):
        kind = given.kind(on)
    elif on is not None:
        raise PruneError(f"--on {on}: this method reads no representation of its choice; leave --on out")
    elif "learning_rate" in bare:
        kind = next(KIND_OF[name] for name in bare if name in KIND_OF)
    return Wanted(list(names), optional, given, target, kind)


def _check_space(given: Inputs, target: Inputs, kind: str) -> None:
    """Rows and target must have been represented alike: same model, checkpoints and options, but for Adam's steps."""
    ours, theirs = given.holder(kind), target.holder(kind)
    if kind == "gradient" and theirs.options["precondition"] != "none":
        raise PruneError(
            f"{theirs.path}: precondition: adam; a target's gradients are compared as they are",
            hint="represent the target set with --precondition none",
        )
    if ours.about["space"][kind] != theirs.about["space"][kind]:
        raise PruneError(
            f"{theirs.path}: its {kind} is not comparable with that of {ours.path}",
            hint="represent both with the same model, checkpoints and options",
        )
