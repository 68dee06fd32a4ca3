"""The commands about a pipeline file: write one, run one, say what that will take."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

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
    SkipBad,
    SomeModel,
    SomeTemplate,
    TestRows,
    ValidationRows,
    Written,
    reading_asked,
)
from prune_cli.runtime.terminal import clean

Printed = Literal["make", "slurm", "commands"]
RunFolder = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder of all that is made; if left out, runs/ and the file's stem."),
]
RunDevice = Annotated[str | None, typer.Option(help="Where to run, in place of the file's: auto, cpu, cuda or cuda:N.")]


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
    skip_bad: SkipBad = None,
    chat_template: SomeTemplate = None,
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
    reading = reading_asked(fields, format, drop, skip_bad)
    seen = look(data, validation, test_sets(test or ()), reading, model, chat_template)
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
    out: RunFolder = None,
    device: RunDevice = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STEPS",
            help="Make these alone, and what they rest on: shared (what all methods share), a step by what it is "
            "called, or a path in the folder that steps make. Repeatable.",
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Steps to make side by side; if left out, one, or one a device.", min=1)
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="Devices to make them on, one at a time on each, as in cuda:0,cuda:1.")
    ] = None,
    print_as: Annotated[
        Printed | None,
        typer.Option("--print", help="Only print the steps: as a Makefile, job arrays, or commands."),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Compare methods, budgets and seeds as a file says: each selection trained on and measured."""
    from prune_cli.pipeline import run
    from prune_cli.pipeline.text import text

    folder = out or Path("runs", file.stem)
    if print_as:
        if only or jobs or devices or dry_run or as_json:
            raise typer.BadParameter("stands alone, but for --out and --device", param_hint="--print")
        print(run.script(file, folder, device=device, form=print_as))
        return
    if only == ["-"]:
        _serve(file, folder, device)
        return
    report = run.run(
        file,
        folder,
        device=device,
        dry_run=dry_run,
        tell=lambda _, line: tell(line),
        only=only or (),
        at_once=jobs,
        devices=_listed(devices),
    )
    ran = "would run" if dry_run else "made"
    count, current = report.count(ran), report.count("current")
    tell(f"pipeline: {f'{count} {ran}' if count else 'nothing to do'}, {current} up to date")
    for warning in report.warnings:
        tell(f"warning: {warning}")
    if any(comparison.method == "full" for comparison in report.comparisons):
        tell(f"pipeline: whether pruning is worth it beside all rows: prune advise {shlex.quote(str(folder))}")
    show(report.facts, text(report) if report.results else str(report.out), as_json)


@app.command(epilog=example("prune estimate sample_data/pipeline.toml -o runs/sample"))
def estimate(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="What is to be run.", show_default=False)],
    out: RunFolder = None,
    device: RunDevice = None,
    seconds: Annotated[float, typer.Option(help="About how long to measure.", min=0.0)] = 60.0,
    seed: Annotated[int, typer.Option(help="Draws the rows to measure with.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Say what a pipeline will take before it is run: rows, tokens, steps, time, peak memory and disk of each stage."""
    from prune_cli.pipeline.estimate import estimate as estimated
    from prune_cli.pipeline.estimate.text import text

    found = estimated(file, out or Path("runs", file.stem), device=device, seconds=seconds, seed=seed)
    show(found.facts, text(found), as_json)


def _serve(file: Path, folder: Path, device: str | None) -> None:
    """Be a worker of --jobs: names of steps come on standard input, and what each came to goes to standard output.

    A step, and what it starts, finds nothing on the one, and writes to standard error in place of the other.
    """
    from prune_cli.pipeline import run

    with os.fdopen(os.dup(0), encoding="utf-8") as names, os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        for made in run.serve(file, folder, device=device, names=names):
            print(json.dumps(made), file=answers, flush=True)


def _listed(devices: str | None) -> list[str]:
    """`"cuda:0,cuda:1"` -> ["cuda:0", "cuda:1"]."""
    listed = [name.strip() for name in devices.split(",")] if devices is not None else []
    if not all(listed):
        raise typer.BadParameter(
            f"{devices}; allowed: devices with commas, as in cuda:0,cuda:1", param_hint="--devices"
        )
    return listed
