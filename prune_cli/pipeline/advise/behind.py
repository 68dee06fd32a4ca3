"""What stands behind a selection: the artifacts that it rests on, what they cost, and the commands that make them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prune_cli import options
from prune_cli.artifacts.manifest import Artifact, is_artifact, open_artifact
from prune_cli.data.fields import pairs_of
from prune_cli.data.formats import AUTO
from prune_cli.data.open import Reading, reading_behind
from prune_cli.represent import kinds

RECORDS = {
    "finetune": options.Finetune,
    "represent": options.Represent,
    "score": options.Score,
    "select": options.Select,
}
# what a recipe has beside the options of its stage, or what the command line says in another way
NOT_OPTIONS = ("labels", "n_keep", "kind", "checkpoints", "set", "method")


def behind(path: Path) -> list[Artifact]:
    """An artifact and all that it was made of, each once, what is read before what reads it; data files are left out.

    What a pipeline split off its rows, decontaminated or corrupted counts as data.
    """
    found: dict[Path, Artifact] = {}

    def visit(path: Path) -> None:
        if path.resolve() in found or not is_artifact(path):
            return
        artifact = open_artifact(path)
        opts = artifact.options
        if (
            artifact.stage == "corrupt"
            or opts.get("method") == "split"
            or (artifact.stage == "select" and "keep" in opts)
        ):
            return
        for role in artifact.manifest["made"]["inputs"]:
            visit(artifact.origin(role))
        found[path.resolve()] = artifact

    visit(path)
    return list(found.values())


def seconds(paths: Iterable[Path]) -> float:
    """What making these artifacts took, with all that they rest on; what several rest on counts once."""
    spent = {a.path.resolve(): a.manifest["made"]["seconds"] for path in paths for a in behind(path)}
    return float(sum(spent.values()))


@dataclass(frozen=True)
class _Places:
    """Where commands read and write: their folder, other data in place of some, and the kinds that are needed.

    reading: how data files are read.
    """

    out: str
    data: Mapping[Path, str]
    wanted: tuple[str, ...]
    reading: Reading


def commands(
    selected: Path,
    keep: str,
    out: str,
    wanted: Iterable[str] = (),
    data: Mapping[Path, str] = {},
    reading: Reading | None = None,
) -> list[str]:
    """The commands that make a selection again in the folder `out`, keeping `keep`.

    wanted: the kinds of representation that its method reads; if none are named, all that were made. data: rows to be
    read in place of those at a path, as of the sub-pool that a selection was tried on. reading: how data files are
    read; None: as those were that the artifacts were made of.
    """
    instead = {path.resolve(): name for path, name in data.items()}
    chain = [artifact for artifact in behind(selected) if artifact.path.resolve() not in instead]
    places = _Places(out, instead, tuple(wanted), reading or _reading(chain))
    names = _names(chain, out)
    return [_command(artifact, names, places, keep) for artifact in chain]


def _names(chain: Sequence[Artifact], out: str) -> dict[Path, str]:
    """The folder that each artifact is made in: its stage, numbered where there are several of it."""
    called = {"finetune": "warmup", "select": "warmup-rows"}
    names: dict[Path, str] = {}
    *before, last = chain
    for artifact in before:
        name = f"{out}/{called.get(artifact.stage, artifact.stage)}"
        taken = sum(other.startswith(name) for other in names.values())
        names[artifact.path.resolve()] = name + (f"-{taken + 1}" if taken else "")
    return {**names, last.path.resolve(): f"{out}/kept"}


def _reading(chain: Sequence[Artifact]) -> Reading:
    """How the data files were read that artifacts were made of: a key for each name, or several where they differ."""
    abouts = [artifact.about for artifact in chain if "fields" in artifact.about]
    found = [reading_behind(about) for about in abouts]
    fields = [about[of] for about in abouts for of in ("fields", "target_fields") if of in about]
    names = dict.fromkeys(name for own in fields for name in own)
    formats = {reading.format for reading in found}
    return Reading(
        fields={name: tuple(dict.fromkeys(own.get(name, name) for own in fields)) for name in names},
        drop=tuple(dict.fromkeys(key for reading in found for key in reading.drop)),
        skip_bad=any(reading.skip_bad for reading in found),
        format=formats.pop() if len(formats) == 1 else AUTO,
    )


def _command(artifact: Artifact, names: Mapping[Path, str], places: _Places, keep: str) -> str:
    """One command, its inputs first."""
    stage, opts = artifact.stage, artifact.options
    roles = {role: _place(artifact, role, names, places) for role in artifact.manifest["made"]["inputs"]}
    several = [place for role, place in roles.items() if role.startswith("input ")]
    words = [stage, *(dict.fromkeys(several) or [roles["rows"]]), "-o", names[artifact.path.resolve()]]
    if stage in ("finetune", "represent"):
        words += ["--model", roles["model"]]
    else:
        words += ["--method", opts["method"]]
    if stage == "represent":
        held = [kind for kind in opts["kind"] if not places.wanted or kind in places.wanted]
        words += ["--kind", ",".join(held or opts["kind"])]
        steps = opts["checkpoints"]
        words += ["--checkpoints", steps if isinstance(steps, str) else ",".join(steps)]
        others = {name for name in kinds.options() if not set(kinds.users(name)) & set(held or opts["kind"])}
        opts = {name: value for name, value in opts.items() if name not in others}
    if stage == "select":
        share = keep if artifact.path.resolve() == list(names)[-1] else str(opts["n_keep"] / artifact.about["rows"])
        words += ["--keep", share]
    if "target" in roles:
        words += ["--target-data" if stage == "represent" else "--target", roles["target"]]
    words += _flags(stage, opts)
    words += [word for name, value in opts.get("set", {}).items() for word in ("--set", f"{name}={_plain(value)}")]
    given = [*words[1 : words.index("-o")], *(place for role, place in roles.items() if role.startswith("target"))]
    if not all(place in names.values() or is_artifact(Path(place)) for place in given):
        words += _as_options(places.reading, places.out)
    return shlex.join(["prune", *words])


def _place(artifact: Artifact, role: str, names: Mapping[Path, str], places: _Places) -> str:
    """An input as the commands name it: what another makes, data, or a model."""
    path = artifact.origin(role)
    if path.resolve() in places.data:
        return places.data[path.resolve()]
    given = str(artifact.manifest["made"]["inputs"][role])
    return names.get(path.resolve(), short(path) if path.exists() else given)


def short(path: Path) -> str:
    """A path as seen from here, where it is below here."""
    here = Path.cwd()
    return str(path.resolve().relative_to(here)) if path.resolve().is_relative_to(here) else str(path.resolve())


def _flags(stage: str, opts: Mapping[str, Any]) -> list[str]:
    """The options that are not as they are if left out."""
    known = dict(options.declared(RECORDS[stage]))
    known |= kinds.options() if stage == "represent" else {}
    words: list[str] = []
    for name, value in opts.items():
        if name in NOT_OPTIONS or name not in known or value in (None, known[name].default):
            continue
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, _plain(value)]
    return words


def _as_options(reading: Reading, out: str) -> list[str]:
    """How data files are read, as options."""
    words = [word for name, key in pairs_of(reading.fields) for word in ("--field", f"{name}={key}")]
    words += ["--format", reading.format] if reading.format not in (None, AUTO) else []
    words += [word for key in reading.drop for word in ("--drop", key)]
    return words + (["--skip-bad", f"{out}/bad.jsonl"] if reading.skip_bad else [])


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
