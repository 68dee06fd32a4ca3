"""Advice from what a pipeline's folder holds: a finished grid, or what there is of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.artifacts.manifest import open_artifact
from prune_cli.errors import PruneError
from prune_cli.numeric.inference import Difference, differences
from prune_cli.pipeline import results
from prune_cli.pipeline.advise.choice import FULL, NONE, Advice, Key, Measured, advise
from prune_cli.pipeline.evidence import BASELINE, Trial, Values, is_without, of_artifacts, row_values
from prune_cli.runtime.progress import note


def advice_of(run: Path, metric: str | None, margin: float | None) -> list[Advice]:
    """The advice for each test set of a run; what is wrong with what is advised is told.

    metric: in place of the first of the table.
    """
    found = [advise(measured, margin) for measured in measured_in(run, metric)]
    advised = {(advice.recommended.method, advice.recommended.keep) for advice in found}
    trials = [trial for trial in map(results.trial, results.read(run).results) if trial[:2] in advised]
    places = {trial: results.of_trial(run, *trial) for trial in trials}
    for warning in of_artifacts({trial: [*selected, judged] for trial, (selected, judged) in places.items()}):
        note(f"warning: {warning}")
    return found


def measured_in(run: Path, metric: str | None) -> list[Measured]:
    """What a run measured on each test set, by a metric, or by the first of the table."""
    report = results.read(run)
    trials = list(dict.fromkeys(map(results.trial, report.results)))
    if not any(method == BASELINE for method, *_ in trials):
        hint = "run the pipeline to its end" if (run / results.UNDER_WAY).is_file() else "put it among the methods"
        raise PruneError(f"{run}: no trial of random has ended; methods are held against it", hint=hint)
    judged = {trial: results.of_trial(run, *trial)[1] for trial in trials}
    task = open_artifact(next(iter(judged.values())), "eval").options["task"]
    values = {trial: row_values(path, task) for trial, path in judged.items()}
    lines = results.summary(report)
    found = []
    for test, shown in report.shown.items():
        if metric not in (None, *shown):
            raise PruneError(f"metric: {metric}; allowed for {test}: {', '.join(shown) or 'none'}")
        if not shown:
            note(f"warning: {test}: no metric that all its results have; no advice on it")
            continue
        found.append(_measured(values, test, metric or shown[0], lines))
    return found


def _measured(values: Mapping[Trial, Values], test: str, metric: str, lines: Sequence[Mapping[str, Any]]) -> Measured:
    """The runs of all trials; lines: the table's. Of lines with a run that is no number nothing is said."""
    runs: dict[Key, list[NDArray[np.float64]]] = {}
    for (method, keep, _), found in values.items():
        if (test, metric) in found and not is_without(method):
            runs.setdefault((method, keep), []).append(found[test, metric])
    stacked = {key: np.stack(arrays) for key, arrays in runs.items() if np.isfinite(arrays).all()}
    budgets = {keep for method, keep in stacked if method == BASELINE}
    stacked = {key: array for key, array in stacked.items() if key[0] in (FULL, NONE) or key[1] in budgets}
    compared = sum(method not in (FULL, NONE, BASELINE) for method, _ in stacked)
    fixed = [key for key in stacked if key[0] == NONE]

    def against(line: Key, by: float) -> Mapping[Key, Difference | None]:
        raised = {**stacked, line: stacked[line] + by}
        return differences(raised, line, fixed=fixed, compared=max(compared, 1))

    of = {(line["method"], line["keep"]): line for line in lines}
    means = {key: of[key][test][metric][0] for key in stacked}
    return Measured(test, metric, means, {key: of[key]["kept"] for key in stacked}, against, compared)
