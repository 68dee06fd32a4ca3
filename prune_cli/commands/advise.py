"""The command that decides: from a finished run, or by trials."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prune_cli.commands.app import app, example, show
from prune_cli.parameters import AsJson, Drop, Fields, Format, SkipBad, reading_asked

Advised = Annotated[
    str,
    typer.Argument(
        metavar="RUN|DATA|FILE.toml",
        help="The folder of a pipeline; or what trials are to be made of: training rows, or a pipeline file.",
        show_default=False,
    ),
]
Metric = Annotated[str | None, typer.Option(help="Judge by this metric; if left out, by the first of the table.")]
Margin = Annotated[
    float | None,
    typer.Option(
        help="So much worse than all rows, in units of the metric, is as good; if left out, 2% of theirs.", min=0.0
    ),
]
TRIALS = "Trials of DATA or FILE.toml"
TrialsOut = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder of all that is made.", rich_help_panel=TRIALS)
]
TrialsModel = Annotated[str | None, typer.Option("--model", help="The model to train.", rich_help_panel=TRIALS)]
TargetRows = Annotated[str | None, typer.Option("--target", help="The rows to be good at.", rich_help_panel=TRIALS)]
TrialsTest = Annotated[
    str | None,
    typer.Option("--test", help="Rows to measure on; if left out, a half of the target.", rich_help_panel=TRIALS),
]
TrialsKeep = Annotated[
    str | None,
    typer.Option("--keep", help="How much to keep: a share (0.1 or 10%) or a number.", rich_help_panel=TRIALS),
]
Budget = Annotated[
    str | None, typer.Option("--budget", help="How long trials may take: 30s, 20m or 2h.", rich_help_panel=TRIALS)
]
SomeMethods = Annotated[
    str | None,
    typer.Option("--methods", help="Names with commas; if left out, all that fit the task.", rich_help_panel=TRIALS),
]
TrialsSeed = Annotated[
    int | None, typer.Option("--seed", help="Draws the trials; 0 if left out.", min=0, rich_help_panel=TRIALS)
]
TrialsDevice = Annotated[
    str | None, typer.Option("--device", help="Where to run: auto, cpu, cuda or cuda:N.", rich_help_panel=TRIALS)
]


@app.command(
    epilog=example(
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
    skip_bad: SkipBad = None,
    as_json: AsJson = False,
) -> None:
    """Say which method to use and how much to keep, or that a random draw, all rows or no training is as good."""
    from prune_cli.pipeline.advise.ask import answer
    from prune_cli.pipeline.advise.asked import Asked

    given_so = fields or drop or skip_bad or format != "auto"
    reading = reading_asked(fields, format, drop, skip_bad) if given_so else None
    asked = Asked(out, model, target, test, keep, budget, methods, seed, device, reading)
    found = answer(given, metric, margin, asked)
    show(found.facts, "\n".join(found.lines), as_json)
