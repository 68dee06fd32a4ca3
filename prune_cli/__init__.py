"""prune-cli: choose which fine-tuning examples are worth training on.

The stages as functions. Each takes the options of its command by their names with underscores, makes an artifact and
returns it; an artifact that is up to date is returned at once.

    import prune_cli

    prune_cli.represent("train.jsonl", out="runs/train", model="runs/warmup", kind="gradient")
    scored = prune_cli.score("runs/train", out="runs/score", method="memorization")
    kept = prune_cli.select("runs/score", out="runs/kept", method="top", keep="30%")
    kept.about["kept"], kept.file("select.jsonl")

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_cli.version import __version__

if TYPE_CHECKING:
    from prune_cli.artifacts.manifest import Artifact
    from prune_cli.data.fields import Fields
    from prune_cli.data.open import Reading
    from prune_cli.pipeline.results import Report
    from prune_cli.stages.common import How, Outcome

__all__ = [
    "__version__",
    "advise",
    "compare",
    "evaluate",
    "export",
    "finetune",
    "merge",
    "open_artifact",
    "pipeline",
    "report",
    "represent",
    "score",
    "select",
    "simulate",
]

# Packages that are called like a stage. They are loaded before the functions below take their names: a module sets
# itself as an attribute of its package when it is loaded, and would replace a function that was there first.
for _name in ("export", "pipeline", "report", "represent", "score", "select"):
    import_module(f"{__name__}.{_name}")

Names = str | Path | Sequence[str | Path]


def represent(
    data: str | Path,
    out: str | Path,
    *,
    fields: Fields | None = None,
    format: str = "auto",
    drop: Sequence[str] = (),
    skip_bad: str | Path | None = None,
    replace: bool = False,
    force: bool = False,
    **options: Any,
) -> Artifact:
    """Represent rows by a model: hidden states, training dynamics, gradients. See `prune represent --help`.

    fields: name -> key of the rows, or keys, of which the first that a file has is read. format: theirs, where they
    have one. drop: keys that rows lose. skip_bad: a file for bad rows, which are then left out. replace: make the
    artifact again if it is not up to date. force: in any case. Returns the artifact.
    Raises prune_cli.errors.PruneError.
    """
    from prune_cli.represent import kinds
    from prune_cli.stages.represent import represent as stage

    reading = _reading(fields, format, drop, skip_bad)
    return _made(stage(str(data), Path(out), kinds.build(options), reading, _how(replace, force)))


def score(
    inputs: Names,
    out: str | Path,
    *,
    fields: Fields | None = None,
    format: str = "auto",
    drop: Sequence[str] = (),
    skip_bad: str | Path | None = None,
    replace: bool = False,
    force: bool = False,
    **options: Any,
) -> Artifact:
    """Give each row a number: how hard, how typical, how relevant it is. See `prune score --help`.

    inputs: represent artifacts, or a data file; the other arguments as for `represent`.
    """
    from prune_cli.options import Score, build
    from prune_cli.stages.score import score as stage

    reading = _reading(fields, format, drop, skip_bad)
    return _made(stage(_names(inputs), Path(out), build(Score, options), reading, _how(replace, force)))


def select(
    inputs: Names,
    out: str | Path,
    *,
    fields: Fields | None = None,
    format: str = "auto",
    drop: Sequence[str] = (),
    skip_bad: str | Path | None = None,
    replace: bool = False,
    force: bool = False,
    **options: Any,
) -> Artifact:
    """Keep the rows that a method chooses. See `prune select --help`.

    inputs: score and represent artifacts, or a data file; the other arguments as for `represent`.
    """
    from prune_cli.options import Select, build
    from prune_cli.stages.select import select as stage

    if "keep" in options:
        options["keep"] = str(options["keep"])  # 0.3 or 500 as well as "30%"
    reading = _reading(fields, format, drop, skip_bad)
    return _made(stage(_names(inputs), Path(out), build(Select, options), reading, _how(replace, force)))


def export(
    selection: str | Path,
    out: str | Path,
    *,
    replace: bool = False,
    force: bool = False,
    **options: Any,
) -> Artifact:
    """Write kept rows for a trainer or a library. See `prune export --help`; `for_="trl"` is `--for trl`.

    selection: a select artifact; the other arguments as for `represent`.
    """
    from prune_cli.options import Export, build
    from prune_cli.stages.export import export as stage

    return _made(stage(str(selection), Path(out), build(Export, options), _how(replace, force)))


def finetune(
    data: str | Path,
    out: str | Path,
    *,
    fields: Fields | None = None,
    format: str = "auto",
    drop: Sequence[str] = (),
    skip_bad: str | Path | None = None,
    replace: bool = False,
    force: bool = False,
    **options: Any,
) -> Artifact:
    """Train a model on rows, or on what a selection kept. See `prune finetune --help`; arguments as for `represent`."""
    from prune_cli.options import Finetune, build
    from prune_cli.stages.finetune import finetune as stage

    reading = _reading(fields, format, drop, skip_bad)
    return _made(stage(str(data), Path(out), build(Finetune, options), reading, _how(replace, force)))


def evaluate(
    model: str | Path,
    tests: Mapping[str, str | Path] | Names,
    out: str | Path,
    *,
    fields: Fields | None = None,
    format: str = "auto",
    drop: Sequence[str] = (),
    skip_bad: str | Path | None = None,
    replace: bool = False,
    force: bool = False,
    **options: Any,
) -> Artifact:
    """Measure a trained model on test sets. See `prune eval --help`; arguments as for `represent`.

    tests: name -> data file, or data files, which are then called by their stems.
    """
    from prune_cli.data.open import test_sets
    from prune_cli.options import Eval, build
    from prune_cli.stages.evaluate import evaluate as stage

    if isinstance(tests, Mapping):
        named = {name: str(test) for name, test in tests.items()}
    else:
        named = test_sets(_names(tests))
    return _made(
        stage(
            str(model),
            named,
            Path(out),
            build(Eval, options),
            _reading(fields, format, drop, skip_bad),
            _how(replace, force),
        )
    )


def merge(
    model: str | Path, out: str | Path, *, replace: bool = False, force: bool = False, **options: Any
) -> Artifact:
    """Add adapters into their model's weights. See `prune merge --help`; `replace` and `force` as for `represent`."""
    from prune_cli.options import Merge, build
    from prune_cli.stages.merge import merge as stage

    return _made(stage(str(model), Path(out), build(Merge, options), _how(replace, force)))


