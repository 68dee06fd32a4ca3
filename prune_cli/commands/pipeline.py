"""The commands about a pipeline file: write one, run one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prune_cli.commands.app import app, example, show, tell
from prune_cli.errors import PruneError
from prune_cli.parameters import (
    AsJson,
    Drop,
    DryRun,
    Fields,
    Files,
    Format,
    SomeModel,
    TestRows,
    ValidationRows,
    Written,
    reading_of,
)
from prune_cli.runtime.terminal import clean

if TYPE_CHECKING:
    from prune_cli.stages.common import Outcome


@app.command(
    epilog=example(
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


@app.command(epilog=example("prune pipeline sample_data/pipeline.toml -o runs/sample"))
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
    show(report.facts, "\n".join(lines), as_json)
