"""The artifacts that are compared: found, named, and brought into one order of rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prune_cli import tasks
from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.artifacts.manifest import MANIFEST, PART, Artifact, is_artifact, open_artifact
from prune_cli.data.fingerprints import IDS, fingerprint
from prune_cli.data.open import rows_behind
from prune_cli.errors import PruneError

STAGES = ("score", "select", "represent")
ALLOWED = "allowed: artifacts about the same rows"


@dataclass(frozen=True)
class Item:
    """An artifact, what it is called in tables, and where each of the n rows stands in it; None: at its own place."""

    name: str
    artifact: Artifact
    order: NDArray[np.int64] | None = None

    def arranged(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Values [n] of the artifact, in the order of the rows."""
        return values if self.order is None else values[self.order]


@dataclass(frozen=True)
class Inputs:
    """What is compared, about n rows; left_out: artifacts of a pipeline that are not, and why."""

    n: int
    scores: list[Item]
    selections: list[Item]
    represented: list[Item]
    left_out: dict[str, str] = field(default_factory=dict)


def gather(names: Sequence[str], *, all_seeds: bool) -> Inputs:
    """Open artifacts, or those of a pipeline's folder: its scores, its selections, its representations.

    Of what a pipeline made with several seeds the first is taken, or all. Raises PruneError where rows differ.
    """
    found: dict[str, Artifact] = {}
    left_out: dict[str, str] = {}
    for name in names:
        path = Path(name)
        of_run = path.is_dir() and not is_artifact(path) and (path / "methods").is_dir()
        several = _of_run(path, left_out, all_seeds=all_seeds) if of_run else {name: open_artifact(path, *STAGES)}
        for own, artifact in several.items():
            if own in found:
                raise PruneError(f"{own}: given twice; allowed: each artifact once")
            found[own] = artifact
    if len(found) < 2:
        raise PruneError(f"{', '.join(names)}: {len(found)} artifact to compare; allowed: two or more")
    return _inputs(_short(found) if list(found) == list(names) else found, left_out)


def gather_run(run: Path) -> Inputs:
    """What there is so far of a pipeline's folder, however little; of several seeds the first."""
    left_out: dict[str, str] = {}
    return _inputs(_of_run(run, left_out, all_seeds=False), left_out)


def _inputs(found: dict[str, Artifact], left_out: dict[str, str]) -> Inputs:
    items = _joined(found) if found else []
    of = {stage: [item for item in items if item.artifact.stage == stage] for stage in STAGES}
    n = items[0].artifact.about["rows"] if items else 0
    return Inputs(n, of["score"], of["select"], of["represent"], left_out)


def _of_run(run: Path, left_out: dict[str, str], *, all_seeds: bool) -> dict[str, Artifact]:
    """The artifacts of a pipeline's folder by name, such as `less/keep-0.1` for a selection."""
    found: dict[str, Artifact] = {}
    scores = artifacts((run / "score").glob("*"))
    selections = artifacts((run / "methods").glob("*/keep-*/**/select"))
    for path in _first_seeds(scores, all_seeds=all_seeds):
        found[path.name] = open_artifact(path, "score")
    for path in _first_seeds(selections, all_seeds=all_seeds):
        name = path.parent.relative_to(run / "methods").as_posix()
        artifact = open_artifact(path, "select")
        if artifact.about["kept"] == artifact.about["rows"]:
            left_out[name] = "it keeps every row"
        else:
            found[name] = artifact
    for path in artifacts((run / "represent" / "train").glob("**")):
        name, artifact = path.relative_to(run / "represent" / "train").as_posix(), open_artifact(path, "represent")
        if not all((path / file).is_file() for file in artifact.files):
            left_out[name] = "its files were removed"
        else:
            found[name] = artifact
    return found


def artifacts(paths: Iterable[Path]) -> list[Path]:
    """The finished artifacts among folders, in order of name."""
    whole = [path for path in paths if not path.name.endswith(PART) and (path / MANIFEST).is_file()]
    return sorted(whole, key=_natural)


def _natural(path: Path) -> list[tuple[int, float, str]]:
    """A key by which numbers in names count as numbers: keep-0.05 before keep-0.1, and seed-2 before seed-10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", path.as_posix())
    return [(0, float(part), "") if i % 2 else (1, 0.0, part) for i, part in enumerate(parts)]


def _first_seeds(paths: Sequence[Path], *, all_seeds: bool) -> list[Path]:
    """Of paths that differ in their seeds alone the first, or all."""
    if all_seeds:
        return list(paths)
    first: dict[str, Path] = {}
    for path in paths:
        first.setdefault(re.sub(r"seed-\d+", "seed", path.as_posix()), path)
    return list(first.values())


def _short(found: dict[str, Artifact]) -> dict[str, Artifact]:
    """The artifacts by the ends of their names where these differ, else by the whole."""
    ends = [Path(name).name for name in found]
    single = len(set(ends)) == len(ends) and "select" not in ends
    return dict(zip(ends, found.values(), strict=True)) if single else found


def _joined(found: dict[str, Artifact]) -> list[Item]:
    """The artifacts in the order of the first one's rows. Raises PruneError where one is about other rows."""
    first = next(iter(found.values()))
    items, known = [], None
    for name, artifact in found.items():
        if artifact.about["rows"] != first.about["rows"]:
            counts = f"{artifact.about['rows']:,} rows; {first.path} about {first.about['rows']:,}"
            raise PruneError(f"{artifact.path}: about {counts}; {ALLOWED}")
        order = None
        if _digest(artifact) != _digest(first):
            known = known or _keys(first)
            order = _order(known, first, _keys(artifact), artifact)
        items.append(Item(name, artifact, order))
    return items


def _digest(artifact: Artifact) -> str:
    """The digest of the rows that an artifact is about."""
    return str(artifact.about["digest"] if artifact.stage == "represent" else artifact.inputs["rows"])


def _keys(artifact: Artifact) -> dict[str, str]:
    """Id -> fingerprint of the rows that an artifact is about, in its order; a selection's are read again."""
    if artifact.stage == "select":
        rows = rows_behind(artifact, tasks.load(artifact.options["task"]).check)
        return {str(key): fingerprint(row) for key, row in zip(rows.ids, rows, strict=True)}
    return {str(line["id"]): str(line["fingerprint"]) for line in read_jsonl(artifact.file(IDS))}


def _order(known: dict[str, str], first: Artifact, keys: dict[str, str], artifact: Artifact) -> NDArray[np.int64]:
    """Where each of the known rows stands among an artifact's."""
    at = {key: i for i, key in enumerate(keys)}
    for key, print_ in known.items():
        if keys.get(key) != print_:
            problem = "is that of another row" if key in keys else "is not in it"
            raise PruneError(f"{artifact.path}: id {key} of {first.path} {problem}; {ALLOWED}")
    return np.fromiter((at[key] for key in known), np.int64, len(known))
