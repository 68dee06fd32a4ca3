"""`prune show`: what an artifact is, how it was made, from what, and whether it is whole."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from prune_cli.artifacts import tensors
from prune_cli.artifacts.manifest import Artifact, canonical, open_artifact
from prune_cli.errors import PruneError
from prune_cli.report import contents
from prune_cli.report.table import plain


def facts(path: Path) -> dict[str, Any]:
    """All about an artifact. Every file is read and compared with its hash."""
    artifact = open_artifact(path)
    recipe, made = artifact.manifest["recipe"], artifact.manifest["made"]
    removed = artifact.removed
    damaged = [name for name in artifact.files if name not in removed and not _is_whole(artifact, name)]
    if damaged:
        artifact.check_same()
    unread = [*damaged, *removed]
    return {
        "path": str(path),
        "stage": artifact.stage,
        "about": artifact.about,
        "tensors": _tensors(artifact, unread),
        "checkpoints": _checkpoints(artifact, unread),
        **contents.contents(artifact, unread),
        "options": artifact.options,
        "inputs": {role: _input(artifact, role) for role in made["inputs"]},
        "digests": recipe["inputs"],
        "code": recipe["code"],
        "made": {name: value for name, value in made.items() if name != "inputs"},
        "files": artifact.manifest["files"],
        "damaged": damaged,
        "removed": removed,
        "missing": [name for name in damaged if not (path / name).is_file()],
    }


def text(facts: dict[str, Any]) -> str:
    """All about an artifact, in words."""
    about, made = facts["about"], facts["made"]
    sections = {
        "tensors": [f"{name}: {tensor['dtype']} {tensor['shape']}" for name, tensor in facts["tensors"].items()],
        **contents.lines(facts),
        "estimated": _estimated_lines(about),
        "cut": _cut_lines(about.get("cut", {})),
        "checkpoints": _checkpoint_lines(facts),
        "options": [f"{key}: {plain(value)}" for key, value in facts["options"].items() if key != "labels"],
        "from": _input_lines(facts["inputs"]),
        "digests": [f"{role}: {_short(digest)}" for role, digest in facts["digests"].items()],
        "command": [shlex.join(["prune", *made["argv"][1:]])],
        "made": [
            f"in {made['seconds']} s on {made.get('device', 'cpu')}, peak memory {made['peak_memory_mb']} MB",
            f"by prune-cli {facts['code']['prune']}, Python {made['python']}, "
            + ", ".join(f"{name} {number}" for name, number in made["versions"].items()),
        ],
        "files": [f"{name}, {entry['bytes']:,} bytes" for name, entry in facts["files"].items()],
        "whole": [_wholeness(facts)],
    }
    lines = [f"{facts['path']}: {_summary(facts)}"]
    for title, entries in sections.items():
        lines += [f"  {'' if i else title:<13}{entry}" for i, entry in enumerate(entries)]
    return "\n".join(lines)


def _summary(facts: dict[str, Any]) -> str:
    about, opts = facts["about"], facts["options"]
    match facts["stage"]:
        case "represent":
            return f"{about['rows']} rows represented by {', '.join(about['kinds'])}"
        case "score":
            return f"scores of {about['rows']} rows by {opts['method']}. {about['meaning']}"
        case "corrupt":
            return f"{about['rows']} rows: {about['changed']} with another answer, {about['copies']} copies"
        case "select":
            among = f"{about['candidates']} that may be kept, of " if "candidates" in about else ""
            return f"{about['kept']} of {among}{about['rows']} rows, chosen by {opts['method']}"
        case "export":
            return f"{about['rows']} kept rows for {about['for']}"
        case "finetune":
            return f"a model trained on {about['rows']} rows in {about['steps']} steps"
        case "eval":
            tests = [f"{name} ({n} rows)" for name, n in about["tests"].items()]
            return f"measurements on {', '.join(tests)}"
        case "simulate":
            return f"points in the plane, {about['kept']} of {about['points']['train']} kept, {about['seeds']} seeds"
        case stage:
            return f"made by prune {stage}"


def _is_whole(artifact: Artifact, name: str) -> bool:
    try:
        artifact.file(name)
    except PruneError:
        return False
    return True


def _wholeness(facts: dict[str, Any]) -> str:
    if facts["damaged"]:
        return f"no: {', '.join(_how(facts, name) for name in facts['damaged'])}"
    if facts["removed"]:
        return f"no: {len(facts['removed'])} of {len(facts['files'])} files were removed after their use"
    return "yes: every file is as it was written"


def _how(facts: dict[str, Any], name: str) -> str:
    """A file that is not as it was written, and whether it is there at all."""
    return f"{name} {'is missing' if name in facts['missing'] else 'differs'}"


def _tensor_files(artifact: Artifact, damaged: list[str]) -> list[Path]:
    """The whole files of ours that hold tensors; a model's weights are not among them."""
    names = [name for name in artifact.files if name.endswith(".safetensors") and name not in damaged]
    return [artifact.path / name for name in names if artifact.stage == "represent" or name == "dynamics.safetensors"]


