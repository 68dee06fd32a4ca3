"""What a score or select method asks for, gathered by name from artifacts and joined by id.

Rows come from the first input that has them (a represent artifact, or a data file); a score artifact leads back
to the rows it was computed from. Every other input is brought into the order of those rows through its ids.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli import tensors
from prune_cli.artifact import Artifact, is_artifact, open_artifact
from prune_cli.errors import PruneError
from prune_cli.rows import Rows, read_rows
from prune_cli.sources import source_name
from prune_cli.tasks import Task

KINDS = ("hidden", "dynamics", "gradient")
MAIN = {
    "hidden": "hidden",
    "dynamics": "logprob",
    "gradient": "gradient",
}  # kind -> the tensor that is `features`
KIND_OF = {
    "hidden": "hidden",
    "logprob": "dynamics",
    "correct": "dynamics",
    "margin": "dynamics",
    "el2n": "dynamics",
    "gradient": "gradient",
    "grad_norm": "gradient",
}


def open_rows(source: str, fields: dict[str, str], check: Callable[[dict[str, Any]], str | None] | None) -> Rows:
    """Rows of a data source, or of an artifact that holds rows (represent: all of them, select: the kept ones)."""
    path = Path(source)
    if is_artifact(path):
        found = open_artifact(path, "represent", "select")
        return read_rows(found.file("rows.jsonl" if found.stage == "represent" else "select.jsonl"), {}, check=check)
    return read_rows(source, fields, check=check)


def named_tests(given: Sequence[str]) -> dict[str, str]:
    """Test sets by name: `ood=data/test.jsonl` says its own, any other is called by its file stem."""
    tests: dict[str, str] = {}
    for test in given:
        name, equals, source = test.partition("=")
        if not equals or "/" in name or Path(test).exists():
            name, source = source_name(test), test
        if name in tests:
            raise PruneError(
                f"two test sets are called {name}: {tests[name]} and {source}; allowed: names that differ",
                hint=f"name one yourself: {name}2={source}",
            )
        tests[name] = source
    return tests


@dataclass
class Inputs:
    """Artifacts and rows that a method's arguments are taken from; `used` collects the digests of what was."""

    rows: Rows
    represented: list[Artifact]
    scored: list[Artifact]
    used: dict[str, str] = field(default_factory=dict)
    role: str = ""  # prefix of the digests' names

    @cached_property
    def labels(self) -> list[Any]:
        """The label list: of the representation where there is one, else the labels that the rows have."""
        for found in self.represented:
            return list(found.about["labels"])
        from prune_cli.tasks import classification

        return classification.label_list(self.rows)

    def rows_digest(self) -> str:
        """Note that the rows themselves are used."""
        self.used[f"{self.role}rows"] = self.rows.digest
        return self.rows.digest

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

    def holder(self, kind: str) -> Artifact:
        """The represent artifact that holds a kind."""
        for found in self.represented:
            if kind in found.about["kinds"]:
                return found
        raise PruneError(
            f"{self.role or 'the inputs '}lack {kind}; a represent artifact with --kind {kind} is needed",
        )

    def _file(self, kind: str) -> Path:
        found = self.holder(kind)
        name = f"{kind}.safetensors"
        path = found.file(name)
        self.used[f"{self.role}{kind}"] = found.files[name]
        self.used[f"{self.role}ids"] = self.rows.digest
        return path

    def tensor(self, name: str) -> NDArray[Any]:
        """A stored tensor [n, e, …] in the rows' order, memory-mapped where the order is already right."""
        kind = KIND_OF[name]
        array = tensors.load(self._file(kind))[name]
        return self._in_order(array, self.holder(kind).path / "rows.jsonl")

    def learning_rate(self, kind: str) -> NDArray[np.float64]:
        """Learning rate of each checkpoint [e] of a kind."""
        return np.asarray(tensors.metadata(self._file(kind))["learning_rate"], np.float64)

    def _in_order(self, array: NDArray[Any], ids_file: Path) -> NDArray[Any]:
        ids = _ids(ids_file)
        if ids == self.rows.ids:
            return array
        at = {str(key): i for i, key in enumerate(ids)}
        missing = [key for key in self.rows.ids if str(key) not in at]
        if missing:
            raise PruneError(
                f"{ids_file.parent}: has nothing for id {missing[0]}"
                + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
                + "; all inputs must be about the same rows"
            )
        return array[[at[str(key)] for key in self.rows.ids]]

    def score(self) -> NDArray[np.float64]:
        """The score of each row [n]."""
        if len(self.scored) != 1:
            raise PruneError(f"{len(self.scored)} score artifacts given; this method needs exactly one")
        path = self.scored[0].file("score.jsonl")
        self.used["score"] = self.scored[0].files["score.jsonl"]
        values = np.array([json.loads(line)["score"] for line in path.open(encoding="utf-8")], np.float64)
        ordered: NDArray[np.float64] = self._in_order(values, path)
        return ordered

    def label(self) -> NDArray[np.int64]:
        """Index of each row's label in the label list [n]."""
        from prune_cli.tasks import classification

        self.rows_digest()
        return classification.label_indices(self.rows, self.labels)

    def group(self) -> NDArray[np.int64]:
        """Index of each row's group among the groups in order of name [n]."""
        self.rows_digest()
        names = [row.get("group") for row in self.rows]
        lacking = next((i for i, name in enumerate(names) if name is None), None)
        if lacking is not None:
            raise PruneError(f"{self.rows.where(lacking)}: key group is missing; this method needs it in every row")
        order = {name: i for i, name in enumerate(sorted({str(name) for name in names}))}
        return np.array([order[str(name)] for name in names], np.int64)

    def has_group(self) -> bool:
        """Whether every row says its group."""
        return all(row.get("group") is not None for row in self.rows)

    def text(self) -> list[str]:
        """Text of each row."""
        self.rows_digest()
        return [row["text"] for row in self.rows]

    def get(self, name: str, kind: str | None) -> Any:
        """One argument by name; `kind` is the representation behind features, trajectory and learning_rate."""
        if name in KIND_OF:
            return self.tensor(name)
        if name in ("features", "trajectory", "learning_rate"):
            assert kind is not None
            if name == "learning_rate":
                return self.learning_rate(kind)
            array = self.tensor(MAIN[kind])
            if kind == "dynamics":  # the checkpoints are the features: [n, e] has no further axis
                return array if name == "features" else array[:, None, :]
            return array.reshape(len(array), -1) if name == "features" else array
        getters: dict[str, Callable[[], Any]] = {
            "n": lambda: len(self.rows),
            "score": self.score,
            "label": self.label,
            "group": self.group,
            "text": self.text,
        }
        if name not in getters:
            raise PruneError(f"a method asks for {name}; known: {', '.join([*KIND_OF, *getters])}")
        return getters[name]()


