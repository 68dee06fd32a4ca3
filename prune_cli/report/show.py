"""What users see of outcomes, methods and artifacts: gathered as JSON values, then put into words."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_cli.artifacts import tensors
from prune_cli.artifacts.drafts import NEW
from prune_cli.artifacts.manifest import Artifact, canonical, open_artifact
from prune_cli.errors import PruneError
from prune_cli.methods import method as methods

if TYPE_CHECKING:
    from prune_cli.pipeline.run import Report
    from prune_cli.stages.common import Outcome

HALVES = ("score", "select")


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
    if done.stage == "select":
        about = open_artifact(done.out).about
        facts |= {"kept": about["kept"], "rows": about["rows"]}
    if done.stage == "eval":
        facts["metrics"] = json.loads(open_artifact(done.out).file("metrics.json").read_text("utf-8"))
    return facts


def outcome_lines(facts: dict[str, Any]) -> list[str]:
    """What a stage did, in words."""
    stage = facts["stage"]
    lines = [f"{stage}: {happened(facts['state'], facts['reason'], facts['seconds'])}"]
    if "kept" in facts:
        lines.append(f"{stage}: kept {facts['kept']} of {facts['rows']} rows")
    for name, metrics in facts.get("metrics", {}).items():
        measured = sorted((key for key in metrics if isinstance(metrics[key], float)), key=lambda key: key == "loss")
        shown = ", ".join(f"{key} {metrics[key]:.4f}" for key in measured)
        lines.append(f"{stage}: {name}: {shown}, n {metrics['n']}")
    return lines


def happened(state: str, reason: str, seconds: float) -> str:
    """What became of a step."""
    if state == "current":
        return "up to date"
    if state == "would run":
        return f"would run: {reason}"
    return f"made in {seconds:.1f} s" + (f" ({reason})" if reason != NEW else "")


def pipeline(report: Report) -> dict[str, Any]:
    """The steps of a pipeline run, and a result for each method, keep, seed and test set."""
    steps = [
        {"step": label, "path": str(done.out), "state": done.state, "reason": done.reason}
        for label, done in report.steps
    ]
    return {"path": str(report.out), "steps": steps, "results": report.results}


def all_methods() -> dict[str, Any]:
    """The published methods, and the scores and selections that there are."""
    return {
        "published": [dataclasses.asdict(method) for method in methods.published().values()],
        **{half: {name: methods.load(half, name).summary for name in methods.names(half)} for half in HALVES},
    }


def all_methods_text(facts: dict[str, Any]) -> str:
    """All methods as a table and two lists."""
    head = ("name", "representation", "score", "select", "objective", "source")
    lines = table([head, *([method[key] for key in head] for method in facts["published"])])
    for half in HALVES:
        lines += ["", f"{half} methods:"]
        lines += table([(f"  {name}", summary) for name, summary in facts[half].items()])
    return "\n".join(lines)


def method(name: str) -> dict[str, Any]:
    """All that goes by one name: a published method, a score, a selection."""
    dashed, stem = name.replace("_", "-"), name.replace("-", "_")
    facts: dict[str, Any] = {}
    if dashed in methods.published():
        facts["published"] = dataclasses.asdict(methods.published()[dashed])
    for half in HALVES:
        if stem in methods.names(half):
            found = methods.load(half, stem)
            facts[half] = {"name": stem, "inputs": found.inputs, "options": found.options, "about": found.doc}
    if not facts:
        stems = {stem.replace("_", "-") for half in HALVES for stem in methods.names(half)}
        raise PruneError(f"method: {name}; allowed: {', '.join(sorted(stems | set(methods.published())))}")
    return facts


def method_text(facts: dict[str, Any]) -> str:
    """All that goes by one name, in words."""
    parts = []
    if "published" in facts:
        shown = {key: value for key, value in facts["published"].items() if value and key != "name"}
        lines = table([(f"  {key}", _plain(value)) for key, value in shown.items()])
        parts.append("\n".join([f"{facts['published']['name']}, as published:", *lines]))
    for half in HALVES:
        if half in facts:
            found = facts[half]
            options = [f"--set {key}={_plain(value)}" for key, value in found["options"].items()]
            parts.append(
                f"{half} {found['name']}: {found['about']}\n\n"
                f"It reads: {', '.join(found['inputs'])}.\n"
                f"Options and their defaults: {' '.join(options) or 'none'}."
            )
    return "\n\n".join(parts)


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
        "code": recipe["code"]["prune"],
        "made": {name: value for name, value in made.items() if name != "inputs"},
        "files": found.manifest["files"],
        "damaged": damaged,
    }


def artifact_text(facts: dict[str, Any]) -> str:
    """All about an artifact, in words."""
    about, made, damaged = facts["about"], facts["made"], facts["damaged"]
    sections = {
        "tensors": [f"{name}: {found['dtype']} {found['shape']}" for name, found in facts["tensors"].items()],
        "labels": [", ".join(str(label) for label in about["labels"])] if about.get("labels") else [],
        "checkpoints": _checkpoint_lines(facts),
        "options": [f"{key}: {_plain(value)}" for key, value in facts["options"].items() if key != "labels"],
        "from": [f"{role}: {place}" for role, place in facts["inputs"].items()],
        "digests": [f"{role}: {_short(digest)}" for role, digest in facts["digests"].items()],
        "command": [shlex.join(["prune", *made["argv"][1:]])],
        "made": [
            f"in {made['seconds']} s on {made.get('device', 'cpu')}, peak memory {made['peak_memory_mb']} MB",
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
            return f"scores of {about['rows']} rows by {opts['method']}. {about['meaning']}"
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


def _tensor_files(found: Artifact, damaged: list[str]) -> list[Path]:
    """The whole files of ours that hold tensors; a model's weights are not among them."""
    names = [name for name in found.files if name.endswith(".safetensors") and name not in damaged]
    return [found.path / name for name in names if found.stage == "represent" or name == "dynamics.safetensors"]


def _tensors(found: Artifact, damaged: list[str]) -> dict[str, dict[str, Any]]:
    """Name -> shape and type of each tensor."""
    shown = {}
    for path in _tensor_files(found, damaged):
        for name, array in sorted(tensors.load(path).items()):
            shown[name] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    return shown


def _checkpoints(found: Artifact, damaged: list[str]) -> dict[str, Any]:
    """Name of each kept checkpoint -> mean learning rate over its span of training; in represent, for each kind."""
    if found.stage == "finetune":
        return {checkpoint["name"]: checkpoint["learning_rate"] for checkpoint in found.about["checkpoints"]}
    kinds = {path.stem: tensors.metadata(path) for path in _tensor_files(found, damaged)}
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


def _place(found: Artifact, role: str) -> str:
    """Where an input is, seen from here; what is no path (a hub name, standard input) as it was named."""
    path = found.origin(role)
    named = str(found.manifest["made"]["inputs"][role])
    return str(path) if path.exists() else "standard input" if named == "-" else named


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value)


def _short(digest: str) -> str:
    """The head of a sha256; a hub name with its commit as it is."""
    return digest if ":" in digest else digest[:12]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, the columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)) for row in rows)
    return [line.rstrip() for line in lines]
