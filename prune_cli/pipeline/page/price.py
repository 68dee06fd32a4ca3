"""What a run cost: time, peak memory and disk of each stage, and the price of each method.

The figures are those of the manifests. Time is of the making alone, and of a stage that was interrupted of its last
part. What several methods use is counted once among the stages, and for each method as if it were alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from prune_cli.artifacts.manifest import MANIFEST, PART, Artifact, is_artifact, open_artifact
from prune_cli.pipeline import results
from prune_cli.pipeline.evidence import Trial, is_without
from prune_cli.pipeline.schema import DECONTAMINATED

KINDS = (
    *("split", "decontaminate", "corrupt", "warm-up", "represent", "score", "select", "finetune", "eval"),
    *("without picks", "halves"),
)
PLACES = {
    "split": "split",
    DECONTAMINATED: "decontaminate",
    "warmup": "warm-up",
    "warmup-rows": "warm-up",
    "without": "without picks",
    "lds": "halves",
}
OF_TRIALS = ("methods/", "without/", "lds/")  # what methods do not share


@dataclass(frozen=True)
class Stage:
    """A finished artifact of a run: its place in the folder, and what it cost."""

    place: str
    artifact: Artifact

    @property
    def kind(self) -> str:
        """What it is for where that is in common to several stages, else the name of its stage."""
        return PLACES.get(self.place.partition("/")[0], self.artifact.stage)

    @property
    def seconds(self) -> float:
        """How long it took to make."""
        return float(self.artifact.manifest["made"]["seconds"])

    @property
    def bytes(self) -> int:
        """What its files take on disk, those that are still there."""
        files = self.artifact.manifest["files"].items()
        return sum(int(entry["bytes"]) for name, entry in files if (self.artifact.path / name).is_file())

    @property
    def facts(self) -> dict[str, Any]:
        """All of it as JSON values."""
        made = self.artifact.manifest["made"]
        return {
            "place": self.place,
            "stage": self.kind,
            "seconds": self.seconds,
            "peak_memory_mb": made["peak_memory_mb"],
            "peak_device_memory_mb": made.get("peak_device_memory_mb"),
            "device": made.get("device", "cpu"),
            "bytes": self.bytes,
        }


def stages(run: Path) -> dict[Path, Stage]:
    """The finished artifacts of a run, by their real paths, in the order of their names."""
    found = {}
    for path in sorted(manifest.parent for manifest in run.rglob(MANIFEST)):
        place = path.relative_to(run)
        if not any(part.endswith(PART) for part in place.parts) and is_artifact(path):
            stage = Stage(place.as_posix(), open_artifact(path))
            if stage.kind in KINDS:
                found[path.resolve()] = stage
    return found


def price(run: Path, found: Mapping[Path, Stage], trials: Iterable[Trial]) -> dict[str, Any]:
    """Totals of each kind of stage, the stages that methods share, and what each method costs at each budget."""
    of_kind: dict[str, list[Stage]] = {}
    for stage in sorted(found.values(), key=lambda stage: KINDS.index(stage.kind)):
        of_kind.setdefault(stage.kind, []).append(stage)
    shared = [stage.facts for stage in found.values() if not stage.place.startswith(OF_TRIALS)]
    return {
        "stages": [{"stage": name, **_total(several)} for name, several in of_kind.items()],
        "total": _total(list(found.values())),
        "shared": sorted(shared, key=lambda facts: KINDS.index(facts["stage"])),
        "methods": _methods(run, found, trials),
    }


def _total(several: Sequence[Stage]) -> dict[str, Any]:
    facts = [stage.facts for stage in several]
    on_device = [own["peak_device_memory_mb"] for own in facts if own["peak_device_memory_mb"] is not None]
    return {
        "artifacts": len(facts),
        "seconds": sum(own["seconds"] for own in facts),
        "peak_memory_mb": max((own["peak_memory_mb"] for own in facts), default=0),
        "peak_device_memory_mb": max(on_device, default=None),
        "bytes": sum(own["bytes"] for own in facts),
    }


def _methods(run: Path, found: Mapping[Path, Stage], trials: Iterable[Trial]) -> list[dict[str, Any]]:
    """For each method and budget seconds of one seed, a mean over seeds.

    own: its score and selection; alone: all that its selection rests on, with what it shares; train; eval; total: alone
    and train, the way from the data to a model.
    """
    several: dict[tuple[str, str], list[dict[str, float]]] = {}
    for trial in dict.fromkeys(trial for trial in trials if not is_without(trial[0])):
        selected, judged = results.of_trial(run, *trial)
        trained = judged.parent / "finetune"
        if not selected or any(path.resolve() not in found for path in (*selected, trained, judged)):
            continue
        behind = _behind(selected[0].resolve(), found)
        own = sum(stage.seconds for stage in behind if stage.place.startswith(("score/", "methods/")))
        alone = sum(stage.seconds for stage in behind)
        train = found[trained.resolve()].seconds
        seconds = {"own": own, "alone": alone, "train": train, "eval": found[judged.resolve()].seconds}
        several.setdefault(trial[:2], []).append({**seconds, "total": alone + train})
    return [
        {
            "method": method,
            "keep": keep,
            "seeds": len(costs),
            **{name: fmean(cost[name] for cost in costs) for name in costs[0]},
        }
        for (method, keep), costs in several.items()
    ]


def _behind(path: Path, found: Mapping[Path, Stage]) -> list[Stage]:
    """A stage and all that it was made of, each once."""
    waiting, seen = [path], dict[Path, Stage]()
    while waiting:
        here = waiting.pop()
        if here in seen or here not in found:
            continue
        seen[here] = found[here]
        artifact = found[here].artifact
        waiting += [artifact.origin(role).resolve() for role in artifact.manifest["made"]["inputs"]]
    return list(seen.values())
