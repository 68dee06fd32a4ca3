"""`prune report`: one page about a run of the pipeline, which a browser opens without a network."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path

from prune_cli import options
from prune_cli.artifacts.code import digest_of_module
from prune_cli.artifacts.manifest import Recipe, digest_value, is_artifact, open_artifact
from prune_cli.errors import PruneError
from prune_cli.pipeline import results
from prune_cli.pipeline.page import facts as gathering
from prune_cli.pipeline.page import html
from prune_cli.pipeline.page.figures import draw
from prune_cli.pipeline.page.price import stages
from prune_cli.report.outcome import FACTS, PAGE
from prune_cli.stages.common import How, Outcome, done, making, settle

CODE = ("prune_cli.report", "prune_cli.pipeline", "prune_cli.numeric", "prune_cli.runtime")


def report(run: Path, asked: Path | None, opts: options.Report, how: How) -> Outcome:
    """Write `report.html`, its figures, and `facts.json` with all that it tells, into a folder.

    run: the folder of a pipeline, whole or half. asked: where to; if left out, RUN/report, which is made again where
    the run has changed since.
    """
    if not results.is_run(run):
        raise PruneError(f"{run}: no results of a pipeline in it; allowed: the folder of a pipeline that has begun")
    out = asked or run / "report"
    if is_artifact(out) and (stage := open_artifact(out).stage) != "report":
        raise PruneError(f"{out}: holds an artifact of prune {stage}; choose another -o")
    found = stages(run)
    came_to = results.read(run)
    read = {stage.place: stage.artifact.manifest["seal"] for stage in found.values()}
    under_way = (run / results.UNDER_WAY).is_file()
    told = digest_value([came_to.results, came_to.lds, under_way])
    code = {"report": digest_of_module(__name__, CODE), "page": _digest_of_templates()}
    recipe = Recipe(
        "report",
        options.recipe(opts),
        {"artifacts": digest_value(read), "results": told, "name": run.resolve().name},
        code,
    )
    how = replace(how, replace=how.replace or asked is None)  # a pipeline owns its folder
    outcome = settle(out, recipe, {}, how)
    if outcome.settled:
        return outcome
    with making(outcome, recipe, {"run": str(run)}) as draft:
        facts = gathering.facts(run, came_to, found, opts)
        figures = draw(facts, draft.path)
        (draft.path / FACTS).write_text(json.dumps(facts, ensure_ascii=False) + "\n", "utf-8")
        (draft.path / PAGE).write_text(html.page(facts, figures, draft.path), "utf-8")
        draft.about = {"run": facts["run"], "figures": list(figures)}
    return done(outcome, draft)


def _digest_of_templates() -> str:
    """sha256 over the files that a page is written with."""
    files = sorted(resources.files(__package__).iterdir(), key=lambda file: file.name)
    texts = [file.read_bytes() for file in files if file.name.endswith((".html", ".css"))]
    return hashlib.sha256(b"\n".join(texts)).hexdigest()
