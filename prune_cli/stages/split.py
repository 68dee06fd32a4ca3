"""A part of a data file as an artifact of rows: what a pipeline splits off its training rows, and what is left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prune_cli import tasks
from prune_cli.artifacts import code
from prune_cli.artifacts.jsonl import write_columns
from prune_cli.artifacts.manifest import Recipe
from prune_cli.data.open import SELECTED, WHY, Reading, open_rows, read_as, source_of
from prune_cli.data.split import Parts
from prune_cli.stages import counts
from prune_cli.stages.common import How, Outcome, done, making, settle, task_code

CODE = ("prune_cli.data.split", "prune_cli.numeric.shares")


@dataclass(frozen=True)
class Part:
    """One of the parts of rows of a task."""

    name: str
    parts: Parts
    task: str


def split(data: str, out: Path, opts: Part, reading: Reading, how: How) -> Outcome:
    """Make a select artifact of the rows of one part, in the order of the data and as they came.

    A line of `why.jsonl` says for each row of the data which part it went to.
    """
    task, part, parts = tasks.load(opts.task), opts.name, opts.parts
    rows = open_rows(data, tasks.reading_of(opts.task, reading), task.check)
    labels = task.label_list(rows)
    drawn = {"method": "split", "on": None, "set": {"part": part, "shares": dict(parts.shares)}, "seed": parts.seed}
    decided = {**drawn, "task": opts.task, "order": "data", "balance": "none"}  # all that a selection's recipe has
    made_by = {"split": code.digest_of_module("prune_cli.data.split", CODE), **task_code(opts.task)}
    recipe = Recipe("select", {**decided, "labels": labels}, {"rows": rows.digest}, made_by)
    places = {"rows": data}
    outcome = settle(out, recipe, places, how)
    if outcome.settled:
        return outcome
    with making(outcome, recipe, places) as draft:
        went = tasks.parted(task, rows, parts)
        kept = went == parts.names.index(part)
        ranks = [rank if its else None for rank, its in zip(np.cumsum(kept).tolist(), kept.tolist(), strict=True)]
        names = [parts.names[j] for j in went.tolist()]
        positions = np.flatnonzero(kept)
        digest = rows.write(draft.path / SELECTED, positions.tolist())
        write_columns(draft.path / WHY, {"id": rows.ids, "kept": kept.tolist(), "rank": ranks, "part": names})
        draft.about = {
            "rows": len(rows),
            "kept": int(kept.sum()),
            "digest": digest,
            "labels": labels,
            "counts": counts.stored(counts.counts(task, labels, rows, positions)),
            **read_as(rows),
            "source": source_of(data),
        }
    return done(outcome, draft)
