"""The command line: options -> one call, its result on stdout, messages on stderr, an exit status.

Nothing heavy is imported here: each command imports what it needs when it runs, so that help is quick.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prune_cli import options
from prune_cli.errors import PruneError
from prune_cli.parameters import (
    Advised,
    AsJson,
    Budget,
    Data,
    Drop,
    DryRun,
    Fields,
    Files,
    Format,
    Inputs,
    Margin,
    Metric,
    Out,
    SomeMethods,
    SomeModel,
    TargetRows,
    TestRows,
    TrialsDevice,
    TrialsKeep,
    TrialsModel,
    TrialsOut,
    TrialsSeed,
    TrialsTest,
    ValidationRows,
    Written,
    reading_of,
    stage_command,
)
from prune_cli.runtime import processes
from prune_cli.runtime.terminal import clean
from prune_cli.version import __version__

if TYPE_CHECKING:
    from prune_cli.stages.common import Outcome

app = typer.Typer(
    help="Choose which fine-tuning examples are worth training on.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


def tell(line: str) -> None:
    """A line on stderr."""
    print(clean(line), file=sys.stderr, flush=True)


def _show(facts: Any, text: str, as_json: bool) -> None:
    """The result on stdout: as one JSON object, or in words."""
    print(json.dumps(facts, ensure_ascii=False) if as_json else clean(text))


def _report(outcome: Outcome, as_json: bool) -> None:
    """The result of a stage on stdout, what happened on stderr."""
    if not processes.first():
        return
    from prune_cli.report import outcome as report

    facts = report.facts(outcome)
    for line in report.lines(facts):
        tell(line)
    _show(facts, str(outcome.out), as_json)


def _stage(function: Callable[..., Outcome]) -> Callable[..., None]:
    return stage_command(function, _report)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"prune-cli {__version__}")
        raise typer.Exit


@app.callback()
def _prune(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    processes.join(context.invoked_subcommand)


def _example(*commands: str) -> str:
    """The end of a command's help: commands that work beside sample_data."""
    return "Example:\n" + "\n".join(f"  {command}" for command in commands)


@app.command(
    epilog=_example(
        "prune represent sample_data/train.jsonl -o runs/train \\\n"
        "      --model runs/warmup --kind hidden,dynamics,gradient",
        "prune represent sample_data/validation.jsonl -o runs/validation \\\n      --model runs/warmup --kind gradient",
    )
)
@_stage
def represent(data: Data, out: Out, opts: options.Represent, **common: Any) -> Outcome:
    """Represent each row by a model's hidden states, training dynamics, projected gradients or influence."""
    from prune_cli.stages.represent import represent

    return represent(data, out, opts, **common)


@app.command(
    epilog=_example(
        "prune score runs/train -o runs/less \\\n      --method less --on gradient --target runs/validation"
    )
)
@_stage
def score(inputs: Inputs, out: Out, opts: options.Score, **common: Any) -> Outcome:
    """Give each row a number: how hard, how typical, how relevant it is."""
    from prune_cli.stages.score import score

    return score(inputs, out, opts, **common)


@app.command(epilog=_example("prune select runs/less -o runs/kept \\\n      --method top --keep 30% --balance keep"))
@_stage
def select(inputs: Inputs, out: Out, opts: options.Select, **common: Any) -> Outcome:
    """Keep the rows that a method chooses, ready for any trainer."""
    from prune_cli.stages.select import select

    return select(inputs, out, opts, **common)


@app.command(epilog=_example("prune export runs/kept -o runs/exported --for datasets"))
@_stage
def export(
    selection: Annotated[str, typer.Argument(metavar="SELECTION", help="A select artifact.", show_default=False)],
    out: Out,
    opts: options.Export,
    how: Any,
) -> Outcome:
    """Write kept rows for a trainer or a library, as they came, with what it needs beside them."""
    from prune_cli.stages.export import export

    return export(selection, out, opts, how)


@app.command(
    epilog=_example(
        "prune finetune sample_data/train.jsonl -o runs/warmup \\\n"
        "      --model sample_data/model --learning-rate 1e-3 --keep-checkpoints epoch",
        "prune finetune runs/kept -o runs/model \\\n      --model sample_data/model --learning-rate 1e-3",
    )
)
@_stage
def finetune(data: Data, out: Out, opts: options.Finetune, **common: Any) -> Outcome:
    """Train a model on rows, or on those that a selection kept; records training dynamics on the way."""
    from prune_cli.stages.finetune import finetune

    return finetune(data, out, opts, **common)


