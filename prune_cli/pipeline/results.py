"""What a run of the pipeline came to: its steps, its results, and the table of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prune_cli import tasks
from prune_cli.artifacts import files
from prune_cli.artifacts.drafts import is_taken
from prune_cli.artifacts.files import alone, replace_file
from prune_cli.artifacts.jsonl import read_jsonl, write_jsonl
from prune_cli.artifacts.manifest import MANIFEST, PART, is_artifact, open_artifact
from prune_cli.errors import PruneError
from prune_cli.pipeline.evidence import WITHOUT, Comparison, Trial, is_without
from prune_cli.report import corruption
from prune_cli.report.contents import metrics_of
from prune_cli.stages.common import Outcome

RESULTS, COMPARISONS, LDS = "results.jsonl", "comparisons.jsonl", "lds.jsonl"
UNDER_WAY = f"{RESULTS}.part"  # the trials that a run is to come to; their results are in their evaluations


@dataclass(frozen=True)
class Made:
    """What is made for a trial; for the model as it is nothing is selected and trained."""

    judged: Path
    trained: Path | None = None
    selected: Path | None = None


@dataclass
class Report:
    """Each step's outcome; a result for each method, keep, seed and test set; which metrics the table shows.

    without: the results of what methods leave out, as in `results.jsonl` behind the others.
    comparisons: of methods with random, at the end. lds: how scores predict what training on halves does, at the end.
    corruption: what became of training rows that were corrupted on purpose.
    """

    out: Path
    metrics: tuple[str, ...]
    steps: list[tuple[str, Outcome]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    without: list[dict[str, Any]] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lds: list[dict[str, Any]] = field(default_factory=list)
    corruption: dict[str, Any] | None = None

    @classmethod
    def of(cls, out: Path, task: str, trials: Mapping[Trial, Made]) -> Report:
        """The results of trials that were evaluated, a line for each test set."""
        report = cls(out, tasks.load(task).TABLE_METRICS)
        report.add(of_trials(trials))
        return report

    def add(self, results: Iterable[dict[str, Any]]) -> None:
        """Take down results."""
        for result in results:
            (self.without if is_without(result["method"]) else self.results).append(result)

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
            {
                "step": label,
                "path": str(done.out),
                "state": done.state,
                "reason": done.reason,
                "seconds": round(done.seconds, 2),
            }
            for label, done in self.steps
        ]
        comparisons = [comparison.facts for comparison in self.comparisons]
        return {
            "path": str(self.out),
            "steps": steps,
            "results": self.results,
            **({"without": self.without} if self.without else {}),
            "comparisons": comparisons,
            "warnings": self.warnings,
            **({"lds": self.lds} if self.lds else {}),
            **({"corruption": self.corruption} if self.corruption else {}),
        }


def of_trials(trials: Mapping[Trial, Made]) -> Iterator[dict[str, Any]]:
    """What trials were measured at, a line for each test set."""
    for (method, keep, seed), made in trials.items():
        kept = open_artifact(made.selected).about["kept"] if made.selected else 0
        metrics = metrics_of(open_artifact(made.judged, "eval"))
        for test, values in metrics.items():
            yield {"method": method, "keep": keep, "kept": kept, "seed": seed, "test": test, **values}


def begin(out: Path, trials: Mapping[Trial, Made]) -> None:
    """Say which trials a run is to come to."""
    lines = [
        {"method": method, "keep": keep, "seed": seed}
        | {name: path and path.relative_to(out).as_posix() for name, path in asdict(made).items()}
        for (method, keep, seed), made in trials.items()
    ]
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        replace_file(out / UNDER_WAY, lambda path: write_jsonl(path, lines))


def end(report: Report) -> None:
    """Write what a run has come to. Of several that come to it, each writes the same."""
    out = report.out
    with alone(out):
        comparisons = [comparison.facts for comparison in report.comparisons]
        replace_file(out / COMPARISONS, lambda path: write_jsonl(path, comparisons))
        replace_file(out / RESULTS, lambda path: write_jsonl(path, [*report.results, *report.without]))
        if report.lds:
            replace_file(out / LDS, lambda path: write_jsonl(path, report.lds))
        else:
            (out / LDS).unlink(missing_ok=True)
        (out / UNDER_WAY).unlink(missing_ok=True)


def check_ours(out: Path) -> None:
    """Raise PruneError for a folder of something else, and for a file that stands where results go and is none."""
    files.check_ours(out, RESULTS, UNDER_WAY, "methods")
    began = {UNDER_WAY: b'{"method": "', RESULTS: b'{"method": "', COMPARISONS: b'{"test": "', LDS: b'{"score": "'}
    for name, beginning in began.items():
        path = out / name
        if path.exists():
            with path.open("rb") as stream:
                if stream.read(len(beginning)) not in (b"", beginning):
                    raise PruneError(f"{path}: exists and holds no results; choose another --out, or move it away")


def is_run(out: Path) -> bool:
    """Whether a folder is one of a pipeline that has results, or is to come to them."""
    return (out / UNDER_WAY).is_file() or ((out / RESULTS).is_file() and (out / "methods").is_dir())


def planned(out: Path) -> int:
    """How many trials a run under way is to come to."""
    return sum(1 for _ in read_jsonl(out / UNDER_WAY))


def making(out: Path) -> list[str]:
    """What is being made in the folder now."""
    drafts = (path for path in sorted(out.rglob(f"*{PART}")) if path.is_dir())
    places = (path.with_name(path.name.removesuffix(PART)) for path in drafts)
    return [path.relative_to(out).as_posix() for path in places if is_taken(path)]


def read(out: Path) -> Report:
    """What a run has come to so far, read from its folder: comparisons only where it has ended.

    Raises PruneError where no evaluation is there to say what the results are of.
    """
    under_way = (out / UNDER_WAY).is_file()
    trials = _ended(out) if under_way else {}
    judged = next((made.judged for made in trials.values()), None)
    if not under_way:
        judged = next((path.parent for path in (out / "methods").glob("**/eval/manifest.json")), None)
    if judged is None:
        raise PruneError(f"{out}: no evaluation has ended yet; run the pipeline again to go on")
    report = Report.of(out, open_artifact(judged, "eval").options["task"], trials)
    if not under_way:
        report.add(read_jsonl(out / RESULTS))
        report.lds += read_jsonl(out / LDS) if (out / LDS).is_file() else []
        if (out / COMPARISONS).is_file():
            try:
                report.comparisons += map(Comparison.of, read_jsonl(out / COMPARISONS))
            except (KeyError, TypeError) as failure:
                raise PruneError(f"{out / COMPARISONS}: damaged; run the pipeline again") from failure
    report.corruption = corruption.facts(out, dict.fromkeys(map(trial, report.results)))
    return report


def _ended(out: Path) -> dict[Trial, Made]:
    """The trials of a run under way that were evaluated, or found to be, since it began."""
    began = (out / UNDER_WAY).stat().st_mtime_ns
    found = {}
    for line in read_jsonl(out / UNDER_WAY):
        paths = {name: out / line[name] for name in ("judged", "trained", "selected") if line.get(name)}
        checked = paths.get("judged", out) / MANIFEST  # none in what an older version left
        if checked.is_file() and checked.stat().st_mtime_ns >= began:
            found[trial(line)] = Made(**paths)
    return found


def trial(result: dict[str, Any]) -> Trial:
    """The method, budget and seed that a result is of."""
    return result["method"], result["keep"], result["seed"]


def of_trial(out: Path, method: str, keep: str, seed: int | None) -> tuple[list[Path], Path]:
    """Where a run has the selection of a trial, none for the model as it is, and its evaluation."""
    if seed is None:
        return [], out / "methods" / method / "eval"
    folder = out / ("without" if is_without(method) else "methods")
    budget = folder / method.removeprefix(WITHOUT) / f"keep-{keep}"
    own = budget / f"seed-{seed}"
    return [path for path in (own / "select", budget / "select") if is_artifact(path)][:1], own / "eval"


def summary(report: Report, *, without: bool = False) -> list[dict[str, Any]]:
    """One line for each method and keep: per test set and metric, (mean, sample standard deviation) over seeds.

    The deviation is None where there is one seed, the mean too where a seed has null.
    """
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    values: dict[tuple[str, str], dict[tuple[str, str], list[float | None]]] = {}
    shown = report.shown
    for result in report.without if without else report.results:
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


def table(report: Report, *, without: bool = False) -> Iterator[list[str]]:
    """The table's cells, head first: a line for each method and keep, mean ± deviation over seeds for each test set.

    without: of the trials without a method's picks, in place of all others.
    """
    columns = [(test, metric) for test, metrics in report.shown.items() for metric in metrics]
    yield ["method", "keep", "rows", *(f"{test} {metric}" for test, metric in columns)]
    for line in summary(report, without=without):
        cells = [line["method"], line["keep"], str(line["kept"])]
        for test, metric in columns:
            mean, deviation = line[test][metric]
            told = "null" if mean is None else f"{mean:.3f}"
            cells.append(told + (f" ± {deviation:.3f}" if deviation is not None else ""))
        yield cells
