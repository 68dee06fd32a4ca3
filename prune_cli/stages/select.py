"""`prune select`: the rows that are kept, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli import options
from prune_cli.artifacts.jsonl import write_columns
from prune_cli.data.open import WHY, Reading, check_of_use, read_as, source_of
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.methods import balance
from prune_cli.methods import call as calls
from prune_cli.methods.balance import Selection
from prune_cli.methods.budget import parse_keep
from prune_cli.methods.inputs import Inputs, kept_in, selection_of
from prune_cli.stages import counts
from prune_cli.stages.common import How, Outcome, done, making, settle, tell_bad_rows


def select(names: Sequence[str], out: Path, opts: options.Select, reading: Reading, how: How) -> Outcome:
    """Select rows: `select.jsonl`, the kept rows as they came; `why.jsonl`, a line for each row given.

    names: score, represent or select artifacts, or a data file. A line of `why.jsonl` has {"id", "kept", "rank"}, rank
    from 1 for the best and null for a row that is not kept, the score where the method reads one, and the columns that
    the method returned; where not every row may be kept also {"left_out"}, the option by which a row may not.
    """
    if opts.balance == "none" and opts.balance_by != "label":
        raise PruneError(
            f"balance_by: {opts.balance_by}; allowed only with a balance", hint="--balance keep, or --balance equal"
        )
    check_of_use([*names, *([opts.target] if opts.target else [])], reading)
    call = calls.prepare("select", names, opts, reading)
    if reading.bad_rows:  # or rows that no one reads would be opened
        tell_bad_rows(reading, call.all_rows, how)
    earlier = selection_of(opts.within, call.given.digest, call.given.place) if opts.within else None
    n_keep = parse_keep(opts.keep, earlier.about["kept"] if earlier else call.given.n)
    balanced = {"balance": opts.balance, **({"balance_by": opts.balance_by} if opts.balance != "none" else {})}
    recipe = call.recipe("select", n_keep=n_keep, order=opts.order, **balanced)
    places = call.places
    if opts.within and earlier:
        recipe = replace(recipe, inputs={**recipe.inputs, "within": earlier.files[WHY]})
        places = {**places, "within": opts.within}
    outcome = settle(out, recipe, places, how)
    if outcome.settled:
        return outcome
    with making(outcome, recipe, places) as draft:
        rows = call.given.rows
        arguments = call.read()
        part = call.given.parts(opts.balance_by) if opts.balance != "none" else None
        among = np.flatnonzero(kept_in(earlier)) if earlier else None
        kept = balance.select(call.method, arguments, part, n_keep, opts.balance, len(rows), among)
        written = kept.positions if opts.order == "best" else np.sort(kept.positions)
        digest = rows.write(draft.path / "select.jsonl", written.tolist())
        write_columns(draft.path / "why.jsonl", _reasons(rows, kept, arguments.get("score"), among))
        counted = counts.counts(call.given.task, call.given.labels, rows, kept.positions)
        told = counts.warnings(counted)
        if how.warn:
            counts.warn(out, told)
        draft.about = {
            "rows": len(rows),
            "kept": n_keep,
            **({"candidates": len(among)} if among is not None else {}),
            "counts": counts.stored(counted),
            "warnings": told,
            "digest": digest,
            "labels": call.given.labels,
            **read_as(rows),
            **_from(call.given),
        }
    return done(outcome, draft)


def _from(given: Inputs) -> dict[str, str]:
    """Where the rows are from, and by what they were scored."""
    scored = [artifact.options["method"] for artifact in given.scored]
    hidden = given.scored and not Path(given.place).exists()  # a hub name, which the score artifact knows
    source = source_of(str(given.scored[0].path) if hidden else given.place)
    return {"source": source, **({"score": scored[0]} if scored else {})}


def _reasons(
    rows: Rows, kept: Selection, score: NDArray[Any] | None, among: NDArray[np.int64] | None
) -> dict[str, Sequence[Any]]:
    """The columns of `why.jsonl`, an entry for each row given."""
    ranks = np.full(len(rows), -1)
    ranks[kept.positions] = np.arange(1, len(kept.positions) + 1)
    columns = {"rank": ranks, **({"score": score} if score is not None else {}), **kept.columns}
    outside: dict[str, list[str | None]] = {}
    if among is not None:
        outside["left_out"] = ["within"] * len(rows)
        for i in among.tolist():
            outside["left_out"][i] = None
    return {
        "id": rows.ids,
        "kept": (ranks > 0).tolist(),
        **{name: _entries(column) for name, column in columns.items()},
        **outside,
    }


def _entries(column: NDArray[Any]) -> list[Any]:
    """The entries of a column, None where there is none."""
    if column.dtype.kind == "f":
        return [None if math.isnan(value) else value for value in column.tolist()]
    return [None if value == -1 else value for value in column.tolist()]
