"""`prune score`: one number a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prune_cli import options
from prune_cli.artifacts.jsonl import write_columns
from prune_cli.data import fingerprints
from prune_cli.data.open import Reading, check_of_use, read_as
from prune_cli.errors import PruneError
from prune_cli.methods import call as calls
from prune_cli.stages.common import How, Outcome, done, making, settle, tell_bad_rows


def score(names: Sequence[str], out: Path, opts: options.Score, reading: Reading, how: How) -> Outcome:
    """Score rows: `score.jsonl`, {"id", "score"} in row order, and `ids.jsonl`, by which the rows are known again.

    names: represent, score or select artifacts, or a data file. Higher means what the method's line `Higher:` says.
    """
    check_of_use([*names, *([opts.target] if opts.target else [])], reading)
    call = calls.prepare("score", names, opts, reading)
    if reading.bad_rows:  # or rows that no one reads would be opened
        tell_bad_rows(reading, call.all_rows, how)
    recipe = call.recipe("score")
    outcome = settle(out, recipe, call.places, how)
    if outcome.settled:
        return outcome
    with making(outcome, recipe, call.places) as draft:
        rows = call.given.rows
        scores = calls.as_array(call.method.call(**call.read()))
        if scores.shape != (len(rows),) or scores.dtype.kind not in "iuf" or not np.isfinite(scores).all():
            raise PruneError(f"{call.method.name}: gave scores that are not one finite number for each row")
        write_columns(draft.path / "score.jsonl", {"id": rows.ids, "score": scores.tolist()})
        fingerprints.write_ids(rows, draft.path / fingerprints.IDS)
        draft.about = {
            "rows": len(rows),
            "labels": call.given.labels,
            **read_as(rows, call.target_data),
            "meaning": call.method.summary,
            **call.target_source,
        }
    return done(outcome, draft)
