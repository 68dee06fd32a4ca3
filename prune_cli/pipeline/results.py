"""What a run of the pipeline came to: its steps, its results, and the table of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prune_cli import tasks
from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.errors import PruneError
from prune_cli.pipeline import attribution
from prune_cli.pipeline.evidence import Comparison, Trial, is_without, told
from prune_cli.report import corruption
from prune_cli.report.table import table as aligned
from prune_cli.stages.common import Outcome

RESULTS, COMPARISONS = "results.jsonl", "comparisons.jsonl"
UNDER_WAY = f"{RESULTS}.part"  # results as they come: they take the name when all are there


@dataclass
class Report:
    """Each step's outcome; a result for each method, keep, seed and test set; which metrics the table shows.

    selected, judged: the selection and the evaluation of each trial. comparisons: of methods with random, at the end.
    lds: how scores predict what training on halves does. corruption: what became of rows corrupted on purpose.
    """

    out: Path
    metrics: tuple[str, ...]
    steps: list[tuple[str, Outcome]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    selected: dict[Trial, list[Path]] = field(default_factory=dict)
    judged: dict[Trial, Path] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lds: list[dict[str, Any]] = field(default_factory=list)
    corruption: dict[str, Any] | None = None

    def count(self, state: str) -> int:
        """Number of steps with a state."""
        return sum(outcome.state == state for _, outcome in self.steps)

    @property
    def shown(self) -> dict[str, list[str]]:
        """Test set -> the metrics of the table that every result on it has: without generated texts some are missing.

        A task of lm-eval, which has none of them, shows its own. A metric may be null, where it is infinite.
        """
        shown: dict[str, list[str]] = {}
        for test in dict.fromkeys(result["test"] for result in self.results):
            results = [result for result in self.results if result["test"] == test]
            numbers = {name for result in results for name, value in result.items() if isinstance(value, float)}
            own = [name for name in results[0] if name in numbers and "_stderr" not in name]
            for names in (self.metrics, own):
                shown[test] = [name for name in names if all(name in result for result in results)]
                if shown[test]:
                    break
        return shown

    @property
    def facts(self) -> dict[str, Any]:
        """The run as JSON values."""
        steps = [
            {"step": label, "path": str(done.out), "state": done.state, "reason": done.reason}
            for label, done in self.steps
        ]
        comparisons = [comparison.facts for comparison in self.comparisons]
        return {
            "path": str(self.out),
            "steps": steps,
            "results": self.results,
            "comparisons": comparisons,
            "warnings": self.warnings,
            **({"lds": self.lds} if self.lds else {}),
            **({"corruption": self.corruption} if self.corruption else {}),
        }


def is_run(out: Path) -> bool:
    """Whether a folder is one of a pipeline that has results, all or the first of them."""
    return any((out / name).is_file() for name in (RESULTS, UNDER_WAY)) and (out / "methods").is_dir()


def read(out: Path) -> Report:
    """What a run has come to so far, read from its folder: comparisons only where it has ended.

    Raises PruneError where no evaluation is there to say what the results are of.
    """
    judged = next((out / "methods").glob("**/eval/manifest.json"), None)
    if judged is None:
        raise PruneError(f"{out}: no evaluation has ended yet; run the pipeline again to go on")
    report = Report(out, tasks.load(open_artifact(judged.parent, "eval").options["task"]).TABLE_METRICS)
    under_way = (out / UNDER_WAY).is_file()
    report.results += read_jsonl(out / (UNDER_WAY if under_way else RESULTS))
    if not under_way and (out / COMPARISONS).is_file():
        try:
            report.comparisons += map(Comparison.of, read_jsonl(out / COMPARISONS))
        except (KeyError, TypeError) as failure:
            raise PruneError(f"{out / COMPARISONS}: damaged; run the pipeline again") from failure
    if not under_way and (out / attribution.FILE).is_file():
        report.lds += read_jsonl(out / attribution.FILE)
    report.corruption = corruption.facts(out, dict.fromkeys(map(trial, report.results)))
    return report


def trial(result: dict[str, Any]) -> Trial:
    """The method, budget and seed that a result is of."""
    return result["method"], result["keep"], result["seed"]


def summary(report: Report) -> list[dict[str, Any]]:
    """One line for each method and keep: per test set and metric, (mean, sample standard deviation) over seeds.

    The deviation is None where there is one seed, the mean too where a seed has null.
    """
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    values: dict[tuple[str, str], dict[tuple[str, str], list[float | None]]] = {}
    shown = report.shown
    for result in report.results:
        key = (result["method"], result["keep"])
        lines.setdefault(key, {name: result[name] for name in ("method", "keep", "kept")})
        for metric in shown[result["test"]]:
            values.setdefault(key, {}).setdefault((result["test"], metric), []).append(result[metric])
    for key, line in lines.items():
        for (test, metric), over_seeds in values.get(key, {}).items():
            numbers = [value for value in over_seeds if value is not None]
            whole = len(numbers) == len(over_seeds)
            deviation = statistics.stdev(numbers) if whole and len(numbers) > 1 else None
            line.setdefault(test, {})[metric] = (statistics.fmean(numbers) if whole else None, deviation)
    return list(lines.values())


def text(report: Report) -> str:
    """The tables, and under them what they show beyond chance, how scores predict, and what of corrupted rows."""
    lines = aligned(list(table(report)))
    if any(is_without(result["method"]) for result in report.results):
        lines += ["", *aligned(list(table(report, without=True)))]
    under = (*told(report.comparisons), *attribution.lines(report.lds), *corruption.lines(report.corruption))
    return "\n".join([*lines, *under])


def table(report: Report, *, without: bool = False) -> Iterator[list[str]]:
    """The table's cells, head first: a line for each method and keep, mean ± deviation over seeds for each test set.

    without: of the trials without a method's picks, in place of all others.
    """
    columns = [(test, metric) for test, metrics in report.shown.items() for metric in metrics]
    yield ["method", "keep", "rows", *(f"{test} {metric}" for test, metric in columns)]
    for line in summary(report):
        if is_without(line["method"]) != without:
            continue
        cells = [line["method"], line["keep"], str(line["kept"])]
        for test, metric in columns:
            mean, deviation = line[test][metric]
            told = "null" if mean is None else f"{mean:.3f}"
            cells.append(told + (f" ± {deviation:.3f}" if deviation is not None else ""))
        yield cells
