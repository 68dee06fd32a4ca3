"""What users see of outcomes, methods and artifacts: gathered as JSON values, and put into words from those."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_cli import tensors
from prune_cli.artifact import Artifact, canonical, open_artifact
from prune_cli.errors import PruneError

if TYPE_CHECKING:
    from prune_cli.stages import Outcome


def outcome(done: Outcome) -> dict[str, Any]:
    """What a stage did, with what was kept (select) or measured (eval)."""
    facts: dict[str, Any] = {
        "path": str(done.out),
        "stage": done.stage,
        "state": done.state,
        "reason": done.reason,
        "seconds": round(done.seconds, 2),
    }
    if done.state == "would run":
        return facts
    found = open_artifact(done.out)
    if done.stage == "select":
        facts |= {"kept": found.about["kept"], "rows": found.about["rows"]}
    if done.stage == "eval":
        facts["metrics"] = json.loads(found.file("metrics.json").read_text("utf-8"))
    return facts


def outcome_lines(facts: dict[str, Any]) -> list[str]:
    """What a stage did, for people to read while it runs."""
    stage, state = facts["stage"], facts["state"]
    happened = {
        "current": "up to date",
        "would run": f"would run: {facts['reason']}",
        "made": f"made in {facts['seconds']:.1f} s",
    }[state]
    lines = [f"{stage}: {happened}"]
    if "kept" in facts:
        lines.append(f"{stage}: kept {facts['kept']} of {facts['rows']} rows")
    for name, metrics in facts.get("metrics", {}).items():
        lines.append(
            f"{stage}: {name}: accuracy {metrics['accuracy']:.4f}, macro F1 {metrics['macro_f1']:.4f}, "
            f"loss {metrics['loss']:.4f}, n {metrics['n']}"
        )
    return lines


def artifact(path: Path) -> dict[str, Any]:
    """All about an artifact. Every file is read and compared with its hash."""
    found = open_artifact(path)
    recipe, made = found.manifest["recipe"], found.manifest["made"]
    damaged = [name for name in found.files if not _is_whole(found, name)]
    return {
        "path": str(path),
        "stage": found.stage,
        "about": found.about,
        "tensors": _tensors(found, damaged),
        "checkpoints": _checkpoints(found, damaged),
        "options": found.options,
        "inputs": {role: _place(found, role) for role in made["inputs"]},
        "digests": recipe["inputs"],
        "code": recipe["code"],
        "made": {name: value for name, value in made.items() if name != "inputs"},
        "files": found.manifest["files"],
        "damaged": damaged,
    }


def artifact_text(facts: dict[str, Any]) -> str:
    """All about an artifact, in words."""
    about, made, damaged = facts["about"], facts["made"], facts["damaged"]
    sections = {
        "tensors": [f"{name}: {found['dtype']} {found['shape']}" for name, found in facts["tensors"].items()],
        "labels": [", ".join(str(label) for label in about["labels"])] if "labels" in about else [],
        "checkpoints": [
            name if rate is None else f"{name}: mean learning rate {rate:.3g}"
            for name, rate in facts["checkpoints"].items()
        ],
        "options": [
            f"{name}: {_plain(value)}" for name, value in facts["options"].items() if name != "labels"
        ],
        "from": [f"{role}: {place}" for role, place in facts["inputs"].items()],
        "digests": [f"{role}: {_short(digest)}" for role, digest in facts["digests"].items()],
        "command": [shlex.join(["prune", *made["argv"][1:]])],
        "made": [
            f"in {made['seconds']} s on {made.get('device', 'cpu')}, with at most {made['peak_memory_mb']} MB of memory",
            f"by prune-cli {facts['code']}, Python {made['python']}, "
            + ", ".join(f"{name} {number}" for name, number in made["versions"].items()),
        ],
        "files": [f"{name}, {entry['bytes']:,} bytes" for name, entry in facts["files"].items()],
        "whole": [f"no: {', '.join(damaged)}" if damaged else "yes: every file is as it was written"],
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
            return f"scores of {about['rows']} rows by {opts['method']}: {about['meaning']}"
        case "select":
            return f"{about['kept']} of {about['rows']} rows, chosen by {opts['method']}"
        case "finetune":
            return f"a model trained on {about['rows']} rows in {about['steps']} steps"
        case "eval":
            tests = [f"{name} ({n} rows)" for name, n in about["tests"].items()]
            return f"measurements on {', '.join(tests)}"
        case stage:
            return f"made by prune {stage}"


def _is_whole(found: Artifact, name: str) -> bool:
    try:
        found.file(name)
    except PruneError:
        return False
    return True


def _tensor_files(found: Artifact, damaged: list[str]) -> list[str]:
    """The files of ours that hold tensors, as far as they are whole; a model's weights are not listed."""
    names = [name for name in found.files if name.endswith(".safetensors") and name not in damaged]
    return [name for name in names if found.stage == "represent" or name == "dynamics.safetensors"]


def _tensors(found: Artifact, damaged: list[str]) -> dict[str, dict[str, Any]]:
    """Name -> shape and type of each tensor."""
    shown = {}
    for name in _tensor_files(found, damaged):
        for tensor, array in sorted(tensors.load(found.path / name).items()):
            shown[tensor] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    return shown


def _checkpoints(found: Artifact, damaged: list[str]) -> dict[str, float | None]:
    """Name of each checkpoint -> mean learning rate over its span of training."""
    kept = found.about.get("checkpoints", [])
    if found.stage == "finetune":
        return {checkpoint["name"]: checkpoint["learning_rate"] for checkpoint in kept}
    for name in _tensor_files(found, damaged):
        rates = tensors.metadata(found.path / name)["learning_rate"]
        return dict(zip(kept, rates, strict=False))
    return dict.fromkeys(kept)


def _place(found: Artifact, role: str) -> str:
    """Where an input is, as seen from here; what is no path here (a hub name, standard input) as it was named."""
    path = found.origin(role)
    named = str(found.manifest["made"]["inputs"][role])
    return str(path) if path.exists() else "standard input" if named == "-" else named


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value)


def _short(digest: str) -> str:
    """The head of a sha256; a hub name with its commit as it is."""
    return digest if ":" in digest else digest[:12]