def _tensors(artifact: Artifact, damaged: list[str]) -> dict[str, dict[str, Any]]:
    """Name -> shape and type of each tensor."""
    shown = {}
    for path in _tensor_files(artifact, damaged):
        for name, array in sorted(tensors.load(path).items()):
            shown[name] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    return shown


def _checkpoints(artifact: Artifact, damaged: list[str]) -> dict[str, Any]:
    """Name of each kept checkpoint -> mean learning rate over its span of training; in represent, for each kind."""
    if artifact.stage == "finetune":
        return {checkpoint["name"]: checkpoint["learning_rate"] for checkpoint in artifact.about["checkpoints"]}
    kinds = {path.stem: tensors.metadata(path) for path in _tensor_files(artifact, damaged)}
    return {kind: dict(zip(meta["checkpoints"], meta["learning_rate"], strict=True)) for kind, meta in kinds.items()}


def _checkpoint_lines(facts: dict[str, Any]) -> list[str]:
    """The checkpoints in words; kinds that rest on the same ones share their lines."""
    by_kind = facts["checkpoints"] if facts["stage"] == "represent" else {"": facts["checkpoints"]}
    shared: dict[str, list[str]] = {}
    for kind, rates in by_kind.items():
        shared.setdefault(canonical(list(rates.items())), []).append(kind)
    lines = []
    for pairs, kinds in shared.items():
        of = f"{', '.join(kinds)} " if len(shared) > 1 else ""
        lines += [f"{of}{name}: mean learning rate {rate:.3g}" for name, rate in json.loads(pairs)]
    return lines


def _estimated_lines(about: dict[str, Any]) -> list[str]:
    """Of each kind that is computed of some rows alone how many these are, and how good the estimates of the others."""
    lines = []
    for kind, entry in about.get("landmarks", {}).items():
        told = ["unknown" if at["spearman"] is None else f"{at['spearman']:.2f}" for at in entry["checkpoints"]]
        lines.append(
            f"{kind}: of {about['rows'] - entry['rows']:,} rows, from {entry['rows']:,} that were computed; Spearman's "
            f"correlation of these with their own estimates, at each checkpoint: {', '.join(told)}"
        )
    return lines


def _cut_lines(cut: dict[str, dict[str, int]]) -> list[str]:
    """How many rows were cut to the most tokens allowed, where any were."""
    return [
        f"{role}: {entry['rows']:,} of {entry['of']:,} to {entry['max_length']:,} tokens; {entry['tokens']:,} lost"
        for role, entry in cut.items()
        if entry["rows"]
    ]


def _input(artifact: Artifact, role: str) -> str:
    """Where an input is, seen from here; what is no path (a hub name, standard input) under the name it was given."""
    path = artifact.origin(role)
    named = str(artifact.manifest["made"]["inputs"][role])
    if named == "-":
        return "standard input"
    return str(path) if path.exists() or "/" in named else named


def _input_lines(inputs: dict[str, str]) -> list[str]:
    """Each input once, with all that it is used for."""
    roles: dict[str, list[str]] = {}
    for role, path in inputs.items():
        roles.setdefault(path, []).append(role)
    return [f"{', '.join(names)}: {path}" for path, names in roles.items()]


def _short(digest: str) -> str:
    """The head of a sha256; a hub name with its commit as it is."""
    return digest if ":" in digest else digest[:12]