@app.command(
    "eval",
    epilog=_example("prune eval runs/model sample_data/test.jsonl sample_data/ood.jsonl \\\n      -o runs/metrics"),
)
@_stage
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A finetune artifact, or a model with a trained head: hub name or folder.",
            show_default=False,
        ),
    ],
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA",
            help="Test sets, named by their file stems or as in ood=data/test.jsonl; lm-eval:TASK,TASK for benchmarks.",
            show_default=False,
        ),
    ],
    out: Out,
    opts: options.Eval,
    **common: Any,
) -> Outcome:
    """Measure a trained model on test sets: loss, accuracy, F1, and every prediction."""
    from prune_cli.data.open import test_sets
    from prune_cli.stages.evaluate import evaluate

    return evaluate(model, test_sets(data), out, opts, **common)


@app.command(
    epilog=_example(
        "prune finetune sample_data/train.jsonl -o runs/lora \\\n"
        "      --model sample_data/model --tune lora --steps 20",
        "prune merge runs/lora -o runs/merged",
    )
)
@_stage
def merge(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A finetune artifact of LoRA, or adapters: hub name or folder.", show_default=False
        ),
    ],
    out: Out,
    opts: options.Merge,
    how: Any,
) -> Outcome:
    """Add adapters into their model's weights: a plain folder that other trainers and servers load."""
    from prune_cli.stages.merge import merge

    return merge(model, out, opts, how)


@app.command(
    epilog=_example(
        "prune simulate -o runs/simulation",
        "prune simulate -o runs/noise --sweep noise=0,0.1,0.2",
    )
)
@_stage
def simulate(out: Out, opts: options.Simulate, how: Any) -> Outcome:
    """Prune points in the plane by every method: figures of what each keeps, and when it fails."""
    from prune_cli.stages.simulate import simulate

    return simulate(out, opts, how)