def _ids(path: Path) -> list[Any]:
    return [json.loads(line)["id"] for line in path.open(encoding="utf-8")]


def collect(sources: Sequence[str], fields: dict[str, str], task: Task, role: str = "") -> Inputs:
    """Open the inputs of score and select: represent and score artifacts, data files."""
    represented: list[Artifact] = []
    scored: list[Artifact] = []
    data: list[str] = []
    for source in sources:
        if is_artifact(Path(source)):
            found = open_artifact(Path(source), "represent", "score", "select")
            {"represent": represented, "score": scored}.get(found.stage, []).append(found)
            if found.stage == "select":
                data.append(source)
        else:
            data.append(source)
    if len(data) > 1:
        raise PruneError(f"more than one data file: {', '.join(data)}; one is allowed")
    if data:
        rows = open_rows(data[0], fields, task.check)
    elif represented:
        rows = open_rows(str(represented[0].path), {}, None)
    else:
        origin = _rows_behind(scored[0])
        rows = open_rows(str(origin), fields, task.check)
        if rows.digest != scored[0].manifest["recipe"]["inputs"]["rows"]:
            raise PruneError(
                f"{origin}: its rows are no longer those that {scored[0].path} scored",
                hint="score them again; with --field as then, if it was given",
            )
    return Inputs(rows, represented, scored, role=role)


def _rows_behind(scored: Artifact) -> Path:
    """Where the rows are that a score was computed from."""
    origin = scored.origin("rows")
    if not origin.exists():
        raise PruneError(
            f"{scored.path}: the rows it scored are no longer at {origin}",
            hint="name the represent artifact or the data file as well",
        )
    return origin


def arguments(
    names: Sequence[str],
    optional: Sequence[str],
    given: Inputs,
    target: Inputs | None,
    on: str | None,
    supplied: dict[str, Any],
) -> tuple[dict[str, Any], str | None]:
    """Gather a method's arguments; returns them and the representation they rest on, if any.

    supplied: what comes from elsewhere (n_keep, rng). An optional argument that is not to be had is left out.
    """
    wants = [name for name in names if name not in supplied]
    bare = [name.removeprefix("target_") for name in wants]
    kind = None
    if {"features", "trajectory"} & set(bare):
        kind = given.kind(on)
    elif "learning_rate" in bare:
        kind = next(KIND_OF[name] for name in bare if name in KIND_OF)
    elif on is not None:
        raise PruneError(f"--on {on}: this method reads no representation of its choice; leave --on out")
    found = dict(supplied)
    for name in wants:
        if not name.startswith("target_"):
            if name in optional and name == "group" and not given.has_group():
                continue
            found[name] = given.get(name, kind)
            continue
        if target is None:
            raise PruneError("this method compares with a target set; --target ARTIFACT is needed")
        if name in optional and name == "target_group" and not target.has_group():
            continue
        _check_space(given, target, kind)
        found[name] = target.get(name.removeprefix("target_"), kind)
    if kind == "dynamics" and "trajectory" in found and "learning_rate" in found:
        found["learning_rate"] = found["learning_rate"].mean(keepdims=True)  # the trajectory has one step: [n, 1, e]
    return found, kind


def _check_space(given: Inputs, target: Inputs, kind: str | None) -> None:
    """Rows and target must have been represented alike: same model, checkpoints and options."""
    if kind is None:
        return
    ours, theirs = given.holder(kind), target.holder(kind)
    if ours.about["space"][kind] != theirs.about["space"][kind]:
        raise PruneError(
            f"{theirs.path}: its {kind} is not comparable with that of {ours.path}",
            hint="represent both with the same model, checkpoints and options",
        )