def simulate(out: str | Path, *, replace: bool = False, force: bool = False, **options: Any) -> Artifact:
    """Prune points in the plane by every method. See `prune simulate --help`; arguments as for `represent`."""
    from prune_cli.options import Simulate, build
    from prune_cli.stages.simulate import simulate as stage

    if "keep" in options:
        options["keep"] = str(options["keep"])
    return _made(stage(Path(out), build(Simulate, options), _how(replace, force)))


def pipeline(file: str | Path, out: str | Path, *, device: str | None = None) -> Report:
    """Run a pipeline file in the folder `out`: each method, budget and seed trained and measured.

    Returns the report: its `results` are a dict for each method, budget, seed and test set.
    """
    from prune_cli.pipeline.run import run

    return run(Path(file), Path(out), device=device, dry_run=False, tell=lambda _, line: None)


def report(
    run: str | Path, out: str | Path | None = None, *, replace: bool = False, force: bool = False, **options: Any
) -> Artifact:
    """Write a page about a pipeline's folder. See `prune report --help`; `replace` and `force` as for `represent`."""
    from prune_cli.options import Report as Options
    from prune_cli.options import build
    from prune_cli.pipeline.page import report as stage

    return _made(stage(Path(run), Path(out) if out else None, build(Options, options), _how(replace, force)))


def compare(
    artifacts: Names, *, k: int = 10, sample: int = 2000, seed: int = 0, all_seeds: bool = False
) -> dict[str, Any]:
    """What artifacts about the same rows, or those of a pipeline's folder, have in common. See `prune compare --help`.

    Returns what `--json` prints.
    """
    from prune_cli.report.compare import facts
    from prune_cli.report.compare.representations import Drawing

    return facts(_names(artifacts), Drawing(k, sample, seed), all_seeds=all_seeds)


def advise(
    given: str | Path,
    *,
    metric: str | None = None,
    margin: float | None = None,
    out: str | Path | None = None,
    model: str | Path | None = None,
    target: str | Path | None = None,
    test: str | Path | None = None,
    keep: str | float | None = None,
    budget: str | float | None = None,
    methods: str | Sequence[str] | None = None,
    seed: int | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Which method to use and how much to keep, or neither: from a run, or by trials. See `prune advise --help`.

    out and all that follows are of trials. Returns what `--json` prints.
    """
    from prune_cli.pipeline.advise.ask import answer
    from prune_cli.pipeline.advise.asked import Asked

    def text(value: object) -> str | None:
        return None if value is None else str(value)

    several = methods if isinstance(methods, str | None) else ",".join(methods)
    asked = Asked(
        out=None if out is None else Path(out),
        model=text(model),
        target=text(target),
        test=text(test),
        keep=text(keep),
        budget=f"{budget}s" if isinstance(budget, int | float) else budget,
        methods=several,
        seed=seed,
        device=device,
    )
    return answer(str(given), metric, margin, asked).facts


def open_artifact(path: str | Path) -> Artifact:
    """Open an artifact: its `about`, `options` and `file(name)`, whose hash is checked."""
    from prune_cli.artifacts.manifest import open_artifact as opened

    return opened(Path(path))


def _names(given: Names) -> list[str]:
    return [str(given)] if isinstance(given, str | Path) else [str(name) for name in given]


def _reading(fields: Fields | None, format: str, drop: Sequence[str], skip_bad: str | Path | None) -> Reading:
    from prune_cli.data.open import Reading

    bad_rows = None if skip_bad is None else Path(skip_bad)
    return Reading(fields or {}, tuple(drop), bad_rows is not None, bad_rows, format)


def _how(replace: bool, force: bool) -> How:
    from prune_cli.stages.common import How

    return How(force=force, replace=replace)


def _made(outcome: Outcome) -> Artifact:
    return open_artifact(outcome.out)
