"""Whether a method is better than a random draw: each budget's runs against those of random, on the same test rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli import tasks
from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.artifacts.manifest import is_artifact, open_artifact
from prune_cli.numeric.inference import Difference, differences, holm

BASELINE = "random"
REFERENCES = ("full", "none")  # compared too, but no methods that could be chosen
LOWER = ("loss",)  # metrics of which less is better
SHARES = ("accuracy", "macro_f1", "rougeL", "exact_match")  # from 0 to 1
LEVEL = 0.05
ENOUGH = 3  # seeds

Trial = tuple[str, str, int | None]  # method, keep, seed
WITHOUT = "without "  # before the method of a trial on what the method leaves out; no method is called so
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
        return {
            **own,
            "unadjusted": self.difference.p,
            **{k: v for k, v in asdict(self.difference).items() if k != "p"},
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Comparison:
        """The comparison that JSON values tell of."""
        own = {name: facts[name] for name in ("test", "metric", "method", "keep", "p", "verdict")}
        numbers = {name: facts[name] for name in ("estimate", "low", "high", "detectable")}
        return cls(**own, difference=Difference(**numbers, p=facts["unadjusted"]))


def is_without(method: str) -> bool:
    """Whether trials of that name are of what a method leaves out."""
    return method.startswith(WITHOUT)


def compare(values: Mapping[Trial, Values]) -> list[Comparison]:
    """All comparisons of a run with random, test set by test set; none where no method has two seeds."""
    columns = list(dict.fromkeys(column for of_trial in values.values() for column in of_trial))
    return [found for column in columns for found in _of_column(values, *column)]


def warned(values: Mapping[Trial, Values], shown: Mapping[str, Sequence[str]], seeds: int) -> Iterator[str]:
    """What makes a table say less than it seems to. shown: test set -> the metrics of the table."""
    if seeds < ENOUGH:
        yield f"seeds: {seeds}; with fewer than {ENOUGH} the table says little of how runs vary"
    for test, metrics in shown.items():
        for metric in metrics:
            whole = _stacked(values, test, metric)
            lines = {(method, keep) for (method, keep, _), found in values.items() if (test, metric) in found}
            for method, keep in sorted(lines - whole.keys()):
                yield f"{test} {metric}: {method}, keep {keep}, has runs in which it is no number; it is not compared"
        if not metrics:
            yield f"{test}: no metric that all its results have; the table does not show it, results.jsonl has all"
            continue
        stacked = _stacked(values, test, metrics[0])
        full, none = ([line for line in stacked if line[0] == name] for name in REFERENCES)
        if not full or not none:
            continue
        difference = differences({line: stacked[line] for line in (*full, *none)}, none[0], fixed=none)[full[0]]
        if difference is not None and _verdict(difference.p, difference, metrics[0]) != "better":
            yield f"{test} {metrics[0]}: all rows are no better to train on than none ({_interval(difference)})"


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
    """Of a task of lm-eval the metrics that each document has a number for; those of a group may have others."""
    found = {}
    for filtered in dict.fromkeys(row["filter"] for row in rows):
        own = [row for row in rows if row["filter"] == filtered]
        for name in own[0]:
            numbers = all(isinstance(row.get(name), (int, float)) for row in own)
            if numbers and name not in ("id", "reference", "prediction"):
                metric = name if filtered == "none" else f"{name},{filtered}"
                found[metric] = np.array([row[name] for row in own], np.float64)
    return found


def of_artifacts(trials: Mapping[Trial, Sequence[Path]]) -> Iterator[str]:
    """What selections and evaluations warn of, each thing once for a method and budget, and of how many seeds."""
    found: dict[tuple[str, str, str], list[str]] = {}
    seeds = Counter((method, keep) for method, keep, _ in trials)
    for (method, keep, _), paths in trials.items():
        for path in paths:
            for text in open_artifact(path).about.get("warnings", []):
                found.setdefault((method, keep, text.partition(":")[0]), []).append(text)
    for (method, keep, _), texts in found.items():
        of = f" ({len(texts)} of {seeds[method, keep]} seeds)" if seeds[method, keep] > 1 else ""
        yield f"{method} keep {keep}: {texts[0]}{of}"


def cuts(judged: Iterable[Path]) -> Iterator[str]:
    """How many rows of each test set were cut, and of the training rows in how many trainings; the most of any.

    judged: evaluations of trials; the training, where there was one, stands beside.
    """
    most: dict[str, Mapping[str, Any]] = {}
    trained: list[Mapping[str, Any]] = []
    for path in judged:
        for name, facts in open_artifact(path).about.get("cut", {}).items():
            most[name] = max(most.get(name, facts), facts, key=lambda facts: facts["rows"])
        if is_artifact(training := path.with_name("finetune")):
            trained.append(open_artifact(training).about["cut"]["rows"])
    for name, facts in most.items():
        if facts["rows"]:
            yield f"test set {name}: {_cut(facts)}"
    if some := [facts for facts in trained if facts["rows"]]:
        largest = max(some, key=lambda facts: (facts["rows"] / facts["of"], facts["rows"]))
        yield f"training rows: {_cut(largest)}; some were in {len(some):,} of {len(trained):,} trainings"


def _cut(facts: Mapping[str, Any]) -> str:
    return f"{facts['rows']:,} of {facts['of']:,} rows were cut to {facts['max_length']:,} tokens"


def _stacked(values: Mapping[Trial, Values], test: str, metric: str) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Method and budget -> the values of a metric on a test set [runs, n]; without lines where one is no number."""
    runs: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for (method, keep, _), of_trial in values.items():
        if (test, metric) in of_trial:
            runs.setdefault((method, keep), []).append(of_trial[test, metric])
    return {line: np.stack(arrays) for line, arrays in runs.items() if np.isfinite(arrays).all()}


