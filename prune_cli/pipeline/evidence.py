"""Whether a method is better than a random draw: each budget's runs against those of random, on the same test rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli import tasks
from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.numeric.inference import Difference, differences, holm

BASELINE = "random"
REFERENCES = ("full", "none")  # compared too, but no methods that could be chosen
LOWER = ("loss",)  # metrics of which less is better
LEVEL = 0.05

Trial = tuple[str, str, int | None]  # method, keep, seed
Values = dict[tuple[str, str], NDArray[np.float64]]  # test set, metric -> a value of each row


@dataclass(frozen=True)
class Comparison:
    """A method at a budget against random at that budget, by one metric on one test set.

    p: adjusted for all methods and budgets compared on that test set (Holm). verdict: better or worse than random, or
    unclear, at 5%; of references, which are not among those compared, unadjusted.
    """

    test: str
    metric: str
    method: str
    keep: str
    difference: Difference
    p: float
    verdict: str

    @property
    def facts(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        own = {name: getattr(self, name) for name in ("test", "metric", "method", "keep", "p", "verdict")}
        return {**own, **{k: v for k, v in asdict(self.difference).items() if k != "p"}}


def compare(judged: Mapping[Trial, Path], task: str) -> list[Comparison]:
    """All comparisons of a run with random, test set by test set; none where random has fewer than two seeds."""
    values = {trial: row_values(path, task) for trial, path in judged.items()}
    columns = list(dict.fromkeys(column for of_trial in values.values() for column in of_trial))
    return [found for column in columns for found in _of_column(values, *column)]


def row_values(path: Path, task: str) -> Values:
    """What each row of each test set adds to the metrics of an evaluation."""
    artifact = open_artifact(path, "eval")
    lines: dict[str, list[dict[str, Any]]] = {}
    for line in artifact.read("predictions.jsonl", lambda file: list(read_jsonl(file))):
        lines.setdefault(line["test"], []).append(line)
    found: Values = {}
    for test, rows in lines.items():
        values = (
            _of_benchmark(rows) if "filter" in rows[0] else tasks.load(task).row_values(rows, artifact.about["labels"])
        )
        found |= {(test, metric): array for metric, array in values.items()}
    return found


def _of_benchmark(rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[np.float64]]:
    """Of a task of lm-eval the metrics that each document has a number for."""
    found = {}
    for filtered in dict.fromkeys(row["filter"] for row in rows):
        own = [row for row in rows if row["filter"] == filtered]
        for name, value in own[0].items():
            if isinstance(value, (int, float)) and name not in ("id", "reference", "prediction"):
                metric = name if filtered == "none" else f"{name},{filtered}"
                found[metric] = np.array([row[name] for row in own], np.float64)
    return found


def _of_column(values: Mapping[Trial, Values], test: str, metric: str) -> Iterator[Comparison]:
    runs: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for (method, keep, _), of_trial in values.items():
        if (test, metric) in of_trial:
            runs.setdefault((method, keep), []).append(of_trial[test, metric])
    stacked = {line: np.stack(arrays) for line, arrays in runs.items()}
    lines = [line for line in stacked if line[0] != BASELINE]
    budgets = [keep for method, keep in stacked if method == BASELINE]
    own = [line for line in lines if line[0] not in REFERENCES and line[1] in budgets]
    fixed = [line for line in lines if line[0] == "none"]
    found: list[tuple[str, str, Difference]] = []
    for keep in budgets:
        members = {line: stacked[line] for line in stacked if line == (BASELINE, keep) or line[0] in REFERENCES}
        members |= {line: stacked[line] for line in own if line[1] == keep}
        pooled = {line: array for line, array in stacked.items() if line not in members}
        known = differences({**members, **pooled}, (BASELINE, keep), fixed=fixed, compared=max(len(own), 1))
        found += [(line[0], keep, difference) for line in members if (difference := known.get(line)) is not None]
    family = [difference.p for method, _, difference in found if method not in REFERENCES]
    adjusted = iter(holm(family))
    sign = -1 if metric in LOWER else 1
    for method, keep, difference in found:
        p = difference.p if method in REFERENCES else next(adjusted)
        verdict = "unclear" if p > LEVEL else "better" if sign * difference.estimate > 0 else "worse"
        yield Comparison(test, metric, method, keep, difference, p, verdict)


def told(comparisons: Sequence[Comparison], seeds: int) -> Iterator[str]:
    """What the comparisons say, a sentence for each test set, metric and budget."""
    for test, metric in dict.fromkeys((c.test, c.metric) for c in comparisons):
        for keep in dict.fromkeys(c.keep for c in comparisons):
            here = [c for c in comparisons if (c.test, c.metric, c.keep) == (test, metric, keep)]
            methods = [c for c in here if c.method not in REFERENCES]
            if not methods:
                continue
            parts = [
                f"{verdict}: {', '.join(_shown(c) for c in methods if c.verdict == verdict)}"
                for verdict in ("better", "worse")
                if any(c.verdict == verdict for c in methods)
            ]
            if not any(c.verdict == "better" for c in methods):
                parts.insert(0, "no method is better than random here")
            least = float(np.median([c.difference.detectable for c in methods]))
            yield f"{test} {metric}, keep {keep}: {'; '.join(parts)} (a difference of {least:.3f} would have been seen)"


def _shown(comparison: Comparison) -> str:
    d = comparison.difference
    return f"{comparison.method} {d.estimate:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