@app.command(epilog=_example("prune methods", "prune methods less"))
def methods(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A published method, kind, score or selection."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the published methods, and every kind of representation, score and selection; or tell of one by name."""
    from prune_cli.report import methods as report

    facts = report.one_method(name) if name else report.all_methods()
    text = report.one_method_text if name else report.all_methods_text
    _show(facts, text(facts), as_json)


@app.command("show", epilog=_example("prune show runs/kept"))
def show_artifact(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT|RUN", help="A folder made by prune.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what an artifact is, how it was made, and whether it is whole; of a pipeline's folder, its table so far."""
    from prune_cli.pipeline import evidence, results
    from prune_cli.report import artifact as report
    from prune_cli.report.table import table

    if results.is_run(artifact):
        found = results.read(artifact)
        if (artifact / results.UNDER_WAY).is_file():
            tell(f"{artifact}: under way; {len({*map(results.trial, found.results)})} trials have ended")
        _show(found.facts, "\n".join([*table(list(results.table(found))), *evidence.told(found.comparisons)]), as_json)
        return
    facts = report.facts(artifact)
    _show(facts, report.text(facts), as_json)
    if facts["damaged"]:
        missing = facts["missing"]
        damaged = [name for name in facts["damaged"] if name not in missing]
        parts = [f"{what}: {', '.join(names)}" for what, names in (("damaged", damaged), ("missing", missing)) if names]
        raise PruneError(
            f"{artifact}: {'; '.join(parts)}",
            hint="make it again: the command above, with --force",
        )


@app.command(epilog=_example("prune compare runs/less runs/kept runs/train"))
def compare(
    artifacts: Annotated[
        list[str],
        typer.Argument(
            metavar="ARTIFACT|RUN",
            help="Score, select and represent artifacts about the same rows, or the folder of a pipeline.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A file to write all of it to, as one JSON object.")
    ] = None,
    k: Annotated[int, typer.Option(help="Nearest neighbours of a row.", min=1)] = 10,
    sample: Annotated[
        int, typer.Option(help="Rows that are drawn, where there are more, for neighbours and wide features.", min=4)
    ] = 2000,
    seed: Annotated[int, typer.Option(help="Draws them.", min=0)] = 0,
    all_seeds: Annotated[
        bool, typer.Option("--all-seeds", help="All seeds of a pipeline, not the first alone.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what scores, selections and representations of the same rows have in common, beside chance."""
    from prune_cli.artifacts.files import replace_file
    from prune_cli.report import compare as report
    from prune_cli.report.compare.representations import Drawing
    from prune_cli.report.compare.text import text

    if out and out.exists() and not force:
        raise PruneError(f"{out}: exists; choose another -o", hint="--force to write over it")
    facts = report.facts(artifacts, Drawing(k, sample, seed), all_seeds=all_seeds)
    if out:
        written = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, lambda path: path.write_text(written, "utf-8"))
    _show(facts, text(facts), as_json)


@app.command(epilog=_example("prune guide", "prune guide methods"))
def guide(
    topic: Annotated[str | None, typer.Argument(metavar="TOPIC", help="A page of the guide.")] = None,
) -> None:
    """Print a page of the guide; without a topic, the list of pages."""
    from prune_cli import guide as pages

    print(pages.page(topic) if topic else pages.contents())


@app.command(
    epilog=_example(
        "prune init sample_data/train.jsonl -o my.toml \\\n      --model sample_data/model --test sample_data/ood.jsonl"
    )
)
def init(
    data: Files,
    out: Written = None,
    model: SomeModel = None,
    validation: ValidationRows = None,
    test: TestRows = None,
    fields: Fields = None,
    format: Format = "auto",
    drop: Drop = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Look at data files and write a pipeline file that fits them, with what was guessed in its comments."""
    from prune_cli.artifacts.files import replace_file
    from prune_cli.data.open import test_sets
    from prune_cli.data.sources import files_of
    from prune_cli.pipeline.look import look
    from prune_cli.pipeline.propose import propose

    if out and out.exists() and not force:
        raise PruneError(f"{out}: exists; choose another -o", hint="--force to write over it")
    reading = reading_of(fields, format, drop, None)
    seen = look(data, validation, test_sets(test or ()), reading, model)
    if out and out.exists() and any(out.samefile(path) for file in seen.files.values() for path in files_of(file)):
        raise PruneError(f"{out}: is one of the inputs; choose another -o")
    proposal = propose(seen, model, out or Path("my.toml"))
    for line in proposal.told:
        tell(f"init: {line}")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, lambda path: path.write_text(proposal.text, "utf-8"))
    print(clean(str(out)) if out else proposal.text, end="\n" if out else "")


@app.command(epilog=_example("prune pipeline sample_data/pipeline.toml -o runs/sample"))
def pipeline(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="What to run.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of all that is made; if left out, runs/ and the file's stem."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to run, in place of the file's: auto, cpu, cuda or cuda:N.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Compare methods, budgets and seeds as a file says: each selection trained on and measured."""
    from prune_cli.pipeline import evidence, results, run
    from prune_cli.report.outcome import happened
    from prune_cli.report.table import table

    def ended(step: str, done: Outcome) -> None:
        tell(f"{step}: {happened(done.state, done.reason, done.seconds)}")

    report = run.run(file, out or Path("runs", file.stem), device=device, dry_run=dry_run, tell=ended)
    ran = "would run" if dry_run else "made"
    count, current = report.count(ran), report.count("current")
    tell(f"pipeline: {f'{count} {ran}' if count else 'nothing to do'}, {current} up to date")
    lines = [str(report.out)] if dry_run else [*table(list(results.table(report))), *evidence.told(report.comparisons)]
    for warning in report.warnings:
        tell(f"warning: {warning}")
    _show(report.facts, "\n".join(lines), as_json)


@app.command(
    epilog=_example(
        "prune advise runs/sample",
        "prune advise sample_data/train.jsonl -o runs/advice --model sample_data/model \\\n"
        "      --target sample_data/validation.jsonl --keep 10% --budget 5m",
    )
)
def advise(
    given: Advised,
    metric: Metric = None,
    margin: Margin = None,
    out: TrialsOut = None,
    model: TrialsModel = None,
    target: TargetRows = None,
    test: TrialsTest = None,
    keep: TrialsKeep = None,
    budget: Budget = None,
    methods: SomeMethods = None,
    seed: TrialsSeed = None,
    device: TrialsDevice = None,
    fields: Fields = None,
    format: Format = "auto",
    drop: Drop = None,
    as_json: AsJson = False,
) -> None:
    """Say which method to use and how much to keep, or that a random draw, all rows or no training is as good."""
    from prune_cli.pipeline.advise.ask import answer
    from prune_cli.pipeline.advise.asked import Asked

    reading = reading_of(fields, format, drop, None) if fields or drop or format != "auto" else None
    asked = Asked(out, model, target, test, keep, budget, methods, seed, device, reading)
    found = answer(given, metric, margin, asked)
    _show(found.facts, "\n".join(found.lines), as_json)
