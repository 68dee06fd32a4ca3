"""What the trials of a run came to: the table with differences to random, what is said of it, and the warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prune_cli.artifacts.manifest import is_artifact, open_artifact
from prune_cli.pipeline import evidence, results
from prune_cli.pipeline.evidence import BASELINE, REFERENCES, WITHOUT, Comparison, Values, is_without
from prune_cli.pipeline.results import Report
from prune_cli.pipeline.schema import DECONTAMINATED

MARKED = (*REFERENCES, BASELINE, WITHOUT + BASELINE)  # no methods that could be chosen, but what these are held against


def outcomes(report: Report) -> dict[str, Any]:
    """The results of a run, whole or half, as JSON values; comparisons are of what there is so far."""
    places = {trial: results.of_trial(report.out, *trial) for trial in map(results.trial, report.results)}
    kept = {trial: place for trial, place in places.items() if is_artifact(place[1])}
    task = str(open_artifact(next(iter(kept.values()))[1], "eval").options["task"])
    values: dict[evidence.Trial, Values] = {
        trial: evidence.row_values(judged, task) for trial, (_, judged) in kept.items()
    }
    compared = [c for c in evidence.compare(values) if c.metric in report.shown[c.test]]
    made = {trial: [*selected, judged] for trial, (selected, judged) in kept.items()}
    seeds = Counter((method, keep) for method, keep, _ in places)
    most = max((n for (method, _), n in seeds.items() if method not in MARKED), default=max(seeds.values()))
    lines = _lines(report, compared, seeds)
    warnings = [*_left_out(report.out), *evidence.warned(values, report.shown, most), *evidence.of_artifacts(made)]
    warnings += evidence.cuts(judged for _, judged in kept.values())
    return {
        "task": task,
        "finished": not (report.out / results.UNDER_WAY).is_file(),
        "columns": [{"test": test, "metric": metric} for test, metrics in report.shown.items() for metric in metrics],
        "lines": [line for line in lines if not is_without(line["method"])],
        "removed": [line for line in lines if is_without(line["method"])],
        "said": _said(evidence.told(compared)),
        "corruption": report.corruption,
        "lds": report.lds,
        "warnings": warnings,
    }


def _left_out(run: Path) -> list[str]:
    """What is said of training rows that stand in a test set, where a run leaves them out."""
    clean = run / DECONTAMINATED
    return list(open_artifact(clean).about["warnings"]) if is_artifact(clean) else []


def _said(told: Iterable[str]) -> list[dict[str, Any]]:
    """Sentences under their heads: those that are set in."""
    said: list[dict[str, Any]] = []
    for line in filter(None, told):
        if line.startswith(" "):
            said[-1]["lines"].append(line.strip())
        else:
            said.append({"head": line, "lines": []})
    return said


def _lines(
    report: Report, compared: Sequence[Comparison], seeds: Mapping[tuple[str, str], int]
) -> list[dict[str, Any]]:
    """A line for each method and budget: rows, seeds, and for each column mean, deviation and difference to random.

    A reference is compared with random at every budget of random: `difference` is a list.
    """
    found: dict[tuple[str, str, str, str], list[Comparison]] = {}
    for c in compared:
        keep = "" if c.method in REFERENCES else c.keep
        found.setdefault((c.method, keep, c.test, c.metric), []).append(c)
    lines = []
    for line in results.summary(report):
        method, keep = line["method"], line["keep"]
        cells = []
        for test, metrics in report.shown.items():
            for metric in metrics:
                mean, deviation = line[test][metric] if test in line else (None, None)
                own = found.get((method, "" if method in REFERENCES else keep, test, metric), [])
                cells.append({"mean": mean, "deviation": deviation, "differences": [_difference(c) for c in own]})
        lines.append(
            {
                "method": method,
                "keep": keep,
                "rows": line["kept"],
                "seeds": seeds[method, keep],
                "marked": method in MARKED,
                "cells": cells,
            }
        )
    return lines


def _difference(c: Comparison) -> dict[str, Any]:
    d = c.difference
    return {
        "keep": c.keep,
        "estimate": d.estimate,
        "low": d.low,
        "high": d.high,
        "p": c.p,
        "verdict": c.verdict,
        "reference": c.method in REFERENCES,
    }
