"""What is removed once it was used: models of trials and tensors of representations, where the file says so.

Manifests stay, so that what was made of them can be told to be up to date.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from prune_cli.artifacts.files import alone
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.artifacts.removal import remove_files
from prune_cli.pipeline.evidence import LOWER, Trial
from prune_cli.pipeline.results import Report
from prune_cli.pipeline.schema import Plan
from prune_cli.pipeline.work import Work
from prune_cli.stages.represent import represent


def spare_models(plan: Plan, work: Work, done: Container[Path]) -> None:
    """Remove the models of trials that were evaluated, all or all but the best so far. done: what is up to date."""
    if plan.keep_models == "all":
        return
    trials = {trial: made for trial, made in work.trials.items() if made.judged in done}
    kept = [*trials] if plan.keep_models == "best" else []
    if kept and (best := best_trial(Report.of(work.out, plan.task, trials))):
        kept = [best]
    halves = [half for half in work.halves if half.judged in done]
    for made in (*(made for trial, made in trials.items() if trial not in kept), *halves):
        if made.trained:
            _remove(work, made.trained)


def spare_representations(plan: Plan, work: Work) -> None:
    """Remove the tensors of representations that nothing is to be made of any more; their rows stay."""
    for step in () if plan.keep_representations else work.steps:
        if step.stage is represent:
            _remove(work, step.out, ".safetensors")


def _remove(work: Work, path: Path, ending: str = "") -> None:
    with alone(work.out):  # other runs over the folder do the same
        if not open_artifact(path).removed:
            remove_files(path, ending)


def best_trial(report: Report) -> Trial | None:
    """The trial that trained a model and has the best first metric of the table; of equal ones the first.

    None where none has one.
    """
    test, metrics = next(iter(report.shown.items()), ("", []))
    metric = metrics[0] if metrics else ""
    lines = [line for line in report.results if line["test"] == test and line["kept"] and line.get(metric) is not None]
    best = max(lines, key=lambda line: line[metric] * (-1 if metric in LOWER else 1), default=None)
    return (best["method"], best["keep"], best["seed"]) if best else None