def _of_column(values: Mapping[Trial, Values], test: str, metric: str) -> Iterator[Comparison]:
    """The comparisons at all budgets; how runs vary is learnt from all of them together."""
    stacked = _stacked(values, test, metric)
    for baseline in (BASELINE, WITHOUT + BASELINE):
        yield from _of_family(stacked, baseline, test, metric)


def _of_family(
    stacked: Mapping[tuple[str, str], NDArray[np.float64]], baseline: str, test: str, metric: str
) -> Iterator[Comparison]:
    """The comparisons with random, or those without the picks of methods with as many random rows less."""
    budgets = [keep for method, keep in stacked if method == baseline]
    alike = [line for line in stacked if is_without(line[0]) == is_without(baseline) and line[1] in budgets]
    methods = [line for line in alike if line[0] not in (baseline, *REFERENCES)]
    references = [line for line in stacked if line[0] in REFERENCES] if baseline == BASELINE else []
    fixed = [line for line in stacked if line[0] == "none"]
    found: list[tuple[str, str, Difference]] = []
    for keep in budgets:
        known = differences(stacked, (baseline, keep), fixed=fixed, compared=max(len(methods), 1))
        for line in (*references, *(line for line in methods if line[1] == keep)):
            if (difference := known[line]) is not None:
                found.append((line[0], keep, difference))
    adjusted = iter(holm([difference.p for method, _, difference in found if method not in REFERENCES]))
    for method, keep, difference in found:
        p = difference.p if method in REFERENCES else next(adjusted)
        yield Comparison(test, metric, method, keep, difference, p, _verdict(p, difference, metric))


def _verdict(p: float, difference: Difference, metric: str) -> str:
    if p > LEVEL:
        return "unclear"
    return "better" if (difference.estimate > 0) != (metric in LOWER) else "worse"


def told(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """What the comparisons say: under a head a sentence for each test set, metric and budget."""
    of_methods = [c for c in comparisons if c.method not in REFERENCES]
    kept, removed = ([c for c in of_methods if is_without(c.method) == without] for without in (False, True))
    words = {"better": "better", "worse": "worse"}
    head = "Against random, with 95% intervals; better or worse at 5% after Holm's correction:"
    yield from _told(kept, head, "keep", words, "no method is better than random here")
    words = {"worse": "missed more", "better": "missed less"}
    head = "Without a method's picks against without as many random rows; at 5% after Holm's correction:"
    yield from _told(removed, head, "without", words, "no method's picks are missed more than random rows here")


def _told(
    comparisons: Sequence[Comparison], head: str, which: str, words: Mapping[str, str], none: str
) -> Iterator[str]:
    """One family of comparisons in words. words: verdict -> what it is called, the one that is looked for first."""
    if comparisons:
        yield ""
        yield head
    for test, metric, keep in dict.fromkeys((c.test, c.metric, c.keep) for c in comparisons):
        methods = [c for c in comparisons if (c.test, c.metric, c.keep) == (test, metric, keep)]
        of = {verdict: [c for c in methods if c.verdict == verdict] for verdict in words}
        parts = [] if of[next(iter(words))] else [none]
        for verdict, word in words.items():
            named = [f"{c.method.removeprefix(WITHOUT)} {_interval(c.difference)}" for c in of[verdict]]
            parts += [f"{word}: {', '.join(named)}"] if named else []
        seen = float(np.median([c.difference.detectable for c in methods]))
        yield f"  {test} {metric}, {which} {keep}: {'; '.join(parts)} ({visible(seen, metric)})"


def visible(difference: float, metric: str) -> str:
    """The least difference that the runs would have shown, in words."""
    if metric in SHARES and difference > 1:
        return "for most methods no difference would have been seen: too few runs, or too unlike"
    if difference < 1e-9:
        return "all runs are alike, so nothing is told apart"
    return f"a difference of {difference:.3f} would have been seen"


def _interval(difference: Difference) -> str:
    return f"{difference.estimate:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
