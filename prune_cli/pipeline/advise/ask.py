"""What `prune advise` is asked, and its answer: of a finished run, or of trials that it makes itself."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from prune_cli.data.open import Reading
from prune_cli.errors import PruneError
from prune_cli.pipeline import results
from prune_cli.pipeline.advise import finished
from prune_cli.pipeline.advise.answers import Answer, Whole, put

OUT = "runs/advised"  # where the commands write that are told


@dataclass(frozen=True)
class Asked:
    """What trials are to be made of, and for how long. None: not said.

    test: rows to measure on; else a half of the target set. methods: in place of all that fit the task.
    """

    out: Path | None = None
    model: str | None = None
    target: str | None = None
    test: str | None = None
    keep: str | None = None
    budget: str | None = None
    methods: str | None = None
    seed: int | None = None
    device: str | None = None
    reading: Reading | None = None


def answer(given: str, metric: str | None, margin: float | None, asked: Asked) -> Answer:
    """Advice on a run of the pipeline, or on data by trials."""
    run = Path(given)
    if results.is_run(run):
        for field in fields(Asked):
            if getattr(asked, field.name) != field.default:
                raise PruneError(f"--{field.name}: {given} has its trials; allowed only with DATA or FILE.toml")
        return put(given, finished.advice_of(run, metric, margin), run, OUT, Whole())
    from prune_cli.pipeline.advise import trials

    for name in ("out", "keep", "budget", *(() if run.suffix == ".toml" else ("model", "target"))):
        if getattr(asked, name) is None:
            raise PruneError(f"--{name}: missing; trials need it, as {given} is no folder of a pipeline with results")
    for name in ("model", "target", "test", "reading") if run.suffix == ".toml" else ():
        if getattr(asked, name) is not None:
            raise PruneError(f"{name}: given beside {given}, which says it; leave it out")
    return trials.answer(given, metric, margin, asked)
