"""The answer to `prune advise`: of a finished run, or of trials that it makes itself."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from prune_cli.errors import PruneError
from prune_cli.pipeline import results
from prune_cli.pipeline.advise import finished, trials
from prune_cli.pipeline.advise.answers import Answer, Whole, put
from prune_cli.pipeline.advise.asked import Asked

OUT = "runs/advised"  # where the commands write that are told


def answer(given: str, metric: str | None, margin: float | None, asked: Asked) -> Answer:
    """Advice on a run of the pipeline, or on data by trials."""
    run = Path(given)
    if results.is_run(run):
        for field in fields(Asked):
            if getattr(asked, field.name) != field.default:
                raise PruneError(f"--{field.name}: {given} has its trials; allowed only with DATA or FILE.toml")
        return put(given, finished.advice_of(run, metric, margin), run, OUT, Whole())
    needed = ("out", "keep", "budget", *(() if run.suffix == ".toml" else ("model", "target")))
    missing = ", ".join(f"--{name}" for name in needed if getattr(asked, name) is None)
    if missing:
        raise PruneError(f"{missing}: missing; trials need it, as {given} is no folder of a pipeline with results")
    for name in ("model", "target", "test", "reading") if run.suffix == ".toml" else ():
        if getattr(asked, name) is not None:
            raise PruneError(f"{name}: given beside {given}, which says it; leave it out")
    return trials.answer(given, metric, margin, asked)
