"""The rows that a selection leaves out: what is left of the training rows without its picks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from prune_cli import tasks
from prune_cli.artifacts import code
from prune_cli.artifacts.jsonl import write_columns
from prune_cli.artifacts.manifest import Recipe
from prune_cli.data.open import SELECTED, WHY, Reading, open_rows, read_as, source_of
from prune_cli.errors import PruneError
from prune_cli.methods.inputs import kept_in, selection_of
from prune_cli.stages import counts
from prune_cli.stages.common import How, Outcome, done, making, settle, task_code

CODE = ("prune_cli.stages.rest",)


def rest(data: str, selection: str, out: Path, task_name: str, reading: Reading, how: How) -> Outcome:
    """Make a select artifact of the rows that a selection of `data` leaves out, in the order of the data."""
    task = tasks.load(task_name)
    rows = open_rows(data, tasks.reading_of(task_name, reading), task.check)
    chosen = selection_of(selection, rows.digest, data)
    if chosen.about["kept"] == len(rows):
        raise PruneError(f"{selection}: keeps all {len(rows)} rows; allowed: one that leaves rows out")
    labels = chosen.about["labels"]
    decided: dict[str, Any] = {
        "method": "rest",
        "on": None,
        "set": {},
        "task": task_name,
        "order": "data",
        "balance": "none",
    }
    made_by = {"rest": code.digest_of_module(__name__, CODE), **task_code(task_name)}
    read = {"rows": rows.digest, "selection": chosen.files[WHY]}
    recipe = Recipe("select", {**decided, "labels": labels}, read, made_by)
    places = {"rows": data, "selection": selection}
    outcome = settle(out, recipe, places, how)
    if outcome.settled:
        return outcome
    with making(outcome, recipe, places) as draft:
        kept = ~kept_in(chosen)
        positions = np.flatnonzero(kept)
        ranks = [rank if its else None for rank, its in zip(np.cumsum(kept).tolist(), kept.tolist(), strict=True)]
        digest = rows.write(draft.path / SELECTED, positions.tolist())
        write_columns(draft.path / WHY, {"id": rows.ids, "kept": kept.tolist(), "rank": ranks})
        counted = counts.counts(task, labels, rows, positions)
        draft.about = {
            "rows": len(rows),
            "kept": len(positions),
            "digest": digest,
            "labels": labels,
            "counts": counts.stored(counted),
            "warnings": counts.warnings(counted),
            **read_as(rows),
            "source": source_of(data),
        }
    return done(outcome, draft)
