"""`prune score`: one number a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli import options
from prune_cli.artifacts.jsonl import write_columns
from prune_cli.data import fingerprints
from prune_cli.data.open import Reading, check_of_use, read_as
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.methods import call as calls
from prune_cli.stages.common import How, Outcome, done, making, settle, tell_bad_rows


def _check(scores: NDArray[Any], rows: Rows, method: str) -> None:
    """Raise PruneError unless there is one finite number for each row."""
    told = ""
    if scores.shape != (len(rows),) or scores.dtype.kind not in "iuf":
        told = f"an array {list(scores.shape)} of {scores.dtype} for {len(rows):,} rows"
    elif not np.isfinite(scores).all():
        at = int(np.flatnonzero(~np.isfinite(scores))[0])
        told = f"{scores[at]} for {rows.where(at)}"
    if told:
        raise PruneError(f"{method}: gave scores that are not one finite number for each row: {told}")


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
        _check(scores, rows, call.method.name)
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
