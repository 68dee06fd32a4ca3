"""The commands that look: at methods, artifacts, runs, and the guide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prune_cli import options
from prune_cli.commands.app import app, example, show, stage, tell
from prune_cli.errors import PruneError
from prune_cli.parameters import AsJson

if TYPE_CHECKING:
    from prune_cli.stages.common import Outcome


@app.command(epilog=example("prune methods", "prune methods less"))
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
    show(facts, text(facts), as_json)


@app.command("show", epilog=example("prune show runs/kept"))
def show_artifact(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT|RUN", help="A folder made by prune.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what an artifact is, how it was made, and whether it is whole; of a pipeline's folder, its table so far."""
    from prune_cli.pipeline import results
    from prune_cli.pipeline.text import text
    from prune_cli.report import artifact as report

    if results.is_run(artifact):
        for name in results.making(artifact):
            tell(f"{artifact}: {name} is being made")
        found = results.read(artifact)
        if (artifact / results.UNDER_WAY).is_file():
            ended = len({*map(results.trial, (*found.results, *found.without))})
            tell(f"{artifact}: under way; {ended} of {results.planned(artifact)} trials have ended")
        show(found.facts, text(found), as_json)
        return
    facts = report.facts(artifact)
    show(facts, report.text(facts), as_json)
    if facts["damaged"]:
        missing = facts["missing"]
        damaged = [name for name in facts["damaged"] if name not in missing]
        parts = [f"{what}: {', '.join(names)}" for what, names in (("damaged", damaged), ("missing", missing)) if names]
        raise PruneError(
            f"{artifact}: {'; '.join(parts)}",
            hint="make it again: the command above, with --force",
        )


@app.command(epilog=example("prune compare runs/less runs/kept runs/train"))
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
    show(facts, text(facts), as_json)


@app.command(epilog=example("prune report runs/sample"))
@stage
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a pipeline.", show_default=False)],
    opts: options.Report,
    how: Any,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the page; if left out, RUN/report.")
    ] = None,
) -> Outcome:
    """Write a page about a pipeline's folder: results, what methods keep and why, likely wrong labels, the price."""
    from prune_cli.pipeline.page import report

    return report(run, out, opts, how)


@app.command(epilog=example("prune guide", "prune guide methods"))
def guide(
    topic: Annotated[str | None, typer.Argument(metavar="TOPIC", help="A page of the guide.")] = None,
) -> None:
    """Print a page of the guide; without a topic, the list of pages."""
    from prune_cli import guide as pages

    print(pages.page(topic) if topic else pages.contents())
